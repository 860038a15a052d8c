"""The demo's page and the benchmark of the embedded models, over tiny pipelines with random weights."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
from jinja2 import UndefinedError
from PIL import Image

from genpercept import GenPerceptPipeline
from genpercept.commands.demo import legend, photographs, run, scenes
from genpercept.core.said import told
from genpercept.imaging import html
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import score
from genpercept.models.backbones.sd21 import SD21UNet
from genpercept.models.codecs import CODECS
from genpercept.tasks import TASKS
from tests.support.commands import script

UNET = {
    "sample_size": 8,
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "attention_head_dim": [2, 4],
    "cross_attention_dim": 12,
    "norm_num_groups": 4,
}
VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [4, 4, 8, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "scaling_factor": 0.5,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of a depth and a normals model."""
    root = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for task in ("depth", "normals"):
        unet = cast(torch.nn.Module, SD21UNet.from_config(UNET))
        vae = CODECS.find("kl").build(VAE)
        prompt = torch.randn(1, 2, 12)
        pipe = GenPerceptPipeline.from_parts(unet=unet, vae=vae, prompt_embeds=prompt, task=task, resolution=64)
        pipe.save_pretrained(root / task)
        (root / task / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Tiny\nTrained on <nothing>.\n")
    return {f"model_{task}": str(root / task) for task in ("depth", "normals")}


def slopes(indices: Sequence[int], domain: str = "mixed", size: tuple[int, int] = (48, 64)) -> list[photographs.Case]:
    """Slopes instead of rendered scenes: exact depth and normals, sky at the top."""
    h, w = size
    cases = []
    for i in indices:
        rng = np.random.default_rng(i)
        depth = np.linspace(30, 2, h)[:, None] + rng.uniform(0, 3, (h, w))
        normals = rng.normal(size=(h, w, 3)) + np.array((0, 2, 1))
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        valid = np.broadcast_to(np.arange(h)[:, None] > 4, (h, w))
        cases.append(photographs.Case(f"scene_{i:04d}", image, depth, normals, valid, "synthetic", domain))
    return cases


def test_photographs_come_with_the_packages():
    cases = {case.name: case for case in photographs.photographs()}
    assert list(cases) == ["motorcycle", "astronaut", "coffee", "chelsea", "rocket", "china", "flower"]
    assert all(case.image.dtype == np.uint8 and case.image.shape[-1] == 3 for case in cases.values())
    known = cases["motorcycle"]
    assert known.depth is not None and known.valid is not None and known.valid.mean() == pytest.approx(0.927, abs=0.001)
    assert 2 < known.depth[known.valid].min() < known.depth[known.valid].max() < 5.1
    assert np.asarray(photographs.depth_picture(known)).shape == known.image.shape


def test_held_out_scenes_come_with_their_truth():
    first, second = photographs.held_out([3, 70], size=(48, 64))
    for case in (first, second):
        assert case.depth is not None and case.normals is not None and case.valid is not None
        assert case.image.shape == case.normals.shape == (48, 64, 3) and case.protocol == "synthetic" and case.note
        assert np.isfinite(case.depth[case.valid]).all()
        assert np.linalg.norm(case.normals[case.valid], axis=-1) == pytest.approx(1, abs=1e-3)
        for task, truth in (("depth", case.depth), ("normals", case.normals)):
            answer = np.where(np.isfinite(truth), truth, 0)
            key, best = ("abs_rel", 0) if task == "depth" else ("mean", 0)
            assert score(task, answer, truth, case.valid)[key] == pytest.approx(best, abs=0.1)
    assert not np.array_equal(first.image, second.image)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three scenes instead of 24, and three tasks beside the two: one of maps, one on boxes, one that looks at surfaces."""
    from genpercept.data import synthetic

    made = synthetic.samples(synthetic.render([7, 8, 9], split="test", size=(48, 64)))  # the last one has a person
    monkeypatch.setattr(scenes, "scenes", lambda: made)
    monkeypatch.setattr(scenes, "embedded", lambda: ["depth", "normals", "segmentation", "pose", "anomaly"])


@pytest.mark.usefixtures("small")
def test_demo_writes_one_self_contained_page(
    models: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "a b" / "out"
    assert run.main(out, **models, device="cpu") == 0
    result = told.result  # what --json prints
    assert result["report"] == str(out / "report.html") and result["measured"]["task"] == "depth"
    assert {one["task"] for one in result["scenes"]} >= {"depth", "normals"} and json.dumps(result)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'src="(?!data:)|url\((?!data:)|@import|https?:', page)
    addresses = re.findall(r'href="([^"]+)"', page)
    assert len(addresses) >= 4 and all((out / address).resolve().is_file() for address in addresses)
    for data in re.findall(r'src="data:image/webp;base64,([^"]+)"', page):
        Image.open(io.BytesIO(base64.b64decode(data))).load()
    # Five tasks on the opening photographs, three on six more, the motorcycle, and what has a truth in three scenes
    sliders = re.findall(r'<input type="range" min="0" max="100" value="\d+" aria-label="from', page)
    assert page.count('class="wipe"') == len(sliders) >= 5 + 3 * 6 + 1 + 3 * 3 + 1
    shown = re.findall(r'class="photograph of-(\w+)"', page)
    assert set(shown) == {"camera", "coins", *(case.name for case in photographs.photographs()[1:])}
    assert all(f".of-{name} {{ background-image: url(data:" in page for name in shown)
    assert "Trained on &lt;nothing&gt;." in page and "license: apache" not in page
    assert "prefers-color-scheme: dark" in page and "load average" in page and "float32" in page
    captions = [re.sub(r"<[^>]+>", "", one) for one in re.findall(r"<figcaption>(.*?)</figcaption>", page)]
    assert any(one.startswith("Segmentation Sky and lawn are right.") for one in captions)  # said of the embedded model
    assert captions.count("Depth ") == 7 and "Man, lawn and sky" not in page  # of another one nothing is said
    said = capsys.readouterr().out
    assert "motorcycle" in said and "mIoU" in said and str(out / "report.html") in said
    saved = Prediction.load(out / "predictions" / "chelsea_normals.npz")
    assert saved.kind == "normals" and saved.values.shape == (300, 451, 3)
    there = {path.name for path in (out / "predictions").iterdir()}
    assert {"camera_pose_coco.json", "coins_anomaly.png", "motorcycle_depth.png", "chelsea_segmentation.npz"} <= there
    assert "chelsea_anomaly.npz" not in there  # the world's defects tell nothing there


def test_the_opening_photographs_suit_their_tasks():
    person, surface = photographs.opening()
    assert person.image.shape == (512, 512, 3) and surface.image.shape == (303, 384, 3)
    assert person.boxes is not None and person.boxes.shape == (1, 4)
    x, y, w, h = person.boxes[0]
    assert 0 <= x < x + w <= 512 and 0 <= y < y + h <= 512
    cases = [person, surface, *photographs.photographs()]
    assert all(case.note and case.says and all(case.says.values()) for case in cases)
    order = [case.name for case in sorted(cases, key=photographs.place)]
    assert order[0] == "camera" and order[-1] == "chelsea"  # which all models fail on
    embedded, described = set(scenes.embedded()), {task for case in cases for task in case.says}
    assert described == embedded


class Oracle:
    """Depth that is right but for scale, shift and `noise`."""

    task_plugin = TASKS.find("depth")

    def __init__(self, depth: np.ndarray, noise: float) -> None:
        values = 0.1 * depth + 0.02 + noise * np.random.default_rng(0).normal(size=depth.shape)
        self.answer = Prediction(values.clip(0, 1).astype(np.float32), "depth_affine")

    def __call__(self, images: Any, **options: Any) -> Any:
        return [self.answer for _ in images] if isinstance(images, list) else self.answer


def test_prediction_and_truth_share_one_scale():
    known = photographs.motorcycle()
    assert known.depth is not None and known.valid is not None
    depth = np.where(known.valid, known.depth, 3.0)
    ends = [f"{value:.1f} m" for value in np.percentile(known.depth[known.valid], (2, 98))]
    for noise, alike in ((0.0, True), (0.05, False)):
        shown = scenes.judge(Oracle(depth, noise), [known.sample()], known.protocol)
        (example,) = shown.examples
        _, prediction, truth, _ = (np.asarray(picture, int) for picture, _ in example.panels)
        inside = np.asarray(Image.fromarray(known.valid).resize(truth.shape[1::-1], Image.Resampling.BOX))
        apart = np.median(np.abs(prediction - truth).max(-1)[inside])
        assert (apart < 2) == alike and (shown.model < 1e-3) == alike
        assert example.scale is not None
        bar = legend.of_scale(example.scale)
        assert [bar.low, bar.high] == ends and bar.stops[0] == "#9e0142" and bar.stops[-1] == "#5e4fa2"


def test_best_median_and_worst_are_told_apart_by_their_own_figure():
    known = photographs.motorcycle()
    assert known.depth is not None and known.valid is not None
    depth = np.where(known.valid, known.depth, 3.0)
    samples = [replace(known.sample(), name=name) for name in "abcde"]

    class Uneven(Oracle):
        def __call__(self, images: Any, **options: Any) -> Any:
            noises = (0.03, 0.0, 0.1, 0.06, 0.01)
            return [Oracle(depth, noise).answer for noise in noises] if isinstance(images, list) else self.answer

    shown = scenes.judge(Uneven(depth, 0), samples, known.protocol)
    assert [(e.rank, e.name) for e in shown.examples] == [("best", "b"), ("median", "a"), ("worst", "c")]
    values = [e.value for e in shown.examples]
    assert values == sorted(values) and values[0] < shown.model < values[-1]


def test_legends_say_what_colours_mean():
    ids = np.zeros((10, 10), np.int32)
    ids[:6], ids[9, 9] = 1, 2
    classes = {"classes": ["sky", "road", "cat"], "colours": [[1, 2, 3], [255, 0, 16], [0, 0, 0]]}
    names = legend.of(Prediction(ids, "class_ids", meta=classes))
    assert isinstance(names, legend.Names)
    assert list(names.entries) == [("#ff0010", "road 60%"), ("#010203", "sky 39%")]  # a cat of one pixel is not named
    unit = np.zeros((4, 4), np.float32)
    found = {
        kind: legend.of(Prediction(unit, kind)) for kind in ("depth_affine", "disparity_affine", "alpha", "anomaly")
    }
    assert [(bar.low, bar.high) for bar in found.values() if isinstance(bar, legend.Bar)] == [
        *(("near", "far"), ("far", "near"), ("background", "foreground"), ("usual", "strange"))
    ]
    up = np.zeros((4, 4, 3), np.float32)
    up[..., 1] = 1
    ball = legend.of(Prediction(up, "normals"))
    assert isinstance(ball, legend.Sphere) and ball.picture.width == 64
    assert legend.of(Prediction(np.zeros((1, 17, 3), np.float32), "keypoints")) is None


@pytest.mark.usefixtures("small")
def test_demo_says_what_is_missing(models: dict[str, str], tmp_path: Path):
    with pytest.raises(ValueError, match="nowhere"):
        run.main(tmp_path, model_depth=str(tmp_path / "nowhere"), model_normals=models["model_normals"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        html.save(tmp_path / "file" / "report.html", "")


def test_pages_escape_and_shrink():
    wide = html.picture(np.zeros((10, 2000, 3), np.uint8), '"x" <i>')
    assert (wide.width, wide.height) == (640, 3)
    assert Image.open(io.BytesIO(base64.b64decode(wide.uri.partition(",")[2]))).size == (640, 3)
    row = {"title": "r", "note": "n", "pictures": [wide]}
    empty = {"left_out": [], "further": [], "settings": {"<k>": "v"}, "about": {}}
    tables = [{"title": "t", "note": "", "header": ("a", "b"), "rows": [("1", "<2>")]}]
    sets = [{"title": "s", "words": "", "rows": [row]}]
    page = html.render("evaluation.html", title="a <b>", lead="c & d", results=tables, sets=sets, **empty)
    assert "a &lt;b&gt;" in page and "c &amp; d" in page and "<td>&lt;2&gt;</td>" in page and "&lt;k&gt;" in page
    assert 'alt="r: &#34;x&#34; &lt;i&gt;"' in page and "<script" not in page
    with pytest.raises(UndefinedError, match="lead"):
        html.render("base.html", title="a")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("quality/mini")
    monkeypatch.setattr(module, "held_out", slopes)
    return module


def samples(root: Path) -> Path:
    """A folder in the layout of the real frames, with invented content."""
    rng = np.random.default_rng(0)
    for folder, size, scale, names in (
        ("kitti/metric3d_kitti_demo", (375, 1242), 256, ("0000000005.png", "0000000005.png")),
        ("nyuv2/metric3d_nyu_demo", (480, 640), 1000, ("rgb_00000.jpg", "sync_depth_00000.png")),
    ):
        for kind in ("rgb", "depth"):
            (root / folder / kind).mkdir(parents=True)
        depth = np.linspace(9, 2, size[0])[:, None] + rng.uniform(0, 0.5, size)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / folder / "rgb" / names[0])
        Image.fromarray((depth * scale).astype(np.uint16)).save(root / folder / "depth" / names[1])
    return root


def test_benchmark_measures_models_beside_baselines(
    models: dict[str, str], benchmark: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page = tmp_path / "mini.md"
    page.write_text(f"# Mini\n\n{benchmark.BEGIN}\nold\n{benchmark.END}\n\nafter\n")
    arguments = {
        "depth": models["model_depth"],
        "normals": models["model_normals"],
        "scratch-depth": models["model_depth"],
        "count": 5,
        "domain-count": 2,
        "size": "48x64",
        "samples": samples(tmp_path / "samples"),
        "resolutions": "32,64",
        "device": "cpu",
        "out": tmp_path / "docs" / "results.json",
        "markdown": page,
        "pictures": tmp_path / "images",
    }
    assert benchmark.main([f"--{key}={value}" for key, value in arguments.items()]) == 0
    results = json.loads((tmp_path / "docs" / "results.json").read_text())
    mixed: dict[str, Any] = results["depth"]["mixed"]
    assert list(mixed) == ["model", "the same from scratch", "constant", "vertical ramp"]
    assert (
        mixed["model"] == mixed["the same from scratch"]
        and mixed["vertical ramp"]["abs_rel"] < mixed["constant"]["abs_rel"]
    )
    assert mixed["model"]["images"] == 5 and mixed["model"]["abs_rel_se"] > 0
    assert results["normals"]["mixed"]["mean normal"]["mean"] < results["normals"]["mixed"]["facing the viewer"]["mean"]
    assert list(results["real"]["images"]) == ["motorcycle", "KITTI 0000000005", "NYUv2 00000"]
    assert results["real"]["averages"]["over images"]["vertical ramp"]["delta1"] > 0.9 * 2 / 3
    assert list(results["resolutions"]) == ["32", "64"]
    text = page.read_text()
    assert "old" not in text and text.endswith("after\n") and "| motorcycle |" in text
    assert str(tmp_path) not in text + json.dumps(results)
    for name in ("mini_scenes.png", "mini_photographs.png"):
        assert (tmp_path / "images" / name).stat().st_size < 500_000
