"""A dry run finds what a run would stop at: what can never work (ValueError, exit code 2), and what this machine lacks (3)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from genpercept.checkpoints.shapes import shapes_only
from genpercept.training import footprint, lacking
from genpercept.training import recipe as recipes
from genpercept.training.dry_run import LACKING, Plan, plan
from genpercept.training.networks import predictor
from genpercept.training.rehearsal import shapes_of
from tests.support.commands import Call
from tests.support.miniature import world
from tests.support.paths import RECIPES, SD_TINY

DEPTH = RECIPES / "paper" / "depth.toml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hypersim and Virtual KITTI 2, as paper/depth reads them."""
    return world.build(tmp_path_factory.mktemp("world"), ("hypersim", "vkitti2"), bases=False) / "data"


def planned(data: Path, changes: dict[str, str] | None = None, out: Path = Path(), path: Path = DEPTH) -> Plan:
    """paper/depth, on miniatures and the tiny base, small."""
    given = {
        "data.0.root": f'"{data / "hypersim"}"',
        "data.1.root": f'"{data / "vkitti2"}"',
        "data.0.sizes": "[[48, 64]]",
        "data.1.sizes": "[[32, 64]]",
        "model.base": f'"{SD_TINY}"',
        "validation.count": "2",
        **(changes or {}),
    }
    return plan(recipes.load(path, [f"{key}={value}" for key, value in given.items()]), out)


def test_a_machine_that_has_all(data: Path, tmp_path: Path) -> None:
    found = planned(data, out=tmp_path / "run")
    assert found.lacking == () and found.code == 0
    said = str(found)
    assert "stage finetune (depth, one_step, denoiser finetune): 30000 steps, 960,000 images" in said
    assert "batch of 32: 8 passes of 4" in said and "memory: about" in said and "disk: about" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data.0.root": '"nowhere"'}, "data.0: no folder nowhere, for data set 'hypersim'"),
        ({"data.1.count": "50000"}, "data.1: split 'train' in {data}/vkitti2 has 8 entries, and count asks for 50000"),
        (
            {"data.1.options": '{ conditions = ["rain"] }'},
            "data.1: unknown condition of vkitti2 'rain': choose one of clone, fog",
        ),
        ({"data.1.root": '"{data}"'}, "data.1: {data}: not the layout of Virtual KITTI 2: expected "),
        ({"data.1.options": '{ split_list = "none.txt" }'}, "data.1: none.txt: "),
        (
            {"model.base": '"stable-diffusion-2-1"'},
            "model.base: no folder stable-diffusion-2-1, and no such model among",
        ),
        ({"model.codec": '"runs/own_vae/model"'}, "model.codec: no folder runs/own_vae/model, and no such model among"),
        (
            {"optim.kind": '"8bit"'},
            'optim.kind "8bit": the package bitsandbytes: pip install bitsandbytes, or choose "fused"',
        ),
        (
            {"logging.trackers": '["trackio"]'},
            "logging.trackers: the package trackio: pip install trackio, or leave it out",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_this_machine_lacks(changes: dict[str, str], says: str, data: Path) -> None:
    found = planned(data, {key: value.replace("{data}", str(data)) for key, value in changes.items()})
    assert found.code == LACKING == 3
    assert [line for line in found.lacking if line.startswith(says.replace("{data}", str(data)))], found.lacking
    assert f"not on this machine: {found.lacking[0]}" in str(found)


def test_files_that_are_not_whole(data: Path, tmp_path: Path) -> None:
    """A split without its list, a validation split without frames, a frame without its depth."""
    root = world.build(tmp_path, ("hypersim",), bases=False) / "data" / "hypersim"
    for path in root.glob("ai_001_001/images/*geometry*/frame.0000.depth_meters.hdf5"):
        path.unlink()
    (line,) = planned(data, {"data.0.root": f'"{root}"', "data.0.skip_bad": "false"}).lacking
    assert line.startswith("data.0: ") and line.endswith(
        "frame.0000.depth_meters.hdf5: no such file; the data set is incomplete"
    )
    assert not planned(data, {"data.0.root": f'"{root}"'}).lacking  # skip_bad: others take its place
    csv = root / "metadata_images_split_scene_v1.csv"
    csv.write_text("\n".join(row for row in csv.read_text().splitlines() if not row.endswith("val")))
    (line,) = planned(data, {"data.0.root": f'"{root}"'}).lacking
    assert line.startswith(f"validation: {root}: ") and "split 'val'" in line
    csv.unlink()
    assert planned(data, {"data.0.root": f'"{root}"'}).lacking[0].startswith(f"data.0: {root}: no {csv.name}")


def test_samples_without_a_label(data: Path) -> None:
    (line, *_) = planned(data, {"data.0.options": '{ labels = ["normals"] }'}).lacking
    assert line.startswith("data.0: ") and "sample 'ai_001_001/cam_00_fr0000' has no depth" in line


def test_packages_of_an_extra(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lacking, "_installed", lambda package: package not in ("h5py", "numba"))
    found = planned(data).lacking
    assert "data.0: data set 'hypersim' needs h5py: pip install 'genpercept[data]'" in found
    assert "training needs numba: pip install 'genpercept[train]'" in found


def test_a_full_disk(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lacking.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20}))
    (line,) = planned(data, out=tmp_path / "a" / "run").lacking
    assert line == f"disk: 0.0 GiB are free at {tmp_path}, the run needs 0.1; see checkpoint.keep"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"loss": "{latent = 1}", "model.head": '"dpt"'}, "loss.latent: head 'dpt' reads the denoiser's features"),
        (
            {"learn.decoder": '"scratch"', "loss": "{latent = 1}"},
            "learn.decoder: only a loss behind the decoder can train it",
        ),
        ({"loader.latent_variants": "2"}, "loader.latent_variants: cached latents serve the latent loss alone"),
        ({"learn.denoiser": '"frozen"'}, "nothing learns: set learn.denoiser, learn.decoder or learn.head"),
        (
            {"lora.targets": '["nose"]', "learn.denoiser": '"lora"'},
            "lora.targets ['nose']: the denoiser has no linear layer",
        ),
        (
            {"paradigm": '"stochastic_multi_step"', "paradigm_options": "{}", "learn.denoiser": '"lora"'},
            "must learn: choose",
        ),
        ({"speed.processes": "64"}, "loader.batch_size 32: fewer samples than processes (64)"),
        ({"data.1.weight": "1e-6"}, "the smallest share must be at least 1 in 1000"),
        (
            {"data.0.name": '"taskonomy"', "data.0.options": "{}"},
            "taskonomy: split 'train' needs the option splits_file",
        ),
        ({"data.0.name": '"vkitti2"', "data.0.options": '{ crop = "x" }'}, "crop of vkitti2 'x'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_can_never_work(changes: dict[str, str], says: str, data: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        planned(data, changes)


def test_the_exit_codes(data: Path, tmp_path: Path, call: Call) -> None:
    sets = ("--set", "data.0.root=nowhere", "--set", f"model.base={SD_TINY}", "--set", "data.0.sizes=[[48, 64]]")
    code, out, _ = call("train", DEPTH, "--dry-run", *sets)
    assert code == 3 and "not on this machine: data.0: no folder nowhere, for data set 'hypersim'" in out
    code, _, err = call("train", DEPTH, "--dry-run", "--set", "data.0.name=hypersm")
    assert code == 2 and "did you mean 'hypersim'" in err


def test_shapes_alone_are_those_of_the_weights(tmp_path: Path) -> None:
    """Of every way to learn: the same parameters learn, in the same shapes, and no memory is taken."""
    for changes in (
        {},
        {"learn": {"denoiser": "lora"}},
        {"learn": {"denoiser": "controlnet"}},
        {"learn": {"denoiser": "scratch", "decoder": "scratch"}},
        {"model": {"base": str(SD_TINY), "head": "dpt"}, "learn": {"denoiser": "frozen"}},
        {"prompt": {"kind": "fixed", "text": "a depth map"}},
        {"paradigm": "stochastic_multi_step"},
    ):
        given: dict[str, Any] = {"stage": "finetune", "model": {"base": str(SD_TINY)}, **changes}
        recipe = recipes.parse(given)
        real = predictor.build(recipe)
        with shapes_only():
            bare = predictor.build(recipe)
        for part in ("denoiser", "vae", "head_module"):
            a, b = getattr(real, part), getattr(bare, part)
            assert (a is None) == (b is None)
            if a is not None:
                wanted = {name: (p.shape, p.requires_grad) for name, p in a.named_parameters()}
                assert wanted == {name: (p.shape, p.requires_grad) for name, p in b.named_parameters()}
                assert all(p.is_meta for p in b.parameters()) and not any(p.is_meta for p in a.parameters())
        assert real.prompts.fixed.shape == bare.prompts.fixed.shape


def test_activations_are_those_of_a_real_pass() -> None:
    """What autograd keeps of a forward pass, counted on real tensors; half of it in half precision, less with checkpointing."""
    table: dict[str, Any] = {"stage": "finetune", "model": {"base": str(SD_TINY)}, "augment": {"sizes": [[64, 64]]}}
    recipe = recipes.parse(table)
    found = footprint.of_stage(shapes_of(recipe), 2)
    parts = predictor.build(recipe)
    kept: dict[int, Any] = {}
    own = {p.data_ptr() for part in (parts.denoiser, parts.vae) if part is not None for p in part.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    from genpercept.training.stages.finetune import Net

    net = Net(parts, 1.0).train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net(torch.rand(2, 4, 8, 8), torch.ones(2), parts.prompts.fixed.expand(2, -1, -1))
    real = sum(t.untyped_storage().nbytes() for t in kept.values())
    assert 0.9 * real < found.activations < 1.15 * real
    half = footprint.of_stage(shapes_of(recipe.model_copy(update={"precision": "bf16"})), 2)
    assert half.activations == found.activations // 2
    spared = recipe.model_copy(update={"speed": recipe.speed.model_copy(update={"checkpointing": True})})
    assert footprint.of_stage(shapes_of(spared), 2).activations < 0.6 * found.activations
    learning = sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert (found.gradients, found.optimiser, found.average) == (4 * learning, 8 * learning, 4 * learning)
