"""Text: the fixed prompt's embedding, and the vocabulary of the mini model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor

from genpercept import downloads, pickles

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, SafetensorError)


@torch.no_grad()  # not inference mode: the embedding is an input of training too
def embed(tokenizer: Any, text_encoder: Any, prompt: str = "", *, pad: bool = False) -> Tensor:
    """Last hidden state for one prompt, (1, tokens, width) float32.

    Not padded unless asked: the empty prompt is 2 tokens (begin, end) as in the released v2 models; v1 padded to 77.
    """
    ids = tokenizer(
        prompt,
        padding="max_length" if pad else "do_not_pad",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    return text_encoder(ids.to(text_encoder.device))[0].float().clone()


def load(folder: Path, *, allow_pickle: bool = False) -> tuple[Any, Any]:
    """Tokenizer and text encoder (evaluation mode, float32) of a model folder in StableDiffusionPipeline layout.

    ValueError for an incomplete folder, and for weights that lack tensors: transformers would draw those at random.
    """
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise ValueError(
                f"{folder}: has no {part}/: a base model holds unet, vae, text_encoder, tokenizer and scheduler"
            )
    part = folder / "text_encoder"
    if not allow_pickle and not any(part.glob("*.safetensors")) and (found := pickles.inside(part)):
        raise pickles.refusal(part, found[0].name)
    for path in part.iterdir():
        if path.is_file():
            downloads.refuse_stand_in(path)
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for a few tensors would cut through the caller's own output
    try:
        encoder, found = cast(Any, CLIPTextModel).from_pretrained(
            part, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
        )
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{part}: not a readable text encoder ({reason}); copy or download it again") from None
    finally:
        if shown:
            logging.enable_progress_bar()
    if wrong := [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]:
        raise ValueError(f"{part}: missing or misshaped {', '.join(sorted(wrong)[:4])}; copy or download it again")
    if bad := [name for name, t in encoder.state_dict().items() if not bool(torch.isfinite(t).all())]:
        raise ValueError(f"{part}: NaN or infinite values in {', '.join(bad[:4])}; the file is damaged")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{folder / 'tokenizer'}: not a readable tokenizer ({reason}); copy it again") from None
    return tokenizer, encoder.eval()


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
