"""The models that are shipped: whole, small enough, better than a trivial answer, and what they claim to be."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch

import genpercept
from genpercept.checkpoints import hub
from genpercept.commands.demo import scenes as _demo_tasks
from genpercept.metrics import METRICS, score

SCENES = 32
TASKS = _demo_tasks.embedded()
WHOLE = ("depth", "normals", "segmentation", "pose", "dis")
DIFFERENCES = [task for task in TASKS if task not in WHOLE]


@pytest.fixture(scope="module")
def scenes():
    from genpercept.data import synthetic

    return synthetic.render(range(SCENES), domain="mixed", split="test", size=(96, 128))


def test_folder_is_within_its_budget() -> None:
    """64 MB for everything embedded is the budget; most of it are the U-Nets of the models that are whole."""
    size = sum(p.stat().st_size for p in hub.embedded_root().rglob("*") if p.is_file())
    assert size < 64e6
    assert {
        "mini/base",
        "mini/depth",
        "mini/normals",
        "mini/disparity",
        "mini/segmentation",
        "mini/dis",
        "mini/matting",
        "mini/pose",
        "mini/anomaly",
    } <= set(hub.embedded_names())


def test_depth_beats_a_vertical_ramp(scenes) -> None:
    """In the median, so that no single scene decides."""
    pipe = genpercept.load("mini/depth", device="cpu")
    ramp = np.tile(np.linspace(1, 0, 96, dtype=np.float32)[:, None], (1, 128))
    medians = []
    for answers in ([p.values for p in pipe(list(scenes.image), batch_size=8)], [ramp] * SCENES):
        metric = METRICS.find("depth")(max_depth=25)
        for i, answer in enumerate(answers):
            metric.update(answer, scenes.depth[i], scenes.valid[i] & (scenes.depth[i] < 25), name=str(i))
        medians.append(np.median([row["abs_rel"] for row in metric.rows.values()]))
    assert medians[0] < 0.75 * medians[1]


def test_normals_beat_facing_the_viewer(scenes) -> None:
    pipe = genpercept.load("mini/normals", device="cpu")
    facing = np.zeros((96, 128, 3), np.float32)
    facing[..., 2] = 1
    options = {"valid": list(scenes.valid)}
    ours = score(
        "normals", [p.values for p in pipe(list(scenes.image), batch_size=SCENES)], list(scenes.normals), **options
    )
    theirs = score("normals", [facing] * SCENES, list(scenes.normals), **options)
    assert ours["mean"] < 0.5 * theirs["mean"]


@pytest.fixture(scope="module")
def task_scenes():
    return _demo_tasks.scenes()


@pytest.fixture(scope="module")
def judged(task_scenes):
    """Of a task's name: its embedded model on the demo's scenes, once."""
    return functools.cache(lambda task: _demo_tasks.judge(genpercept.load(f"mini/{task}", device="cpu"), task_scenes))


@pytest.mark.parametrize("task", TASKS)
def test_tasks_beat_their_best_baseline(task: str, task_scenes, judged) -> None:
    """On the demo's scenes, in its table, by the task's first figure; baselines are fitted to these very scenes."""
    shown = judged(task)
    (_, baseline), sign = shown.baseline, 1 if shown.figure.higher else -1
    assert sign * shown.model > sign * baseline
    ranks = [example.rank for example in shown.examples]  # few scenes have a person, or a defect
    assert ranks in (["best", "median", "worst"], ["best", "worst"])
    best, worst = shown.examples[0].value, shown.examples[-1].value
    assert sign * best > sign * worst and shown.line()[0] == task


def test_classes_are_painted_alike_in_prediction_and_truth(task_scenes, judged) -> None:
    shown = judged("segmentation")
    best = shown.examples[0]
    predicted, truth = (np.asarray(picture) for picture, _ in best.panels[1:3])
    sample = next(s for s in task_scenes if s.name == best.name)
    right = best.prediction.values == sample.label("class_ids").numpy()
    assert right.mean() > 0.2
    np.testing.assert_array_equal(predicted[right], truth[right])


@pytest.mark.parametrize("task", DIFFERENCES)
def test_tasks_are_stored_as_differences(task: str) -> None:
    folder = hub.embedded_root() / task
    size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert size < 2.5e6 and not (folder / "unet").exists() and (folder / "README.md").is_file()


@pytest.mark.parametrize("task", WHOLE)
def test_parts_are_shared_and_written_out_in_full(task: str, tmp_path: Path) -> None:
    pipe = genpercept.load(f"mini/{task}", device="cpu")
    assert not (hub.embedded_root() / task / "vae").exists()  # it is the base's
    pipe.save_pretrained(tmp_path / "m")
    again = genpercept.load(tmp_path / "m", device="cpu")
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    np.testing.assert_array_equal(pipe(image).values, again(image).values)


@pytest.mark.parametrize("name", ["mini/base", *(f"mini/{task}" for task in TASKS)])
def test_inspect_finds_them_whole(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    from genpercept.commands.inspect import show

    assert show.main(name) == 0
    assert "whole" in capsys.readouterr().out


def test_base_is_a_plain_diffusers_pipeline() -> None:
    from diffusers import StableDiffusionPipeline

    folder = hub.embedded_root() / "base"
    pipe = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    assert type(pipe.unet).__module__.startswith("diffusers.")
    pipe.set_progress_bar_config(disable=True)
    draw = {"height": 48, "width": 64, "num_inference_steps": 10, "guidance_scale": 3.0, "output_type": "np"}
    room, street = (
        pipe(caption, generator=torch.Generator().manual_seed(0), **draw).images[0]
        for caption in ("a room with a sofa, warm light", "a park with grass and a hill, sunny")
    )
    assert room.shape == (48, 64, 3) and np.isfinite(room).all()
    assert np.abs(room - street).mean() > 0.02  # the caption matters
    assert 0.05 < room.std() < 0.5  # neither blank nor noise at the ends of the range


def test_the_same_seed_gives_the_same_bits() -> None:
    pipe = genpercept.load("mini/depth", device="cpu")
    image = np.random.default_rng(1).integers(0, 256, (50, 70, 3), np.uint8)
    np.testing.assert_array_equal(pipe(image).values, pipe(image).values)
