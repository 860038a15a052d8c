"""Graphs for ONNX Runtime and OpenVINO: the pipeline's answers at every size, by `predict`, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import genpercept
from genpercept import GenPerceptPipeline, Prediction
from genpercept.commands.export import run as export
from genpercept.commands.inspect.show import inspect
from genpercept.models.codecs import CODECS
from genpercept.models.codecs.pair import CodecPair
from genpercept.models.codecs.tiny import matching_config
from genpercept.pipeline import exported
from genpercept.training.networks.prune import prune
from tests.support.graphs import ONNX, OPENVINO, lacks, small, written
from tests.support.paths import GOLDEN
from tests.support.pictures import picture

# as images: other sizes than the traced one (9 x 17 cells), one cell, odd and even numbers of cells, padding
SIZES = [(64, 96), (37, 53), (1, 1), (8, 24), (100, 44)]


_NNCF = lacks("nncf")


def agree(plain: Any, graph: Any, atol: float = 1e-4) -> None:
    """Raw maps to atol of their size; normals and clipped values too, nothing that is divided by a range near zero."""
    for size in SIZES:
        a, b = (pipe(picture(size), processing_resolution=0) for pipe in (plain, graph))
        assert a.kind == b.kind and a.values.shape == b.values.shape
        np.testing.assert_allclose(b.raw, a.raw, atol=atol * max(1.0, float(np.abs(a.raw).max())), rtol=0)
    two = [picture((40, 56), seed) for seed in range(3)]
    for a, b in zip(plain(two, batch_size=2), graph(two, batch_size=2), strict=True):
        np.testing.assert_allclose(b.raw, a.raw, atol=atol * max(1.0, float(np.abs(a.raw).max())), rtol=0)


@pytest.fixture(scope="module")
def mini_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mini/depth, exported by the command."""
    out = tmp_path_factory.mktemp("onnx") / "model.onnx"
    command = [sys.executable, "-m", "genpercept", "export", "mini/depth", "--to", "onnx", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "away from the pipeline's on 10 drawn images" in done.stdout
    return out


# ---- the same answers ------------------------------------------------------------------------------------------------


@ONNX
def test_mini_depth(mini_onnx: Path) -> None:
    plain, graph = genpercept.load("mini/depth", device="cpu"), genpercept.load(mini_onnx, device="cpu")
    agree(plain, graph)
    assert graph.resolution == plain.resolution and graph.stride == plain.stride
    a, b = (pipe(picture((60, 80))) for pipe in (plain, graph))
    np.testing.assert_allclose(b.values, a.values, atol=1e-4, rtol=0)
    changed = {k for k in a.meta if a.meta[k] != b.meta[k]}
    assert changed == {"model"} and b.meta["model"] == str(mini_onnx)


@ONNX
def test_predict_command(mini_onnx: Path, tmp_path: Path) -> None:
    Image.fromarray(picture((48, 70))).save(tmp_path / "a.png")
    command = [sys.executable, "-m", "genpercept", "predict", str(tmp_path / "a.png"), "--format", "npz", "--model"]
    for model, out in (("mini/depth", "plain"), (str(mini_onnx), "graph")):
        done = subprocess.run(
            [*command, model, "--out", str(tmp_path / out)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    a, b = (Prediction.load(tmp_path / out / "a_depth.npz") for out in ("plain", "graph"))
    np.testing.assert_allclose(b.values, a.values, atol=1e-4, rtol=0)
    assert b.meta["task"] == "depth" and b.meta["model_sha256"] == a.meta["model_sha256"]
    strips = [*command, str(mini_onnx), "--out", str(tmp_path / "no"), "--strips"]
    done = subprocess.run(strips, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "--strips: " in done.stderr and "is a graph" in done.stderr


@pytest.mark.slow
@OPENVINO
def test_mini_normals(tmp_path: Path) -> None:
    assert export.main("mini/normals", "openvino", tmp_path / "out") == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [exported.MARKER, "model.bin", "model.xml"]
    plain, graph = genpercept.load("mini/normals", device="cpu"), genpercept.load(tmp_path / "out", device="cpu")
    agree(plain, graph)
    assert inspect(tmp_path / "out" / "model.xml").facts["check"]["largest"] < 1e-4


@pytest.mark.slow
@OPENVINO
def test_openvino_file(tmp_path: Path) -> None:
    """A family's axes are in the graph; its type of prediction is kept."""
    pipe = small("normals", paradigm_options={"prediction_type": "sample"}, axes=[[-1, 0, 0], [0, 1, 0], [0, 0, 1]])
    graph = written(pipe, "openvino", tmp_path / "new" / "n.xml", tmp_path)
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["n.bin", "n.xml"]
    agree(pipe, graph)
    with ThreadPoolExecutor(4) as pool:  # as `predict` may call it
        many = list(pool.map(lambda seed: graph(picture((60, 80), seed)).raw, range(12)))
    for seed in range(12):
        np.testing.assert_array_equal(many[seed], graph(picture((60, 80), seed)).raw)
    assert written(pipe, "openvino", tmp_path / "new" / "n.xml", tmp_path).stride == pipe.stride  # ours may be replaced


@ONNX
def test_dpt_head_and_folder(tmp_path: Path) -> None:
    pipe = small("disparity", head={"out_channels": 1}, paradigm="direct")
    graph = written(pipe, "onnx", tmp_path / "out", tmp_path)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [exported.MARKER, "model.onnx"]
    agree(pipe, graph)


@pytest.mark.slow
@ONNX
def test_slim_ends(tmp_path: Path) -> None:
    """A tiny encoder and a pruned decoder of one channel, as `distil` saves them."""
    whole: Any = small()
    encoder = CODECS.find("tiny").build(matching_config(dict(whole.vae.config), width=16, blocks=1))
    ends = CodecPair.of(encoder, prune(whole.vae, "decoder", 0.5, channels=1))
    pipe = GenPerceptPipeline.from_parts(
        unet=whole.unet, vae=ends, codec="pair", prompt_embeds=torch.randn(1, 2, 16), task="depth", resolution=32
    )
    graph = written(pipe, "onnx", tmp_path / "slim.onnx", tmp_path)
    agree(pipe, graph)
    assert graph.stride == pipe.stride and graph.resolution == pipe.resolution


@ONNX
def test_weights_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for models that one file cannot hold."""
    monkeypatch.setattr("genpercept.commands.export.onnx._INSIDE", 1000)
    pipe = small()
    graph = written(pipe, "onnx", tmp_path / "new" / "big.onnx", tmp_path)
    names = sorted(p.name for p in (tmp_path / "new").iterdir())
    assert names == ["big.onnx", "big.onnx.data"]
    agree(pipe, graph)
    (tmp_path / "new" / "big.onnx.data").unlink()
    with pytest.raises(ValueError, match="file of weights beside it"):
        genpercept.load(tmp_path / "new" / "big.onnx", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "dtype", "most", "mean"),
    [
        pytest.param("onnx", "fp16", 5e-3, 5e-4, marks=ONNX),
        pytest.param("openvino", "fp16", 5e-3, 5e-4, marks=OPENVINO),
        pytest.param("openvino", "int8", 0.4, 0.04, marks=(OPENVINO, _NNCF)),
    ],
)
def test_fewer_bits(tmp_path: Path, to: str, dtype: str, most: float, mean: float) -> None:
    """Smaller files; the error that is stated is the one that there is."""
    whole, small = (tmp_path / name for name in ("whole", "small"))
    assert export.main("mini/depth", to, whole) == 0
    assert export.main("mini/depth", to, small, dtype=dtype) == 0
    facts = inspect(small).facts
    assert facts["dtype"] == dtype and 1e-6 < facts["check"]["largest"] < most and facts["check"]["mean"] < mean
    weights = [sum(p.stat().st_size for p in folder.glob("model.*")) for folder in (whole, small)]
    assert weights[1] < 0.65 * weights[0]
    plain, graph = genpercept.load("mini/depth", device="cpu"), genpercept.load(small, device="cpu")
    a, b = (pipe(picture((60, 80))).raw for pipe in (plain, graph))
    assert 0 < np.abs(a - b).mean() < 2 * mean


@pytest.mark.slow
@ONNX
def test_own_images(tmp_path: Path) -> None:
    for i in range(2):
        Image.fromarray(picture((40, 60), i)).save(tmp_path / f"{i}.png")
    assert export.main("mini/depth", "onnx", tmp_path / "m.onnx", images=[str(tmp_path / "*.png")]) == 0
    check = inspect(tmp_path / "m.onnx").facts["check"]
    assert check["images"] == 2 and check["drawn"] is False


# ---- what it says of itself ------------------------------------------------------------------------------------------


@ONNX
def test_inspect(mini_onnx: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = inspect(mini_onnx)
    assert report.kind == "exported graph" and report.loads and not report.problems
    assert report.facts["task"] == "depth" and report.facts["to"] == "onnx" and report.facts["dtype"] == "fp32"
    assert report.facts["stride"] == 4 and report.facts["bytes"] == mini_onnx.stat().st_size
    json.dumps(report.as_dict())
    assert str(Path(genpercept.__file__).parent).encode() not in mini_onnx.read_bytes()  # no lines of our source in it


# ---- refusals --------------------------------------------------------------------------------------------------------


@ONNX
def test_refused_calls(mini_onnx: Path) -> None:
    graph = genpercept.load(mini_onnx, device="cpu")
    image = picture((30, 30))
    with pytest.raises(ValueError, match="not for stochastic_multi_step"):
        graph(image, paradigm="stochastic_multi_step")
    with pytest.raises(ValueError, match="timestep=5"):
        graph(image, timestep=5)
    with pytest.raises(ValueError, match="deterministic"):
        graph(image, ensemble_size=2)
    with pytest.raises(ValueError, match="multiples of 4"):
        graph(image, resize_mode="official", processing_resolution=30)
    with pytest.raises(ValueError, match="without parts"):
        graph.save_pretrained("nowhere")
    with pytest.raises(ValueError, match="cannot be moved"):
        graph.to("cuda")
    with pytest.raises(ValueError, match="model for depth, not normals"):
        genpercept.load(mini_onnx, task="normals", device="cpu")
    with pytest.raises(ValueError, match="leave the dtype out"):
        genpercept.load(mini_onnx, torch_dtype=torch.bfloat16, device="cpu")
    with pytest.raises(ValueError, match="is an export already"):
        export.main(str(mini_onnx), "onnx", mini_onnx.with_name("again.onnx"))


@ONNX
def test_damaged_and_foreign_files(mini_onnx: Path, tmp_path: Path) -> None:
    import onnx

    short, foreign = tmp_path / "short.onnx", tmp_path / "foreign.onnx"
    short.write_bytes(mini_onnx.read_bytes()[:100_000])
    with pytest.raises(ValueError, match="export again"):
        genpercept.load(short, device="cpu")
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([node], "g", ends[:1], ends[1:])), foreign)
    with pytest.raises(ValueError, match="not written by `genpercept export`"):
        genpercept.load(foreign, device="cpu")
    with pytest.raises(ValueError, match="something else than an export"):
        export.main("mini/depth", "onnx", foreign)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"paradigm": "deterministic_multi_step"}, "only one step"),
        ({"paradigm": "stochastic_multi_step"}, "from noise"),
    ],
)
@ONNX
def test_refused_models(tmp_path: Path, options: dict[str, Any], reason: str) -> None:
    GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", **options).save_pretrained(tmp_path / "m")
    with pytest.raises(ValueError, match=f"cannot be exported as a graph: .*{reason}"):
        export.main(str(tmp_path / "m"), "onnx", tmp_path / "x.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_refused_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int8"):
        export.main("mini/depth", "onnx", tmp_path / "x.onnx", dtype="int8")
    with pytest.raises(ValueError, match="copies weights as they are"):
        export.main("mini/depth", "diffusers", tmp_path / "x", dtype="fp16")
    with pytest.raises(ValueError, match="nowhere"):
        export.main("mini/depth", "onnx", tmp_path / "x.onnx", images=[str(tmp_path / "nowhere.png")])
    assert exported.find("mini/depth") is None and exported.find(tmp_path) is None
    assert not list(tmp_path.iterdir())
