"""An effective batch, however it is divided over processes and passes: same samples, same weights, same figures."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genpercept.training import recipe as recipes
from genpercept.training.loop import Training
from genpercept.training.run import memory
from genpercept.training.run.batches import Split
from genpercept.training.stages import build
from genpercept.training.stages.base import Stage
from tests.support.paths import SD_TINY
from tests.support.planes import planes

SIZE = (32, 40)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planes(tmp_path_factory.mktemp("data"), 8, SIZE, normals=True, intrinsics=(30, 30, 20, 16))


def table(data: Path, **further: Any) -> dict[str, Any]:
    """A recipe of six samples a step."""
    found: dict[str, Any] = {
        "stage": "finetune",
        "steps": 2,
        "model": {"base": str(SD_TINY)},
        "data": [{"name": "folder", "root": str(data), "split": "all", "size": SIZE}],
        "validation": {"every": 0, "split": "all", "count": 5, "pictures": 1},
        "loader": {"batch_size": 6, "prefetch": 1},
        "optim": {"lr": 1e-3, "warmup": 0},
        "speed": {"threads": 1},
        "logging": {"tensorboard": False},
    }
    for section, values in further.items():
        found[section] = found.get(section, {}) | values if isinstance(values, dict) else values
    return found


# Slots ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("micro", [0, 1, 3, 4, 100])
@pytest.mark.parametrize(("batch", "processes"), [(1, 1), (32, 1), (32, 8), (32, 3), (7, 4), (5, 5)])
def test_every_sample_counts_once(batch: int, processes: int, micro: int) -> None:
    splits = [Split(batch, processes, rank, micro) for rank in range(processes)]
    assert len({split.passes for split in splits}) == 1  # else layers that wait for the other processes wait for ever
    slots: Counter[int] = Counter()
    counts = dict.fromkeys(range(batch), 0.0)
    for split in splits:
        for part in range(split.passes):
            given, weight = split.slots(part), split.weight(part)
            assert 1 <= len(given) <= split.at_once <= (micro or batch)
            for slot in given:
                slots[slot] += weight > 0
                counts[slot] += weight / len(given) / processes  # in the mean over the processes
    assert slots == dict.fromkeys(range(batch), 1)
    assert counts == pytest.approx(dict.fromkeys(range(batch), 1 / batch))


def test_a_batch_of_fewer_samples_than_processes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"loader.batch_size 2: fewer samples than processes \(3\)"):
        Split(2, 3)


def test_the_split_in_words() -> None:
    assert str(Split(32, 4, 0, 3)) == "batch of 32: 4 processes x 3 passes of 3 at most"
    assert str(Split(32, 1, 0, 0)) == "batch of 32: 1 pass of 32"


# Gradients --------------------------------------------------------------------------------------------------------------

LOSSES: dict[str, dict[str, Any]] = {
    "latent": {"loss": {"latent": 1.0}},
    "pixels": {"loss": {"mse": 1.0, "ssi": 0.5, "gradient": 2.0}, "learn": {"decoder": "finetune"}},
    "share of pixels": {"loss": {"latent": 1.0, "l1": 1.0}, "learn": {"decoder": "finetune"}, "pixel_share": 0.3},
    "noise, random triplets": {
        "paradigm": "stochastic_multi_step",
        "loss": {"latent": 1.0, "vnl": 1.0, "hdn": 1.0},
        "pixel_share": 0.5,
    },
    "codec": {
        "stage": "autoencoder",
        "model": {"base": "", "codec_config": {"block_out_channels": [8, 8], "norm_num_groups": 4}},
        "autoencoder": {"paint": {"depth": 0.5}},
    },
}


def gradients(stage: Stage, batch: int, processes: int, micro: int) -> dict[str, Tensor]:
    """Of one step, as the processes' mean."""
    stage.net.train()
    stage.net.zero_grad()
    for rank in range(processes):
        split = Split(batch, processes, rank, micro)
        for part in range(split.passes):
            with torch.no_grad():
                encoded = stage.encode(stage.make_batch(3, split.slots(part)))
            pair = stage.training_pair(encoded)
            losses, _ = stage.loss(stage.net(*pair.inputs), pair)
            (losses.mean() * split.weight(part) / processes).backward()
    return {name: p.grad.clone() for name, p in stage.net.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_whole_batch(data: Path, name: str) -> None:
    """Under augmentation, with noise, with samples that only some losses see; uneven shares and repeated samples too."""
    stage = build(recipes.parse(table(data, **LOSSES[name])), lambda line: None)
    whole = gradients(stage, 6, 1, 0)
    assert whole
    for processes, micro in ((1, 4), (4, 1)):
        parts = gradients(stage, 6, processes, micro)
        assert parts.keys() == whole.keys()
        apart = sum(float((parts[key] - grad).square().sum()) for key, grad in whole.items())
        assert apart < 1e-9 * sum(float(grad.square().sum()) for grad in whole.values())


# Validation -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pixels", "codec"])
def test_validation_holds_a_pass_at_a_time(data: Path, name: str) -> None:
    """Never more samples at once than a pass has, and the same figures."""
    stage = build(recipes.parse(table(data, **LOSSES[name])), lambda line: None)
    stage.net.eval()
    seen: list[int] = []
    vae: Any = stage.net.get_submodule("vae")
    vae.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    found = {at_once: stage.validate(at_once)[0] for at_once in (5, 2, 1)}
    assert max(seen[-5:]) == 1 and 2 in seen and max(seen) == 5
    assert found[2] == pytest.approx(found[5], rel=1e-4) and found[1] == pytest.approx(found[5], rel=1e-4)


# Memory -----------------------------------------------------------------------------------------------------------------


def limit(monkeypatch: pytest.MonkeyPatch, fits: int) -> list[int]:
    """An accelerator that holds `fits` samples in training; the sizes that were tried."""
    tried: list[int] = []
    losses = Training._losses

    def short(self: Training, batch: Any) -> Any:
        tried.append(len(batch.images))
        if tried[-1] > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return losses(self, batch)

    monkeypatch.setattr(Training, "_losses", short)
    monkeypatch.setattr(memory, "limited", lambda device: True)
    return tried


def weights(training: Training) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in training.stage.net.state_dict().items()}


def test_what_fits_is_found_out_and_leaves_no_trace(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codec = table(data, **LOSSES["codec"])
    asked = Training(recipes.parse(codec | {"loader": codec["loader"] | {"micro_batch": 2}}), tmp_path / "asked", False)
    assert asked.run() == 0
    tried = limit(monkeypatch, 2)
    found = Training(recipes.parse(codec), tmp_path / "found", False)
    assert found.run() == 0
    assert tried == [6, 3, 2, 2, *[2] * 6]  # two passes of what fits, then two steps of three
    assert "batch of 6: 3 passes of 2" in capsys.readouterr().err
    record = {"batch_size": 6, "processes": 1, "micro_batch": 2, "passes": 3}
    assert json.loads((tmp_path / "found" / "batches.json").read_text()) == record
    assert all(torch.equal(x, weights(asked)[name]) for name, x in weights(found).items())
    tried.clear()
    assert Training(recipes.parse(codec | {"steps": 3}), tmp_path / "found", True).run() == 0
    assert tried == [2, 2, 2]  # as recorded, so that a resumed run goes on bit by bit


def test_batch_normalisation_sees_no_rehearsal() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    optimiser = torch.optim.AdamW(net.parameters())
    before = {name: x.clone() for name, x in net.state_dict().items()}
    with memory.rehearsal(net, optimiser, recipes.Optim()):
        net(torch.randn(8, 4)).sum().backward()
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert net[1].training and all(p.grad is None for p in net.parameters())


def test_what_cannot_fit_is_said_in_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = table(data, **LOSSES["codec"])
    limit(monkeypatch, 0)
    with pytest.raises(ValueError, match=r"one sample at a time does not fit into memory; try smaller augment.sizes"):
        Training(recipes.parse(codec), tmp_path / "none", False).run()
    limit(monkeypatch, 3)
    settings = recipes.parse(codec | {"loader": codec["loader"] | {"micro_batch": 4}})
    with pytest.raises(ValueError, match=r"step 0: out of memory with 4 samples at once; set loader.micro_batch = 2"):
        Training(settings, tmp_path / "asked", False).run()


def test_errors_that_are_not_of_memory_stay_as_they_are() -> None:
    def broken(size: int) -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        memory.largest(broken, 4, lambda here: here)
    sizes: list[int] = []
    # another process is the one that runs out
    assert memory.largest(sizes.append, 5, lambda here: sizes[-1] > 2) == 2 and sizes == [5, 3, 2]


def test_what_batch_normalisation_sees_is_said(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for micro, said in ((2, "batch normalisation sees 2 samples of a batch at a time"), (6, "")):
        codec = table(data, **LOSSES["codec"])
        training = Training(
            recipes.parse(codec | {"loader": codec["loader"] | {"micro_batch": micro}}), tmp_path / str(micro), False
        )
        training.stage.net.add_module("norm", torch.nn.BatchNorm2d(3))
        training._divide()
        assert (said and said in capsys.readouterr().err) or not (said or capsys.readouterr().err)
