"""Photographs from the visitor: dropped, chosen, pasted, or taken by the camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from gradio.events import Dependency

class Upload(gr.Image):
    """An image input whose file is handed over as it is: what it holds is decoded elsewhere, never in this process."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            type="filepath", image_mode=None, format="png", interactive=True, buttons=["fullscreen"],
            sources=["upload", "webcam", "clipboard"], **options,
        )  # fmt: skip

    def get_block_name(self) -> str:
        return "image"
    from typing import Callable, Literal, Sequence, Any, TYPE_CHECKING
    from gradio.blocks import Block
    if TYPE_CHECKING:
        from gradio.components import Timer
        from gradio.components.base import Component


def content(value: Any) -> bytes:
    """The bytes of what a browser has sent (as gradio describes it without preprocessing). ValueError where it is gone."""
    try:
        return Path(value["path"]).read_bytes()
    except (OSError, KeyError, TypeError):
        raise ValueError("the file is no longer there: choose it again") from None


def name_of(value: Any) -> str:
    """What the visitor calls it."""
    return Path(str(value.get("orig_name") or "photograph.png")).name