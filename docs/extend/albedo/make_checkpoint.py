"""Makes a checkpoint for the walk, as Inkwell might publish one: the layout is right, the weights are random."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

WIDTH = 32  # of the text that the U-Net reads


def main(out: Path) -> None:
    """OUT: unet, vae, the empty prompt's embedding, and an index with the name of Inkwell's own pipeline."""
    torch.manual_seed(0)
    levels = {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8}
    unet = UNet2DConditionModel(
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=2,
        **levels,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        scaling_factor=0.18215,
    )
    unet.save_pretrained(out / "unet")
    vae.save_pretrained(out / "vae")
    np.save(out / "empty_text_embed.npy", np.zeros((2, WIDTH), np.float32))
    (out / "model_index.json").write_text(json.dumps({"_class_name": "InkwellPipeline"}))


main(Path(sys.argv[1]))
