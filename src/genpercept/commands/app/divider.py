"""A before / after slider that a keyboard and a thumb can move, too."""

from __future__ import annotations

import gradio as gr

# gradio's own handle follows the pointer alone; the range input below it moves the same line from the keyboard.
_MOVE = "(place) => ({__type__: 'update', slider_position: place})"


def divided(label: str, name: str) -> gr.ImageSlider:
    """An ImageSlider with a range input that moves it; name: of its elements."""
    slider = gr.ImageSlider(
        label=label, format="png", interactive=False, elem_id=f"slider-{name}", buttons=["fullscreen"], max_height=720
    )
    place = gr.Slider(0, 100, value=50, step=1, label="Divide at (%)", elem_id=f"divide-{name}", interactive=True)
    place.input(None, [place], [slider], js=_MOVE)
    return slider
