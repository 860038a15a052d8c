"""The sections of a recipe but for its samples: every key with its meaning, unit, default and range.

`genpercept train --explain` and docs/recipe.md print what stands here; see `recipe_reference`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Model(Section):
    """The parts. A path is a folder in diffusers' layout; a config is a table as in its config.json."""

    base: str = Field(
        default="",
        description="What fine-tuning starts from: a text-to-image model's folder or hub id in diffusers' layout, a DINOv2's "
        "or CLIP's in transformers', an embedded model's name, or a predictor that is to be trained further or taught another "
        "task. distil stage: the predictor. denoiser stage: a text-to-image model to go on from.",
    )
    codec: str = Field(default="", description='A folder with an AutoencoderKL, or with vae/ in it. "": the base\'s.')
    init: Literal["base", "scratch"] = Field(
        default="base",
        description="denoiser, autoencoder stage: go on from the weights of model.base or model.codec, or start at random "
        'ones. finetune stage: scratch is an older name of learn.denoiser = "scratch".',
    )
    head: str = Field(
        default="",
        description="finetune stage: the head. \"\": the task's own; vae is the codec's decoder.",
        json_schema_extra={"plugins": "heads"},
    )
    head_config: dict[str, Any] = Field(
        default_factory=dict, description="finetune stage: sizes of the head, as in its config.json."
    )
    codec_config: dict[str, Any] = Field(
        default_factory=dict, description="autoencoder stage: sizes of the codec, as in AutoencoderKL's config.json."
    )
    backbone: str = Field(
        default="",
        description='denoiser stage: the denoiser, sd21 or pixart_alpha. "": sd21. Fine-tuning takes the base\'s.',
    )
    backbone_config: dict[str, Any] = Field(
        default_factory=dict, description="denoiser stage: sizes of the denoiser, as in its config.json."
    )
    pyramid_blocks: tuple[int, ...] = Field(
        default=(),
        description="finetune stage, transformers: numbers of the blocks that a head reads. []: four, evenly spaced.",
    )
    text_config: dict[str, Any] = Field(
        default_factory=dict, description="denoiser stage: sizes of the text encoder, as in CLIPTextConfig."
    )
    prompt_length: int = Field(
        default=32, ge=3, description="denoiser stage: tokens of a padded caption, begin and end included."
    )
    upsample: Literal[1, 2, 4] = Field(
        default=1,
        description="finetune stage: so many times the size at the denoiser's old price. The encoder is shown the picture "
        "averaged, and a small network brings the decoder's answer up along the photograph, at first bilinearly; it learns "
        "with the decoder.",
    )
    train_decoder: bool = Field(default=False, description='An older name of learn.decoder = "finetune".')


class Learn(Section):
    """finetune stage: which parts learn, and from what. "finetune" starts at the base's weights, "scratch" at random ones."""

    denoiser: Literal["finetune", "scratch", "frozen", "lora", "controlnet"] = Field(
        default="finetune", description="The denoiser; lora and controlnet keep its weights and train what is added."
    )
    decoder: Literal["frozen", "finetune", "scratch"] = Field(
        default="frozen", description="The codec's decoder; it learns from a loss behind it only."
    )
    head: Literal["finetune", "scratch", "frozen"] = Field(
        default="finetune",
        description="A head with weights of its own. finetune goes on from the base's, where the base is a predictor that has "
        "one like it, of this task or another (dis to matting).",
    )


class Lora(Section):
    """Low-rank adapters (Hu et al. 2021) by peft."""

    rank: int = Field(default=16, ge=1, description="Rank of the update B A of each layer.")
    alpha: int = Field(
        default=0, ge=0, description="The update is scaled by alpha / rank. 0: as rank, so that it is unscaled."
    )
    targets: tuple[str, ...] = Field(
        default=(),
        description='Ends of the names of the layers that get one. []: the attention projections; ["all"]: every layer.',
    )


class Prompt(Section):
    """finetune stage: what the denoiser's cross-attention reads."""

    kind: Literal["empty", "fixed", "random"] = Field(
        default="empty", description="No text, one text for all samples, or one drawn for each sample."
    )
    text: str = Field(default="", description="fixed: the text.")
    texts: tuple[str, ...] = Field(
        default=(), description="random: what is drawn from. []: sentences of random words of the vocabulary."
    )
    padded: bool = Field(
        default=False, description="Padded to the tokenizer's full length, as in v1; random prompts always are."
    )

    @model_validator(mode="after")
    def _used(self) -> Prompt:
        if (self.kind == "fixed") != bool(self.text):
            raise ValueError('prompt: kind "fixed" and a text go together')
        if self.texts and self.kind != "random":
            raise ValueError('prompt.texts: only read when prompt.kind is "random"')
        return self


class Autoencoder(Section):
    """autoencoder stage: a codec for photographs and for painted labels."""

    kl: float = Field(
        default=1e-6,
        ge=0,
        description="Weight of the posterior's divergence from a unit normal (mean over latent values).",
    )
    paint: dict[str, float] = Field(
        default_factory=lambda: {"depth": 0.12, "disparity": 0.08, "normals": 0.15, "mask": 0.05},
        description="Share of the batch that is a painted label instead of the photograph, by label, so that labels survive "
        "the codec. Samples without any label stay photographs; the first data set, on which is validated, has them all.",
    )


class Distil(Section):
    """distil stage: one end of the base's codec, an AutoencoderKL's, or its U-Net, made cheaper and taught to answer as the
    whole one."""

    part: Literal["decoder", "encoder", "denoiser"] = Field(
        default="decoder", description="Which end of the codec, or the denoiser: a U-Net of Stable Diffusion's kind."
    )
    form: Literal["slim", "tiny", "guided"] = Field(
        default="slim",
        description="slim: the same network, pruned. tiny: the tiny autoencoder's (TAESD's), from random weights. guided: a "
        "decoder without its finest levels, whose answer a small network brings up along the photograph.",
    )
    width: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="slim, guided: share of the channels that are kept, in whole groups of the normalisation. tiny: share of "
        "TAESD's 64. Of a denoiser all stay.",
    )
    blocks: int = Field(
        default=0,
        ge=0,
        description="Residual blocks per level, of a denoiser on its way down. 0: as many as there are, or as TAESD has.",
    )
    attention: bool = Field(
        default=True,
        description="false: without the attention in the middle of a codec's end, whose cost is quadratic in the pixels; tiny "
        "has none.",
    )
    channels: Literal[0, 1, 3] = Field(
        default=0,
        description="Channels of a decoder's answer; 1: the mean of the three. 0: 1 for tasks of one value per pixel, 3 for "
        "the others.",
    )
    levels: int = Field(
        default=0,
        ge=0,
        le=4,
        description="guided: finest levels left out, 1 (which 0 means) for half the size, 2 for a quarter. denoiser: innermost "
        "levels left out.",
    )
    middle: bool = Field(default=True, description="denoiser: false leaves out the block between its two ways.")
    without_attention: int = Field(
        default=0, ge=0, description="denoiser: so many levels, from the finest, lose their attention."
    )
    features: float = Field(
        default=1.0,
        ge=0,
        description="denoiser: weight of the mean squared difference behind each level of the way up, over the variance of "
        "the whole one's features.",
    )


class Denoiser(Section):
    """denoiser stage: a text-to-image model."""

    empty_prompt: float = Field(default=0.1, ge=0, le=1, description='Share of captions replaced by "" (for guidance).')
    text_lr: float = Field(default=0.0, ge=0, description="Learning rate of the text encoder. 0: as optim.lr.")
    min_snr_gamma: float = Field(
        default=0.0, ge=0, description="0: plain MSE on v; 5: min-SNR weighting (Hang et al. 2023) for v."
    )
    cached_latents: bool = Field(
        default=True,
        description="Images are encoded once, without crops and colour changes. false: encoded in the step, augmented.",
    )
    variants: int = Field(default=2, ge=1, le=2, description="Cached latents per image: 1 as it is, 2 also mirrored.")
    sample_steps: int = Field(default=25, ge=1, description="DDIM steps of the validation picture.")
    guidance: float = Field(
        default=3.0, ge=0, description="Scale of the validation picture's classifier-free guidance; 1: none."
    )


class Optim(Section):
    """The optimiser and the learning rate over the run."""

    kind: Literal["adam", "adamw", "fused", "8bit", "muon"] = Field(
        default="fused",
        description="adamw: torch's; fused: the same in one kernel; adam: weight decay added to the gradient; 8bit: AdamW of "
        "bitsandbytes; muon: orthogonal updates of weight matrices and AdamW for the rest (fewer steps, each a little slower).",
    )
    lr: float = Field(
        default=1e-4,
        gt=0,
        description="Learning rate of the denoiser, its adapters, or whatever else the stage trains.",
    )
    lr_decoder: float = Field(default=0.0, ge=0, description="Learning rate of the codec's decoder. 0: as lr.")
    lr_head: float = Field(default=0.0, ge=0, description="Learning rate of the head. 0: as lr.")
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999), description="Decay per step of the running means of the gradient and of its square."
    )
    weight_decay: float = Field(
        default=0.01,
        ge=0,
        description="Share of the weights, times the learning rate, that a step takes off; adam adds it to the gradient.",
    )
    eps: float = Field(default=1e-8, gt=0, description="Added to the root mean square gradient before dividing by it.")
    warmup: int = Field(default=100, ge=0, description="Steps over which the learning rate rises linearly.")
    decay: Literal["constant", "linear", "cosine", "exponential"] = Field(
        default="cosine", description="How the learning rate falls to lr x final."
    )
    final: float = Field(default=0.01, gt=0, le=1, description="Learning rate at the end, relative to lr.")
    decay_steps: int = Field(default=0, ge=0, description="Steps that the fall takes. 0: the whole run.")
    grad_clip: float = Field(
        default=1.0, ge=0, description="Largest norm of the gradient; longer ones are scaled. 0: any."
    )


class Ema(Section):
    """The moving average of the weights, which is what is validated and saved."""

    decay: float = Field(default=0.999, ge=0, lt=1, description="Decay of the average per step. 0: no average.")
    warmup: bool = Field(default=True, description="The decay at step s is at most (1 + s) / (10 + s).")


class Checkpoint(Section):
    """What --resume goes on from."""

    every: int = Field(
        default=500, ge=0, description="Steps between two checkpoints. 0: only when stopped and at the end."
    )
    every_minutes: float = Field(default=0.0, ge=0, description="Also after so many minutes. 0: no.")
    keep: int = Field(default=2, ge=1, description="Latest checkpoints kept, beside the best model.")


class Logging(Section):
    """What the run reports, and where."""

    every: int = Field(default=20, ge=1, description="Steps between TensorBoard points.")
    seconds: float = Field(default=30.0, gt=0, description="Seconds between plain lines where there is no terminal.")
    tensorboard: bool = Field(default=True, description="Write RUN/tensorboard.")
    trackers: tuple[Literal["wandb", "trackio"], ...] = Field(
        default=(), description="Where else the run reports, if they are installed."
    )
    project: str = Field(default="genpercept", description="Name of the project in the trackers.")


class Speed(Section):
    """How the machine is used. Nothing here changes what is learnt, but for rounding."""

    threads: int = Field(
        default=0, ge=0, description="Threads of the network's arithmetic on the CPU. 0: torch's choice."
    )
    processes: int = Field(
        default=1, ge=1, description="Processes on this machine, each with its share of every batch."
    )
    channels_last: bool = Field(default=False, description="Weights and images in torch's channels_last memory format.")
    tf32: bool = Field(
        default=False,
        description="NVIDIA GPUs: float32 products of factors with 10 bits of mantissa (TF32), quicker.",
    )
    checkpointing: bool = Field(
        default=False,
        description="Activations are computed again in the backward pass: less memory, about a third more time.",
    )
    compile: bool = Field(default=False, description="torch.compile of the network in training.")
    attention: Literal["auto", "plain", "fused"] = Field(
        default="auto",
        description="plain: matrix products and softmax. fused: torch's own kernel. auto: plain for bf16 on the CPU, else "
        "fused.",
    )
    encoder: Literal["auto", "mixed", "bf16"] = Field(
        default="auto",
        description="The frozen encoder of precision bf16. bf16: a copy whose weights and maps are bf16 throughout. mixed: "
        "torch.autocast, with float32 weights that are rounded in each step. auto: bf16 on GPUs that have it, else mixed.",
    )


class Guard(Section):
    """A step whose loss or gradient is not finite, or far above what is usual, is left out and counted."""

    spike: float = Field(
        default=20.0,
        ge=0,
        description="Times the running mean of the gradient norm from which a step is left out. 0: only non-finite steps are.",
    )
    limit: int = Field(default=25, ge=1, description="Left-out steps in a row that stop the run.")
