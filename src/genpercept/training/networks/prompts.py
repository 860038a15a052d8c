"""What the denoiser's cross-attention reads in fine-tuning: one prompt, or one drawn for each sample."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genpercept.checkpoints.parts import MANIFEST
from genpercept.core.rng import Rng, generator
from genpercept.models import text
from genpercept.training.recipe import Prompt

_SENTENCES, _WORDS = 64, 8  # random prompts made up where the recipe gives none


@dataclass(frozen=True)
class Prompts:
    """pool (N, tokens, width) to draw from in training; fixed (1, tokens, width) for predicting, its words in `text`."""

    pool: Tensor
    fixed: Tensor
    text: str

    def draw(self, rng: Rng) -> Tensor:
        """(B, tokens, width), keyed by (seed, step, sample)."""
        if len(self.pool) == 1:
            return self.pool.expand(len(rng.samples), -1, -1)
        return self.pool[rng.integers(0, len(self.pool), "caption")]


def open_prompts(options: Prompt, folder: Path, present: Tensor, seed: int) -> Prompts:
    """The prompts of a recipe whose base lies in `folder`; `present` is the base pipeline's own embedding.

    ValueError when another prompt is asked of a predictor, which has no text encoder.
    """
    if options.kind == "empty" and not options.padded:
        return Prompts(present, present, "")
    if not present.numel():
        raise ValueError(f"prompt.kind {options.kind!r}: {folder} takes pixels and reads no text; leave prompt out")
    if (folder / MANIFEST).is_file():
        raise ValueError(
            f"prompt.kind {options.kind!r}: {folder} is a predictor, which has only its own prompt's embedding; "
            "start from a text-to-image base"
        )
    tokenizer, encoder = text.load(folder)
    padded = options.padded or options.kind == "random"
    fixed = text.embed(tokenizer, encoder, options.text, pad=padded)
    if options.kind != "random":
        return Prompts(fixed, fixed, options.text)
    sentences = options.texts or _sentences(tokenizer, seed)
    pool = torch.cat([text.embed(tokenizer, encoder, sentence, pad=True) for sentence in sentences])
    return Prompts(pool, fixed, "")


def _sentences(tokenizer: Any, seed: int) -> list[str]:
    """Random words of the vocabulary, the same for the same seed."""
    ends = (token.removesuffix("</w>") for token in sorted(tokenizer.get_vocab()) if token.endswith("</w>"))
    words = [word for word in ends if word.isalpha()]
    draws = (generator(seed, i, 0, "caption").integers(0, len(words), _WORDS) for i in range(_SENTENCES))
    return [" ".join(words[int(k)] for k in draw) for draw in draws]
