"""`genpercept bench`: stages timed apart and together, memory, FLOPs, cold start, the machine's ceiling, and peers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genpercept.commands.bench.setting import Effort, Setting
from genpercept.core import said
from genpercept.core.devices import pick_device

if TYPE_CHECKING:
    from genpercept.commands.bench.session import Session


def main(
    model: str | None = None,
    shape: str | None = None,
    codec: str | None = None,
    head: str | None = None,
    decoder: str | None = None,
    unet: str | None = None,
    processing_resolution: int | None = None,
    batches: str = "1",
    dtypes: str = "fp32",
    device: str = "auto",
    threads: int | None = None,
    specialised: bool | None = None,
    compiled: str | None = None,
    cuda_graphs: bool = False,
    layout: str | None = None,
    attention_slicing: bool = False,
    vae_tiling: bool = False,
    strips: bool = False,
    quantise: str | None = None,
    runtime: str | None = None,
    compare: bool = False,
    cold: bool = True,
    against: Sequence[str] = (),
    warmup: int = 1,
    repeats: int = 7,
    seconds: float = 20.0,
    out: Path | None = None,
) -> int:
    """Measure, print the tables, write bench.md and bench.json into `out`. The exit code; ValueError for what does not fit.

    `batches` and `dtypes`: separated by commas. Every other argument as `Setting` and `Effort` have it.
    """
    from genpercept.commands.bench import peers
    from genpercept.commands.bench.session import Session

    networks = _networks(model, shape, codec, head, decoder, unet)
    settings = [
        Setting(
            **networks,
            resolution=processing_resolution or 768,
            dtype=dtype.strip(),
            device=pick_device(device),
            threads=threads or 0,
            specialised=bool(compiled or cuda_graphs or layout or strips) if specialised is None else specialised,
            compile=compiled or "",
            cuda_graphs=cuda_graphs,
            layout=layout or "auto",
            attention_slicing=attention_slicing,
            vae_tiling=vae_tiling,
            strips=strips,
            quantise=quantise or "",
            runtime=runtime or "torch",
        )
        for dtype in dtypes.split(",")
    ]
    session = Session(Effort(warmup, repeats, seconds))
    _measure(session, settings, _sizes(batches), peers.chosen(against), cold, compare)
    return _report(session, f"Speed of {settings[0].network}", out)


def _networks(
    model: str | None, shape: str | None, codec: str | None, head: str | None, decoder: str | None, unet: str | None
) -> dict[str, Any]:
    """As Setting takes them. ValueError where networks are chosen beside a model."""
    if model and any((shape, codec, head, decoder, unet)):
        raise ValueError(
            f"{model}: a model has its own networks; leave --shape, --codec and --head out, and --decoder and --unet"
        )
    shown = {"shape": shape or "sd21", "codec": codec or "kl", "head": head or "vae"}
    return {"model": model, **shown, "decoder": decoder or "", "unet": unet or ""}


def _measure(
    session: Session,
    settings: Sequence[Setting],
    sizes: Sequence[int],
    names: Sequence[str],
    cold: bool,
    compare: bool,
) -> None:
    """All settings, then the peers of these names."""
    for setting in settings:
        session.add(setting, sizes, cold=cold, compare=compare)
    for setting in settings:
        session.peers(names, setting)
    if names:
        session.quote()


def _report(session: Session, title: str, out: Path | None) -> int:
    """Print the tables, write the files. 0: all was measured; 1: some of it failed; 2: all of it."""
    from genpercept.commands.bench import output

    said.result(session.result)
    output.show(session.result)
    if out is not None:
        for path in output.save(session.result, out, "bench", title):
            said.wrote(path)
    measured = len(session.result["rows"]) + len(session.result["peers"]) - session.failed
    return 0 if not session.failed else 1 if measured else 2


def _sizes(text: str) -> list[int]:
    """ "1,4" -> [1, 4]. ValueError for anything else than integers of at least 1."""
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise ValueError(f"batch size {text!r}: give integers of at least 1, such as 1,4,16")
    return list(dict.fromkeys(sizes))
