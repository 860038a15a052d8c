"""`genpercept predict --engine ray` on a cluster of this machine: the same files, a manifest, resumed, mistakes on one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genpercept.commands.predict import manifest
from genpercept.commands.predict.run import Machine, Request, run

ray = pytest.importorskip("ray", reason="needs the extra ray")

CPU = Machine("cpu")
SMALL = Request("mini/depth", processing_resolution=32)


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """One for all tests, with a worker's CPUs whatever the machine has."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield
        ray.shutdown()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (24, 24 + 8 * (i % 2), 3), np.uint8)).save(folder / f"{i}.png")
    return folder


def test_the_same_files_and_a_manifest_and_resumed(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # which is not where the workers are
    (photos / "3.png").write_text("no image")
    out, local = tmp_path / "ray", tmp_path / "local"
    assert run([Path("in")], Path("ray"), SMALL, formats=["npy"], machine=CPU, engine="ray") == 1
    assert "3.png: not an image" in capfd.readouterr().err
    assert run([photos], local, SMALL, formats=["npy"], machine=CPU) == 1
    for path in local.glob("*.npy"):
        assert np.abs(np.load(out / path.name) - np.load(path)).max() < 1e-5
    lines = {line["result"]: line["status"] for line in manifest.entries(out / "manifest.jsonl")}
    assert lines == {f"{i}_depth": "failed" if i == 3 else "done" for i in range(5)}

    before = {p: p.stat().st_mtime_ns for p in out.glob("*.npy")}
    assert len(before) == 4
    Image.new("RGB", (24, 24)).save(photos / "3.png")
    assert run([photos], out, SMALL, formats=["npy"], machine=CPU, engine="ray", resume=True) == 0
    assert "1 image predicted" in (said := capfd.readouterr().err) and "4 done before" in said
    assert {line["status"] for line in manifest.entries(out / "manifest.jsonl")} == {"done"}
    assert all(p.stat().st_mtime_ns == t for p, t in before.items()) and (out / "3_depth.npy").is_file()
    assert run([photos], out, SMALL, formats=["npy"], machine=CPU, engine="ray", resume=True) == 0
    assert "5 done before" in capfd.readouterr().err


def test_what_concerns_all_images_is_one_error(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no-such-model") as error:
        run([photos], tmp_path / "o", Request(str(tmp_path / "no-such-model")), machine=CPU, engine="ray")
    assert "\n" not in str(error.value) and "ray" not in str(error.value)
    with pytest.raises(ValueError, match="Ray gives each worker its own"):
        run([photos], tmp_path / "o", SMALL, machine=Machine("cuda:0,cuda:1"), engine="ray")


def test_unknown_engines_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown engine 'rey'"):
        run([photos], tmp_path / "o", SMALL, engine="rey")
