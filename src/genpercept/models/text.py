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

from genpercept.checkpoints import budget, parts, regular, shapes
from genpercept.checkpoints.schema import check_arguments, known
from genpercept.checkpoints.stand_ins import read_json
from genpercept.checkpoints.weights import weight_files
from genpercept.core.texts import one_line

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
_WORD_END = "</w>"
_T5, _T5_LENGTH = "t5", 120  # tokens of a caption at most, as PixArt was trained
_TOKENIZER = "tokenizer_config.json"
_SHOWN = 160  # letters of another library's message


def embed(tokenizer: Any, text_encoder: Any, prompt: str = "", *, pad: bool = False) -> Tensor:
    """Last hidden state for one prompt, (1, tokens, width) float32.

    Not padded unless asked: the empty prompt is 2 tokens (begin, end) as in the released v2 models; v1 padded to 77. T5, of
    PixArt, gives 1 (end): its padding to 120 is masked in both networks, so that leaving it out changes nothing. ValueError
    where it is asked for all the same, and for a tokenizer of another vocabulary. Zeros of an encoder that is shapes alone.
    """
    masked = text_encoder.config.model_type == _T5
    if masked and pad:
        raise ValueError(
            "a T5 prompt's padding is masked, which nothing reads: leave prompt.padded out (random prompts need it)"
        )
    longest = min(tokenizer.model_max_length, getattr(text_encoder.config, "max_position_embeddings", _T5_LENGTH))
    ids = tokenizer(
        prompt,
        padding="max_length" if pad else "do_not_pad",
        max_length=_T5_LENGTH if masked else longest,
        truncation=True,
        return_tensors="pt",
    ).input_ids
    known = text_encoder.get_input_embeddings().num_embeddings
    if (largest := int(ids.max())) >= known:
        raise ValueError(
            f"the tokenizer gives token {largest}, but the text encoder knows {known}: tokenizer/ and text_encoder/ are of two "
            "models, or one was changed; copy or download both again"
        )
    with torch.no_grad():  # not inference mode: the embedding is an input of training too
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
    for place in (part, folder / "tokenizer"):
        regular.check_folder(place, regular.TOKENIZER)
    config = read_json(part / "config.json")
    t5 = config.get("model_type") == _T5
    kind: Any = transformers.T5EncoderModel if t5 else transformers.CLIPTextModel
    check_arguments(part / "config.json", config, kind.config_class)
    files = weight_files(part, allow_pickle=allow_pickle)
    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        found |= parts.tensor_shapes(path, allow_pickle=allow_pickle)
    try:
        with budget.of(found):
            encoder, wrong = _read(kind, known(config, kind.config_class), files, allow_pickle)
    except budget.Exceeded as error:
        raise ValueError(f"{part / 'config.json'}: does not fit its weights: {error}; copy both again") from None
    except Exception as error:  # noqa: BLE001  # transformers has exceptions of its own, and no common one
        reason = one_line(error, _SHOWN)
        raise ValueError(f"{part}: not a readable text encoder ({reason}); copy or download it again") from None
    if wrong:
        raise ValueError(f"{part}: missing or misshaped {', '.join(sorted(wrong)[:4])}; copy or download it again")
    values = {} if shapes.wanted() else encoder.state_dict()
    if bad := [name for name, t in values.items() if not bool(torch.isfinite(t).all())]:
        raise ValueError(f"{part}: NaN or infinite values in {', '.join(bad[:4])}; the file is damaged")
    return _tokenizer(folder / "tokenizer", transformers.AutoTokenizer if t5 else transformers.CLIPTokenizer), encoder


def _read(kind: Any, settings: dict[str, Any], files: list[Path], allow_pickle: bool) -> tuple[Any, list[str]]:
    """The encoder in evaluation mode, and tensors that its files lack or have in another shape. Any exception for none.

    transformers is handed settings and tensors, not the folder: it would look there for adapters, and for code to fetch.
    """
    config = kind.config_class(**settings)
    if shapes.wanted():
        with shapes.memory():
            return kind(config).eval(), []
    from transformers.utils import logging

    tensors: dict[str, Tensor] = {}
    for path in files:
        tensors |= {
            k: t.float() if t.is_floating_point() else t
            for k, t in parts.read_tensors(path, allow_pickle=allow_pickle).items()
        }
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # a bar for a few tensors would cut through the caller's own output
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # what it would report of missing tensors is an error of ours
    try:
        encoder, found = kind.from_pretrained(
            None,
            config=config,
            state_dict=tensors,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
    return encoder.eval(), [*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])]


def _tokenizer(folder: Path, reader: Any) -> Any:
    """ValueError for a folder without a tokenizer that can be read, and for one that takes its files from elsewhere."""
    if (folder / _TOKENIZER).exists():
        settings = read_json(folder / _TOKENIZER)
        length = settings.get("model_max_length", 1)
        if not isinstance(length, int) or isinstance(length, bool) or length < 1:
            raise ValueError(
                f"{folder / _TOKENIZER}: model_max_length is {str(length)[:40]}: must be an integer from 1"
            )
        for key, value in settings.items():
            if key.endswith("_file") and isinstance(value, str) and (folder / value).exists():
                raise ValueError(
                    f"{folder / _TOKENIZER}: {key} is {value!r}: a tokenizer's files lie beside it; leave it out"
                )
    try:
        return reader.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as error:  # noqa: BLE001  # transformers has exceptions of its own, and no common one
        reason = one_line(error, _SHOWN)
        raise ValueError(f"{folder}: not a readable tokenizer ({reason}); copy it again") from None


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
