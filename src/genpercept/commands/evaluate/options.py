"""The options of `genpercept evaluate`; the work is done by `run.py`, imported when the command runs."""

from __future__ import annotations

from typing import Any

import rich_click as click

from genpercept.commands import shared_options as shared


@click.command(
    epilog=shared.examples(
        "genpercept evaluate -m mini/depth --dataset synthetic --split test/indoor:20 -o scores",
        "genpercept evaluate -m runs/a/model -m runs/b/model --suite depth-zero-shot --root data -o table",
    )
)
@shared.model("models", multiple=True, help="Embedded name, folder or hub id. Repeatable: a table.")
@shared.model_source(
    task="Task, where the model does not say, or several that it answers at once: depth,normals; alone: the embedded mini/T."
)
@click.option(
    "--predictions",
    "files",
    multiple=True,
    metavar="P",
    help="Folder that predict wrote, instead of a model. Repeatable.",
)
@click.option(
    "--dataset", "datasets", multiple=True, metavar="D[=ROOT]", help="Data set, with its folder. Repeatable: a table."
)
@click.option("--suite", metavar="NAME", help="Several sets beside a paper's figures, such as depth-zero-shot.")
@shared.root("roots", multiple=True, help="The data set's folder; of several: D=R, or a folder that has D/.")
@shared.split(help="Split.  [default: test, else val, else all]")
@shared.protocol(metavar="P", help="Protocol of the metric.  [default: the data set's own]")
@shared.dataset_option("options", help="Data set option, D.K=V for one. Repeatable.")
@shared.count(metavar="N", help="Only the first N samples.")
@shared.processing_resolution()
@shared.resize_mode()
@shared.steps()
@shared.ensemble_size()
@shared.flip_test()
@shared.seed()
@shared.batch_size()
@shared.device()
@shared.dtype()
@shared.tf32()
@click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=2,
    show_default=True,
    help="Processes for the metrics; 0: none of their own.",
)
@click.option("--baselines", is_flag=True, help="Also trivial answers, such as one depth everywhere.")
@shared.resume(help="Use the predictions that are in DIR and made under the same settings.")
@shared.skip_bad(help="Samples that cannot be used are counted and listed; exit code 1.")
@click.option("--keep-predictions/--no-keep-predictions", "keep", default=True, help="In DIR/predictions, once scored.")
@shared.out(required=True, help="Folder of results.json and report.html.")
@shared.max_pixels()
@shared.debuggable
def evaluate(
    processing_resolution: int | None,
    resize_mode: str | None,
    steps: int | None,
    ensemble_size: int,
    flip_test: bool,
    seed: int,
    dtype: str,
    tf32: bool,
    **options: Any,
) -> int:
    """Evaluate models on data sets: a table, results.json, .csv and .tex, and report.html in DIR.

    Exit code 0 when all went well, 1 when bad samples were skipped, 2 when it stopped.
    """
    from genpercept.commands.evaluate.run import Way, main

    way = Way(processing_resolution, steps, ensemble_size, flip_test, seed, dtype, tf32, resize_mode)
    return main(**options, way=way)
