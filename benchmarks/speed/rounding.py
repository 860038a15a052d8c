"""Where a specialised pipeline's float32 error comes from: each fold, the memory format, and group normalisation, apart.

    python benchmarks/speed/rounding.py                          # rounding.md beside it: Stable Diffusion 2.1, 256 x 256
    python benchmarks/speed/rounding.py --model tiny --pixels 64 # a check of this script

Random weights. An operation's error is its answer's from float64's, over the largest value. Each form of the network answers
one image once. Its errors are on raw maps, as shares of their largest value: the largest one against the plain pipeline in
float32, as benchmarks/speed/specialise.py has it, and against the plain one in float64, which tells how much of the first is
the plain pipeline's own rounding. CPU seconds are of that one answer, and no more than a hint.
"""

from __future__ import annotations

import argparse
import copy
import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))  # where `benchmarks` lies
from diffusers import AutoencoderKL

from benchmarks._page import made, show
from benchmarks.speed.specialise import answer, pipeline
from genpercept import GenPerceptPipeline
from genpercept.pipeline.specialise import fold as folding
from genpercept.pipeline.specialise import layers

FOLDS: dict[str, tuple[type[nn.Module], ...]] = {
    "none": (),
    "time embedding and shortcut into biases": (layers.Resnet,),
    "prompt, and one product for queries, keys, values": (layers.Transformer, layers.SpatialAttention),
    "upsampling with its convolution": (layers.Upsample,),
    "1 x 1 convolutions of the codec": (nn.Identity,),
    "all": (layers.Resnet, layers.Transformer, layers.SpatialAttention, layers.Upsample, nn.Identity),
}
FORMS = (
    *((fold, "contiguous", False) for fold in FOLDS),
    ("all", "contiguous", True),
    ("none", "channels_last", False),
    ("none", "channels_last", True),
    ("all", "channels_last", False),
    ("all", "channels_last", True),
)


class Norm(nn.GroupNorm):
    """Group normalisation that rounds in channels_last on CPUs as it does elsewhere: float32 sums in blocks of rows.

    PyTorch's kernel for that case adds a group's pixels and their squares one after the other: on maps of 128 x 128 it is off
    by 2.6e-6 of the largest value where other formats are by 1e-7, and by more on larger ones.
    Five times slower, so that no pipeline uses it.
    """

    def forward(self, x: Tensor) -> Tensor:
        poor = x.device.type == "cpu" and x.dtype == torch.float32 and x.ndim == 4 and layers.is_channels_last(x)
        if not poor:
            return super().forward(x)
        b, c, h, w = x.shape
        blocks = x.permute(0, 2, 3, 1).reshape(b, h * w, c).split(_ROWS, 1)
        sums = torch.stack([block.sum(1) for block in blocks]).double().sum(0)
        squares = torch.stack([torch.linalg.vector_norm(block, dim=1) for block in blocks]).double().square().sum(0)
        mean, square = (v.view(b, self.num_groups, -1).mean(-1) / (h * w) for v in (sums, squares))
        factor = torch.rsqrt((square - mean.square()).clamp_min(0) + self.eps).repeat_interleave(
            c // self.num_groups, 1
        )
        scale = factor if self.weight is None else factor * self.weight.double()
        shift = -mean.repeat_interleave(c // self.num_groups, 1) * scale
        if self.bias is not None:
            shift = shift + self.bias.double()
        return torch.addcmul(shift.float().view(b, c, 1, 1), x, scale.float().view(b, c, 1, 1))


_ROWS = 256  # pixels whose values are added up in float32, before the sums are in float64


def exact_norms(module: nn.Module) -> None:
    """In place: the group normalisations of a copy round no worse in channels_last; see `Norm`."""
    for part in module.modules():
        if type(part) is nn.GroupNorm:
            part.__class__ = Norm


def main() -> None:
    """Each operation alone, then the whole network by each form; writes the page after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="sd21", choices=["sd21", "tiny", "mini/depth", "none"])
    parser.add_argument("--pixels", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines = ["# Where rounding comes from", "", f"{made(__file__, args.threads)}.", "", "## Operations alone", ""]
    lines += ["| operation | contiguous | channels_last | CPU ms, contiguous | CPU ms, channels_last |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |", *operations()]
    text = ["", (__doc__ or "").split("\n\n")[-1].replace("\n", " ").strip()]
    if args.model != "none":
        lines += ["", f"## {args.model}, {args.pixels} x {args.pixels}", ""]
        lines += ["| folded | memory format | normalisation | from plain float32 | from float64 | CPU s |"]
        lines += ["| --- | --- | --- | ---: | ---: | ---: |"]
        for found in networks(args.model, args.pixels):
            lines.append(found)
            args.out.write_text("\n".join((*lines, *text)) + "\n", encoding="utf-8")
    show([*lines, *text], args.out)


def operations() -> Iterator[str]:
    """Rows: the error from float64 and the CPU time of single layers, by the memory format of their map."""
    torch.manual_seed(0)
    for channels, edge in ((128, 128), (512, 32), (1280, 8)):
        x = torch.randn(1, channels, edge, edge) + 1
        conv = nn.Conv2d(channels, channels, 3, padding=1)
        yield operation(f"3 x 3 convolution, {channels} channels, {edge} x {edge}", conv, x)
        norm = nn.GroupNorm(32, channels)
        yield operation(f"group normalisation, {channels} channels, {edge} x {edge}", norm, x)
        ours = nn.GroupNorm(32, channels)
        exact_norms(ours)
        yield operation(f"the same, ours, {channels} channels, {edge} x {edge}", ours, x)


@torch.no_grad()
def operation(name: str, layer: nn.Module, x: Tensor) -> str:
    """A row of the table."""
    want = copy.deepcopy(layer).double()(x.double())
    errors, times = [], []
    for layout in (torch.contiguous_format, torch.channels_last):
        module, given = copy.deepcopy(layer).to(memory_format=layout), x.contiguous(memory_format=layout)  # type: ignore[call-overload]
        taken = []
        for _ in range(3):
            begin = time.process_time()
            found = module(given)
            taken.append(time.process_time() - begin)
        errors.append(f"{error(found, want):.1e}")
        times.append(f"{1e3 * min(taken):.2f}")
    return f"| {name} | {' | '.join((*errors, *times))} |"


def networks(model: str, pixels: int) -> Iterator[str]:
    """Rows: a whole network by each form."""
    image = torch.rand(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    exact = pipeline(model)
    for part in (exact.unet, exact.vae):
        if part is not None:
            part.double()
    truth = answer(exact, image.double()).double()
    del exact
    gc.collect()
    plain = pipeline(model)
    want, seconds = clocked(plain, image)
    yield line("none", "contiguous", "PyTorch's", None, error(want, truth), seconds)
    for fold, layout, own in FORMS:
        form = changed(plain, image, fold, layout, own)
        found, seconds = clocked(form, image)
        norms = "ours" if own else "PyTorch's"
        yield line(fold, layout, norms, error(found, want), error(found, truth), seconds)
        del form
        gc.collect()


def line(fold: str, layout: str, norms: str, plain: float | None, exact: float, seconds: float) -> str:
    """A row of the table."""
    return f"| {fold} | {layout} | {norms} | {'' if plain is None else f'{plain:.1e}'} | {exact:.1e} | {seconds:.1f} |"


def error(found: Tensor, want: Tensor) -> float:
    """The largest difference, as a share of the largest value."""
    return float((found.double() - want.double()).abs().max() / want.double().abs().max())


def clocked(pipe: GenPerceptPipeline, image: Tensor) -> tuple[Tensor, float]:
    """An answer, and its CPU seconds."""
    begin = time.process_time()
    found = answer(pipe, image)
    return found, time.process_time() - begin


@torch.no_grad()
def changed(plain: GenPerceptPipeline, image: Tensor, fold: str, layout: str, own: bool) -> GenPerceptPipeline:
    """The plain pipeline with some folds, in a memory format, with our normalisation or PyTorch's; shares other weights."""
    with folding.recorded(plain.unet) as constants:
        answer(plain, image[..., :64, :64])
    last = layout == "channels_last"
    assert plain.vae is not None
    unet, vae = (folding.twin(part, torch.float32, last) for part in (plain.unet, plain.vae))
    folding._replace(unet, only(FOLDS[fold], folding._unet_layer), constants)
    folding._replace(vae, only(FOLDS[fold], folding._codec_layer), constants)
    for module in vae.modules():
        if isinstance(module, AutoencoderKL) and nn.Identity in FOLDS[fold]:
            folding._merge_pointwise(module)
    if own:
        for part in (unet, vae):
            exact_norms(part)
    return GenPerceptPipeline(unet, vae, plain.prompt_embeds, plain.info)


Make = Callable[[str, nn.Module, folding.Constants], nn.Module | None]


def only(kinds: tuple[type[nn.Module], ...], make: Make) -> Make:
    """`make`, but for layers that become one of other kinds."""

    def some(name: str, module: nn.Module, constants: folding.Constants) -> nn.Module | None:
        new = make(name, module, constants)
        return new if isinstance(new, kinds) else None

    return some


if __name__ == "__main__":
    main()
