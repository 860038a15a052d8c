"""The networks that learn: a predictor, a codec, prompts, slim and tiny ends."""
