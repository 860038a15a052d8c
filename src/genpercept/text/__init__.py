"""Text: the fixed prompt's embedding, and the vocabulary of the mini model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"


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


def load(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and text encoder (evaluation mode, float32) of a model folder in StableDiffusionPipeline layout."""
    from transformers import CLIPTextModel, CLIPTokenizer
    from transformers.utils import logging

    for part in ("tokenizer", "text_encoder"):
        if not (folder / part).is_dir():
            raise ValueError(
                f"{folder}: has no {part}/: a base model holds unet, vae, text_encoder, tokenizer and scheduler"
            )
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for a few tensors would cut through the caller's own output
    try:
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    finally:
        if shown:
            logging.enable_progress_bar()
    return CLIPTokenizer.from_pretrained(folder / "tokenizer"), encoder


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
