"""What a predictor is made of: backbones, codecs, heads, paradigms, detectors, text encoders, adapters."""
