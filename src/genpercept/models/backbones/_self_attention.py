"""How a U-Net's self-attention is computed where a checkpoint needs another way than the plain one.

A way is told in config.json under `KEY` and kept with the weights: no tensor's shape shows it, and the plain way would give
other answers without a word.
"""

from __future__ import annotations

import math
from typing import Any

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttentionProcessor
from torch import Tensor

KEY = "self_attention"
PLAIN, RESCALED = "plain", "rescaled"
WAYS = (PLAIN, RESCALED)
_OF_SELF_ATTENTION = ".attn1.processor"  # ends of names; attn2 reads text


class Rescaled:
    """Self-attention at scale sqrt(ln N / (d ln 4N)) for N tokens of width d, in place of 1 / sqrt(d), over another processor.

    DepthFM's code without xformers. The queries are made of an input that is scaled by the quotient of the two, which is the
    same, since they have no bias.
    """

    def __init__(self, plain: Any) -> None:
        self.plain = plain

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """hidden_states (B, N, C) -> (B, N, C)."""
        tokens = hidden_states.shape[1]
        queries = hidden_states * math.sqrt(math.log(tokens) / math.log(4 * tokens))
        return self.plain(attn, queries, hidden_states, attention_mask, temb)


def processors(unet: UNet2DConditionModel, way: str, processor: AttentionProcessor) -> Any:
    """What `set_attn_processor` takes for this way, over one processor for all attention."""
    if way == PLAIN:
        return processor
    own = Rescaled(processor)
    return {name: own if name.endswith(_OF_SELF_ATTENTION) else processor for name in unet.attn_processors}
