"""Text: the fixed prompt's embedding, and the vocabulary of the mini model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from genpercept.checkpoints import shapes, stand_ins
from genpercept.checkpoints.weights import SUFFIX, TRANSFORMERS, weight_files
from genpercept.core.files import read_json
from genpercept.core.texts import one_line

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_T5, _T5_LENGTH = "t5", 120  # tokens of a caption at most, as PixArt was trained
_UNREADABLE = (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)


@torch.no_grad()  # not inference mode: the embedding is an input of training too
def embed(tokenizer: Any, text_encoder: Any, prompt: str = "", *, pad: bool = False) -> Tensor:
    """Last hidden state for one prompt, (1, tokens, width) float32.

    Not padded unless asked: the empty prompt is 2 tokens (begin, end) as in the released v2 models; v1 padded to 77. T5, of
    PixArt, gives 1 (end): its padding to 120 is masked in both networks, so that leaving it out changes nothing. ValueError
    where it is asked for all the same. Zeros of an encoder that is shapes alone.
    """
    masked = text_encoder.config.model_type == _T5
    if masked and pad:
        raise ValueError(
            "a T5 prompt's padding is masked, which nothing reads: leave prompt.padded out (random prompts need it)"
        )
    ids = tokenizer(
        prompt,
        padding="max_length" if pad else "do_not_pad",
        max_length=_T5_LENGTH if masked else tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    found = text_encoder(ids.to(text_encoder.device))[0].float()
    return torch.zeros(found.shape) if found.is_meta else found.clone()


def load(folder: Path, *, allow_pickle: bool = False) -> tuple[Any, Any]:
    """Tokenizer and text encoder (evaluation mode, float32) of a model folder in StableDiffusionPipeline layout.

    CLIP's, or the T5 of PixArt. Within `shapes.shapes_only` the encoder is on the meta device.
    ValueError for an incomplete folder, and for weights that lack tensors: transformers would draw those at random.
    """
    import transformers

    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise ValueError(
                f"{folder}: has no {part}/: a base model holds unet, vae, text_encoder, tokenizer and scheduler"
            )
    part = folder / "text_encoder"
    t5 = _model_type(part) == _T5
    kind: Any = transformers.T5EncoderModel if t5 else transformers.CLIPTextModel
    reader: Any = transformers.AutoTokenizer if t5 else transformers.CLIPTokenizer
    files = weight_files(part, allow_pickle=allow_pickle, names=TRANSFORMERS)
    for path in part.iterdir():
        if path.is_file():
            stand_ins.refuse_stand_in(path)
    try:
        read = _read_shapes if shapes.wanted() else _read
        encoder, wrong = read(kind, part, files[0].suffix == SUFFIX)
    except _UNREADABLE as error:
        reason = one_line(error)
        raise ValueError(f"{part}: not a readable text encoder ({reason}); copy or download it again") from None
    if wrong:
        raise ValueError(f"{part}: missing or misshaped {', '.join(sorted(wrong)[:4])}; copy or download it again")
    values = {} if shapes.wanted() else encoder.state_dict()
    if bad := [name for name, t in values.items() if not bool(torch.isfinite(t).all())]:
        raise ValueError(f"{part}: NaN or infinite values in {', '.join(bad[:4])}; the file is damaged")
    try:
        tokenizer = reader.from_pretrained(folder / "tokenizer")
    except _UNREADABLE as error:
        reason = one_line(error)
        raise ValueError(f"{folder / 'tokenizer'}: not a readable tokenizer ({reason}); copy it again") from None
    return tokenizer, encoder.eval()


def _read(kind: Any, part: Path, safetensors: bool) -> tuple[Any, list[str]]:
    """The encoder, and tensors that its files lack or have in another shape. One of _UNREADABLE for what is no encoder."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for a few tensors would cut through the caller's own output
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would report of missing tensors is an error of ours
    try:
        encoder, found = kind.from_pretrained(
            part,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            use_safetensors=safetensors,
        )
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
    return encoder, [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]


def _read_shapes(kind: Any, part: Path, safetensors: bool) -> tuple[Any, list[str]]:
    """As `_read`, without the weights."""
    with shapes.memory():
        return kind(kind.config_class.from_pretrained(part)), []


def _model_type(part: Path) -> str:
    """As the text encoder's config.json says; "" where it says nothing, which transformers then complains about."""
    try:
        return str(read_json(part / "config.json").get("model_type", ""))
    except (OSError, ValueError, AttributeError):
        return ""


def make_tokenizer(words: Sequence[str], folder: Path, max_length: int = 32) -> Any:
    """Write and load a CLIPTokenizer whose vocabulary is these words, one token each.

    Letters are tokens too, so any other word is spelled out rather than lost. Layout: vocab.json, merges.txt,
    tokenizer_config.json, as StableDiffusionPipeline expects. Returns the loaded tokenizer.
    """
    vocabulary, merges = _vocabulary(words)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, indent=0), encoding="utf-8")
    (folder / "merges.txt").write_text(
        "\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]) + "\n", encoding="utf-8"
    )
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": max_length,
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": END,
        "unk_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)


def _vocabulary(words: Sequence[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Byte-pair encoding trained until every word is one token. Returns ids by token, and the merges in order."""
    letters = [chr(c) for c in range(33, 127)]
    tokens = dict.fromkeys(letters + [c + _WORD_END for c in letters])
    split = [[*word[:-1], word[-1] + _WORD_END] for word in sorted({w.lower() for w in words})]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for parts in split for pair in pairwise(parts)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        tokens["".join(best)] = None
        split = [_merged(parts, best) for parts in split]
    return {token: i for i, token in enumerate([*tokens, BEGIN, END])}, merges


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out
