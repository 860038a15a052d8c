"""Photographs from the visitor: dropped, chosen, pasted, or taken by the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr


def upload(**options: Any) -> gr.Image:
    """An image input. Its events have `preprocess=False`: what a file holds is decoded elsewhere, never in this process."""
    sources: Any = ["upload", "webcam", "clipboard"]
    return gr.Image(image_mode=None, format="png", interactive=True, buttons=["fullscreen"], sources=sources, **options)


def content(value: Any) -> bytes:
    """The bytes of what a browser has sent (as gradio describes it without preprocessing). ValueError where it is gone."""
    try:
        return Path(value["path"]).read_bytes()
    except (OSError, KeyError, TypeError):
        raise ValueError("the file is no longer there: choose it again") from None


def name_of(value: Any) -> str:
    """What the visitor calls it."""
    return Path(str(value.get("orig_name") or "photograph.png")).name
