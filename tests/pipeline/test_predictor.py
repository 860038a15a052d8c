"""Graphs answer as the pipelines do that they were exported from, and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import genpercept
from genpercept import GenPerceptPipeline, Prediction
from genpercept.commands.export import run as export
from genpercept.core.values import Geometry, to_tensor
from genpercept.imaging.encode import encode16
from genpercept.imaging.stored import read_stored
from genpercept.models.heads import HEADS
from genpercept.pipeline import graphs
from genpercept.pipeline.call import Run
from genpercept.pipeline.exported import ExportedPipeline
from genpercept.tasks import TASKS
from genpercept.tasks._affine import AffineTask
from tests.support.graphs import ONNX, OPENVINO, small
from tests.support.paths import GOLDEN
from tests.support.pictures import picture

# the program, in which torch and what stands on it cannot be imported; words: its command line
FORBIDDEN = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "diffusers", "transformers", "onnx"):
            raise RuntimeError(f"{name} is imported")

sys.meta_path.insert(0, Refuse())
from genpercept.__main__ import main
main()
"""


def as_graph(pipe: GenPerceptPipeline) -> ExportedPipeline:
    """A predictor over the pipeline's networks as a graph: arrays in, arrays out."""
    run = Run(pipe.paradigm(), 1)

    def graph(image_BCHW: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return pipe._forward(torch.from_numpy(image_BCHW), run, None).numpy()

    return ExportedPipeline(graph, pipe.info | {"model": "graph", "export": {"stride": pipe.stride}})


def posing() -> GenPerceptPipeline:
    base: Any = GenPerceptPipeline.from_base(GOLDEN / "sd-tiny", "depth", resolution=0)
    sizes = list(reversed(base.unet.pyramid_channels))
    torch.manual_seed(0)
    head = HEADS.find("keypoints").build({"neck_hidden_sizes": sizes, "hidden_size": 16})
    parts = {"unet": base.unet, "vae": base.vae, "prompt_embeds": base.prompt_embeds, "head_module": head}
    size = {"height": 64, "width": 48}
    return GenPerceptPipeline.from_parts(**parts, task="pose", task_options=size, paradigm="direct", head="keypoints")


def near(a: Prediction, b: Prediction) -> None:
    """To one step of 16 bits, and the same words. Of random weights some normals have all but no length, or classes a tie."""
    assert a.kind == b.kind and a.values.shape == b.values.shape and a.values.dtype == b.values.dtype
    np.testing.assert_allclose(b.raw, a.raw, rtol=0, atol=3e-5)
    apart = np.abs(a.values.astype(np.float64) - b.values)
    assert (apart > 1 / 65535).mean() <= (0.02 if a.kind in ("class_ids", "normals") else 0), apart.max()
    first, second = ({k: v for k, v in each.meta.items() if k not in ("model", "image_score")} for each in (a, b))
    assert first == second
    assert a.meta.get("image_score", 0) == pytest.approx(b.meta.get("image_score", 0), abs=1e-5)


# ---- the same call -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["depth", "disparity", "normals", "dis", "matting", "anomaly", "segmentation"])
def test_every_way_to_ask(task: str, tmp_path: Path) -> None:
    """Images of files, arrays and tensors, smaller and larger than the network's size, in batches, and mirrored."""
    pipe = small(task)
    graph = as_graph(pipe)
    images = [picture(size, seed) for seed, size in enumerate([(60, 81), (20, 24), (60, 81), (33, 20)])]
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    for source in (tmp_path / "a.png", images[1].astype(np.float32) / 255, torch.rand(3, 40, 31)):
        near(pipe(source), graph(source))
    for options in (
        {"batch_size": 2},
        {"flip_test": True, "batch_size": 3},
        {"processing_resolution": 0},
        {"processing_resolution": 48, "num_inference_steps": 1},
        {"generator": torch.Generator().manual_seed(3)},
    ):
        for a, b in zip(pipe(images, **options), graph(images, **options), strict=True):
            near(a, b)
    sized = picture((60, 120))
    near(pipe(sized, resize_mode="official"), graph(sized, resize_mode="official"))
    near(pipe(sized, resize_mode="area"), graph(sized, resize_mode="area"))
    assert graph(sized, resize_mode="area").meta["resolution"] != graph(sized).meta["resolution"]


@pytest.mark.parametrize("flip_test", [False, True])
def test_people_in_their_boxes(flip_test: bool) -> None:
    """Of crops that reach beyond the image."""
    pipe = posing()
    graph = as_graph(pipe)
    image, boxes = picture((90, 120)), np.array([[10, 5, 40, 60, 0.9], [80, 40, 45, 60, 0.5]])
    wanted = pipe([image, image], boxes=[boxes, None], flip_test=flip_test)
    for a, b in zip(wanted, graph([image, image], boxes=[boxes, None], flip_test=flip_test), strict=True):
        assert a.meta["boxes"] == b.meta["boxes"]
        # pixels: where random weights leave a heatmap nearly flat, its peak moves with its rounding
        np.testing.assert_allclose(b.values, a.values, atol=2e-2)
        np.testing.assert_allclose(b.raw, a.raw, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="lies outside of the image"):
        graph(image, boxes=[[500, 500, 10, 10]])
    with pytest.raises(ValueError, match="boxes: task 'depth' looks at whole images"):
        as_graph(small())(image, boxes=boxes)


def test_what_a_graph_cannot_do() -> None:
    graph = as_graph(small())
    image = picture((30, 30))
    for options, says in (
        ({"latents": torch.zeros(1, 4, 4, 4)}, "starts from the image, not from noise"),
        ({"ensemble_size": 2}, "deterministic"),
        ({"ensembling_kwargs": {"reduction": "mean"}}, "ensemble_size is 1"),
        ({"num_inference_steps": 4}, "step"),
        ({"batch_size": 0}, "at least 1"),
        ({"generator": [torch.Generator()] * 2}, "a list of 2 for 1 images"),
    ):
        with pytest.raises(ValueError, match=says):
            graph(image, **options)
    with pytest.raises(ValueError, match="step"):
        graph.check_request(4)


def test_a_task_that_takes_tensors_gets_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of other packages do: `decode` and `flip` are given what they were before there were arrays."""
    seen = []
    decode = AffineTask.decode
    monkeypatch.setattr(
        AffineTask, "decode", lambda self, raw, geometry: seen.append(raw) or decode(self, raw, geometry)
    )
    pipe = small()
    image = picture((40, 56))
    as_graph(pipe)(image, flip_test=True)
    monkeypatch.setattr(AffineTask, "takes_arrays", False)
    near(pipe(image, flip_test=True), as_graph(pipe)(image, flip_test=True))
    assert [type(raw) for raw in seen] == [np.ndarray, torch.Tensor, torch.Tensor]


# ---- without torch -----------------------------------------------------------------------------------------------------


def predicted(folder: Path, *words: str) -> None:
    """`genpercept predict`, in a process that refuses torch."""
    done = subprocess.run(
        [sys.executable, "-c", FORBIDDEN, "predict", *words], capture_output=True, text=True, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr


def doubling(task: str, to: str, folder: Path) -> str:
    """A graph whose raw map is the image in [-1, 1], by the name of its file in `folder`: quickly made, and known."""
    import onnx
    from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor, make_tensor_value_info

    ends = [
        make_tensor_value_info(name, 1, ["B", 3, f"{name}_H", f"{name}_W"]) for name in (graphs.INPUT, graphs.OUTPUT)
    ]
    numbers = [make_tensor("two", 1, [], [2.0]), make_tensor("one", 1, [], [1.0])]
    nodes = [make_node("Mul", [graphs.INPUT, "two"], ["twice"]), make_node("Sub", ["twice", "one"], [graphs.OUTPUT])]
    model = make_model(make_graph(nodes, "g", ends[:1], ends[1:], numbers), opset_imports=[make_opsetid("", 18)])
    model.ir_version = 9
    info = {"format": 1, "task": task, "paradigm": "one_step", "head": "vae", "codec": "kl", "backbone": "sd21"}
    text = json.dumps(info | {"resolution": 48, "export": {"stride": 8}})
    onnx.helper.set_model_props(model, {graphs.KEY: text})
    onnx.save(model, folder / f"{task}.onnx")
    if to == "openvino":
        import openvino

        read = openvino.Core().read_model(folder / f"{task}.onnx")
        read.set_rt_info(text, [graphs.KEY])
        openvino.save_model(read, folder / f"{task}.xml", compress_to_fp16=False)
    return f"{task}{graphs.SUFFIXES[to]}"


RUNTIMES = [pytest.param("onnx", marks=ONNX), pytest.param("openvino", marks=OPENVINO)]


@pytest.mark.parametrize("to", RUNTIMES)
def test_a_prediction_without_torch(to: str, tmp_path: Path) -> None:
    """Depth, normals and a cut-out, file to file, on the device that "auto" is: 16 bits to one step of what torch gives."""
    image = np.ascontiguousarray(data.astronaut()[::3, ::2])
    Image.fromarray(image).save(tmp_path / "a.png")
    geometry = Geometry.plan(image.shape[:2], 48, 8)
    raw = geometry.apply(to_tensor(image)) * 2 - 1
    for task, formats in (("depth", "png,color,ply"), ("normals", "png,npz"), ("matting", "png,cutout")):
        words = ["a.png", "-m", doubling(task, to, tmp_path), "-o", "out", "--format", formats, "--batch-size", "auto"]
        predicted(tmp_path, *words)
        found = read_stored(tmp_path / "out" / f"a_{task}.png").array
        wanted = encode16(TASKS.find(task).decode(raw, geometry))[0]
        assert found.shape == wanted.shape and np.abs(found.astype(int) - wanted).max() <= 1
    assert (tmp_path / "out" / "a_matting_cutout.png").is_file()
    predicted(tmp_path, *words, "--resume")


@pytest.mark.slow
@pytest.mark.parametrize("to", RUNTIMES)
def test_an_exported_model_without_torch(to: str, tmp_path: Path) -> None:
    """The same of what `export` writes, and mirrored."""
    Image.fromarray(picture((90, 120))).save(tmp_path / "a.png")
    for task in ("depth", "normals", "matting"):
        pipe = small(task)
        pipe.save_pretrained(tmp_path / task)
        assert export.main(str(tmp_path / task), to, tmp_path / f"{task}-graph") == 0
        predicted(tmp_path, "a.png", "-m", f"{task}-graph", "-o", "out", "--format", "png", "--flip-test")
        found = read_stored(tmp_path / "out" / f"a_{task}.png").array
        wanted = encode16(pipe(tmp_path / "a.png", flip_test=True))[0]
        assert found.shape == wanted.shape
        apart = np.abs(found.astype(int) - wanted) > 1
        assert apart.mean() <= (0.02 if task == "normals" else 0)  # see `near`


@ONNX
def test_the_device_of_a_graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "auto" asks torch for accelerators where the runtime knows one; another device is looked for as always."""
    import onnxruntime

    path, asked = tmp_path / "m.onnx", []
    monkeypatch.setattr("genpercept.core.devices.pick_device", lambda device: asked.append(device) or "cuda")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert graphs.pick_device(path, "auto") == "cpu" and not asked
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert graphs.pick_device(path, "auto") == "cuda" and asked == ["auto"]
    assert graphs.pick_device(path, "cuda:1") == "cuda" and asked == ["auto", "cuda:1"]
    assert graphs.pick_device(tmp_path / "m.xml", "auto") == "cpu"


def test_dtypes_by_their_names(tmp_path: Path) -> None:
    small().save_pretrained(tmp_path / "m")
    pipe = genpercept.load(tmp_path / "m", torch_dtype="bf16", device="cpu")
    assert pipe.unet_dtype == torch.bfloat16
    with pytest.raises(ValueError, match="fp8"):
        genpercept.load(tmp_path / "m", torch_dtype="fp8", device="cpu")
