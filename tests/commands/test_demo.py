"""The demo's page and the benchmark of the embedded models, over tiny pipelines with random weights."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import pytest
import torch
from PIL import Image

from genpercept import GenPerceptPipeline
from genpercept.commands.demo import photographs
from genpercept.imaging import html
from genpercept.imaging.prediction import Prediction
from genpercept.metrics import score
from genpercept.models.backbones.sd21 import SD21UNet
from genpercept.models.codecs import CODECS
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


def scenes(indices: Sequence[int], domain: str = "mixed", size: tuple[int, int] = (48, 64)) -> list[photographs.Case]:
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


def test_demo_writes_one_self_contained_page(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(photographs, "held_out", scenes)
    monkeypatch.setattr(photographs, "SCENES", 2)
    monkeypatch.setattr(photographs._demo_tasks, "embedded", list)
    out = tmp_path / "a b" / "out"
    assert photographs.main(out, **models, device="cpu") == 0
    page = (out / "report.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(?!data:)', page) and "<script" not in page and "@import" not in page
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    assert len(pictures) == 7 * 3 + 1 + 2 * 5
    for data in pictures:
        Image.open(io.BytesIO(base64.b64decode(data))).load()
    assert "Trained on &lt;nothing&gt;." in page and "license: apache" not in page
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", page)
    assert sum("AbsRel 0." in c for c in captions) == 3 and sum("°" in c for c in captions) == 2
    assert "prefers-color-scheme: dark" in page
    said = capsys.readouterr().out
    assert "Motorcycle" in said and str(out / "report.html") in said
    saved = Prediction.load(out / "predictions" / "chelsea_normals.npz")
    assert saved.kind == "normals" and saved.values.shape == (300, 451, 3)
    assert (out / "predictions" / "scene_0001_depth.png").is_file()


def test_demo_shows_the_other_tasks(
    models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(photographs, "held_out", scenes)
    monkeypatch.setattr(photographs, "SCENES", 1)
    monkeypatch.setattr(photographs._demo_tasks, "SCENES", 10)  # the last one has a person
    monkeypatch.setattr(photographs._demo_tasks, "embedded", lambda: ["segmentation", "pose", "anomaly"])
    assert photographs.main(tmp_path, **models, device="cpu") == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "The other tasks" in page and "<td>segmentation</td>" in page and "<td>anomaly</td>" in page
    saved = Prediction.load(tmp_path / "predictions" / "chelsea_segmentation.npz")
    assert saved.kind == "class_ids" and saved.values.shape == (300, 451)
    people = list((tmp_path / "predictions").glob("*_pose.npz"))
    assert people and all(path.with_name(f"{path.stem}_coco.json").is_file() for path in people)
    assert not (tmp_path / "predictions" / "chelsea_anomaly.npz").exists()  # the world's defects tell nothing there
    assert "mIoU" in capsys.readouterr().out


def test_demo_says_what_is_missing(models: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(photographs, "held_out", scenes)
    with pytest.raises(ValueError, match="nowhere"):
        photographs.main(tmp_path, model_depth=str(tmp_path / "nowhere"), model_normals=models["model_normals"])
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        html.save(tmp_path / "file" / "report.html", "")


def test_report_escapes_and_shrinks():
    wide = np.zeros((10, 2000, 3), np.uint8)
    page = html.page("a <b>", "c & d", [html.section("s", "t", html.row("r", "n", [html.Cell(wide, '"x"')]))])
    assert "a &lt;b&gt;" in page and "c &amp; d" in page and "&quot;x&quot;" in page
    data = re.findall(r'base64,([^"]+)"', page)[0]
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (640, 3)
    assert html.table(("a", "b"), [("1", "<2>")]).count("<td>") == 2


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = script("quality/mini")
    monkeypatch.setattr(module, "held_out", scenes)
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
