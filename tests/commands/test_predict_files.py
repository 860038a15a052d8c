"""Whose file it is: nothing of the user's is overwritten, results are no inputs, and done is what is as it was written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import genpercept
from genpercept.commands.files.inputs import gather
from genpercept.commands.predict import manifest
from genpercept.commands.predict.run import Machine, Request, run
from genpercept.core import locks
from genpercept.core.files import read_json
from genpercept.imaging import sidecars
from tests.support.commands import invoke
from tests.support.red import Red, picture, tree


@pytest.fixture
def red() -> Red:
    return Red()


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("genpercept: error:")]


def said(capsys: pytest.CaptureFixture[str], word: str) -> str:
    return next((line for line in capsys.readouterr().err.splitlines() if word in line), "")


# ---- overwriting


def test_a_file_of_the_users_is_never_overwritten(
    tmp_path: Path, red: Red, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "room.png")
    picture(tmp_path / "free.png")
    (tmp_path / "room_depth.png").write_bytes(b"my own")
    (tmp_path / "room_depth.json").write_text('{"a": 1}')
    assert run(["room.png", "free.png"], Path(), load=red.load) == 1
    (line,) = errors(capsys)
    assert "room.png: room_depth.png, room_depth.json: there already, and not written by this program" in line
    assert "--overwrite" in line
    assert (tmp_path / "room_depth.png").read_bytes() == b"my own" and red.seen == 1
    assert (tmp_path / "free_depth.png").is_file()
    assert run(["room.png"], Path(), load=red.load, overwrite=True) == 0
    assert np.asarray(Image.open(tmp_path / "room_depth.png")).dtype == np.uint16
    assert run(["room.png"], Path(), load=red.load) == 0  # ours by now


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"kind": 1, "files": {}, "meta": {}}', '{"files": {"png": "x_depth.png"}}']
)
def test_a_json_that_is_no_sidecar_of_ours_is_the_users(tmp_path: Path, red: Red, content: str) -> None:
    picture(tmp_path / "x.png")
    (tmp_path / "x_depth.json").write_text(content)
    assert run([tmp_path / "x.png"], tmp_path, load=red.load) == 2
    assert (tmp_path / "x_depth.json").read_text() == content


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    def appear(image: np.ndarray) -> None:
        (tmp_path / "x_depth.npy").write_bytes(b"my own")

    picture(tmp_path / "x.png")
    assert run([tmp_path / "x.png"], tmp_path, formats=["npy"], load=Red(appear).load) == 2
    assert (tmp_path / "x_depth.npy").read_bytes() == b"my own" and not (tmp_path / "x_depth.json").exists()


def test_results_of_another_image_of_that_name_stay(
    tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]
) -> None:
    """`for f in a/x.jpg b/x.jpg; do genpercept predict $f --out o; done`"""
    first, second, out = picture(tmp_path / "a/x.jpg", 50), picture(tmp_path / "b/x.jpg", 200), tmp_path / "o"
    assert run([first], out, formats=["npy"], load=red.load) == 0
    assert run([second], out, formats=["npy"], load=red.load) == 2
    (line,) = errors(capsys)
    assert f"b/x.jpg: {out}/x_depth.json is the result of {first}: choose another --out, or --overwrite" in line
    assert np.load(out / "x_depth.npy")[0, 0] < 0.3
    assert run([second], out, formats=["npy"], load=red.load, overwrite=True) == 0
    assert np.load(out / "x_depth.npy")[0, 0] > 0.7


def test_the_same_image_is_predicted_anew_and_older_formats_stay_ours(tmp_path: Path, red: Red) -> None:
    photo, out = picture(tmp_path / "x.png"), tmp_path / "o"
    for formats in (["png", "color"], ["npy"], ["png"]):
        assert run([photo], out, Request(seed=len(formats)), formats=formats, load=red.load) == 0
    about = read_json(out / "x_depth.json")
    assert sidecars.names(about) == {"x_depth.png", "x_depth_color.png", "x_depth.npy"} and set(about["files"]) == {
        "png"
    }
    link = tmp_path / "link.png"
    link.symlink_to(photo)  # another name of the same image
    (tmp_path / "l").mkdir()
    shutil.move(link, tmp_path / "l/x.png")
    assert run([tmp_path / "l/x.png"], out, formats=["png"], load=red.load) == 0


def test_an_older_sidecar_is_understood(tmp_path: Path, red: Red) -> None:
    photo, out = picture(tmp_path / "x.png"), tmp_path / "o"
    assert run([photo], out, formats=["npy"], load=red.load) == 0
    about = read_json(out / "x_depth.json")
    del about["written"], about["meta"]["weights"]
    (out / "x_depth.json").write_text(json.dumps(about))
    assert run([photo], out, formats=["npy"], load=red.load, resume=True) == 0 and red.seen == 1
    (out / "x_depth.npy").write_bytes(b"")
    assert run([photo], out, formats=["npy"], load=red.load, resume=True) == 0 and red.seen == 2


def test_a_manifest_of_someone_elses_stays(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"result": "mine"}\n')
    with pytest.raises(ValueError, match="not written by this program"):
        manifest.check(tmp_path)


# ---- inputs


def test_results_are_no_inputs(tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "c/p.png")
    picture(tmp_path / "c/q_depth.png")  # a photograph, whatever its name says
    assert run([f"{tmp_path}/c/**/*.png"], tmp_path / "c/results", load=red.load) == 0
    capsys.readouterr()
    assert run([f"{tmp_path}/c/**/*.png"], tmp_path / "c/results", Request(seed=1), load=red.load) == 0
    assert "genpercept: 4 files skipped: results of an earlier run" in capsys.readouterr().err and red.seen == 4
    assert run([tmp_path / "c/results"], tmp_path / "o", load=red.load) == 2
    assert "nothing but results of an earlier run" in errors(capsys)[0]
    assert (
        run([tmp_path / "c/results/p_depth.png"], tmp_path / "o", load=red.load) == 2
    )  # named by the shell, or on purpose


def test_pictures_that_are_not_read_are_named(tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "in/a.png")
    for name in ("IMG_1.DNG", "v.mp4", "notes.txt", "a.toml", "._a.png", "clip.MOV"):
        (tmp_path / "in" / name).write_bytes(b"x")
    (tmp_path / "in/gone.png").symlink_to("nowhere.png")
    assert run([tmp_path / "in"], tmp_path / "o", load=red.load) == 0
    said_of = capsys.readouterr().err
    assert "genpercept: 2 files skipped: IMG_1.DNG, gone.png (these are read: jpg" in said_of
    assert "genpercept: 2 files skipped: clip.MOV, v.mp4; films are predicted when they are named" in said_of
    assert run([f"{tmp_path}/in/*"], tmp_path / "o", load=red.load) == 0
    said_of = capsys.readouterr().err
    assert "skipped: IMG_1.DNG (" in said_of and "clip.MOV, v.mp4; films" in said_of


def test_a_tree_is_mirrored(tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("s1/cam0/000.png", "s1/cam1/000.png", "s2/cam0/001.png", "top.png", ".hidden/x.png"):
        picture(tmp_path / "deep" / name)
    (tmp_path / "deep/s1/loop").symlink_to("..")
    (tmp_path / "deep/s2/self.png").symlink_to("self.png")
    out = tmp_path / "o"
    assert run([tmp_path / "deep"], out, formats=["npy"], load=red.load, recursive=True) == 0
    wanted = ["s1/cam0/000", "s1/cam1/000", "s2/cam0/001", "top"]
    assert [name for name in tree(out) if name.endswith("npy")] == [f"{name}_depth.npy" for name in wanted]
    assert "self.png" in said(capsys, "skipped")
    killed = out / "s1/cam0/.genpercept-host-999999-0.tmp"
    killed.touch()
    os.utime(killed, (0, 0))
    assert run([tmp_path / "deep"], out, formats=["npy"], load=red.load, recursive=True, resume=True) == 0
    assert red.seen == 4 and not killed.exists()
    two = [tmp_path / "deep/s1", tmp_path / "deep/s2"]
    assert gather(two, recursive=True).root == tmp_path / "deep"
    (tmp_path / "only/sub").mkdir(parents=True)
    assert "--recursive looks into its subfolders" in gather([tmp_path / "only"]).problems[0]


def test_a_link_to_itself_and_a_url_are_one_line_each(
    tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "self.png").symlink_to("self.png")
    good = picture(tmp_path / "good.png")
    assert run([tmp_path / "self.png", "https://example.org/a.jpg", good], tmp_path / "o", load=red.load) == 1
    url, loop = errors(capsys)
    assert "https://example.org/a.jpg: URLs are not fetched; download" in url
    assert "self.png: cannot be opened (Too many levels of symbolic links)" in loop


def test_a_name_that_is_no_utf8(tmp_path: Path, red: Red) -> None:
    photo, out = picture(tmp_path / os.fsdecode(b"caf\xe9.png")), tmp_path / "o"
    for formats in (["png", "color", "npz"], ["png", "color", "npz"]):
        assert run([photo], out, formats=formats, load=red.load, resume=True) == 0
    assert red.seen == 1
    assert [os.fsencode(name) for name in tree(out)][:2] == [b"caf\xe9_depth.json", b"caf\xe9_depth.npz"]
    assert read_json(out / os.fsdecode(b"caf\xe9_depth.json"))["meta"]["input"]["path"] == str(photo)


# ---- what is done


@pytest.mark.parametrize("damage", ["empty", "bit", "gone", "unfinished"])
def test_done_is_what_has_the_size_and_the_hash(tmp_path: Path, red: Red, damage: str) -> None:
    photo, out = picture(tmp_path / "x.png"), tmp_path / "o"
    assert run([photo], out, formats=["png", "npy"], load=red.load) == 0
    file, about = out / "x_depth.png", read_json(out / "x_depth.json")
    whole = file.read_bytes()
    assert about["written"]["x_depth.png"] == {"bytes": len(whole), "sha256": hashlib.sha256(whole).hexdigest()}
    if damage == "gone":
        file.unlink()
    elif damage == "unfinished":
        (out / "x_depth.json").rename(out / ".x_depth.unfinished")
    else:
        file.write_bytes(b"" if damage == "empty" else whole[:-1] + bytes([whole[-1] ^ 1]))
    for _ in range(2):  # done anew once
        assert run([photo], out, formats=["png", "npy"], load=red.load, resume=True) == 0
    assert red.seen == 2 and file.read_bytes() == whole


def test_what_a_killed_run_left_is_ours_until_it_is_done(tmp_path: Path, red: Red) -> None:
    photo, out = picture(tmp_path / "x.png"), tmp_path / "o"
    assert run([photo], out, formats=["png", "npy"], load=red.load) == 0
    claim = out / ".x_depth.unfinished"
    (out / "x_depth.json").rename(claim)
    (out / "x_depth.npy").unlink()
    assert gather([out]).results == [out / "x_depth.png"]
    other = picture(tmp_path / "b/x.png", 7)
    assert run([other], out, formats=["png"], load=red.load) == 2 and claim.exists()
    assert run([photo], out, formats=["npy"], load=red.load) == 0
    assert tree(out) == ["x_depth.json", "x_depth.npy", "x_depth.png"]
    (out / "x_depth.png").unlink()
    shutil.copy(out / "x_depth.json", claim)  # of which nothing is left to say
    sidecars.sweep(out)
    assert not claim.exists() and (out / "x_depth.json").exists()


def test_a_claim_that_a_power_cut_left_in_part_goes(tmp_path: Path, red: Red) -> None:
    """It is not synced, and may be empty or end anywhere. What begins otherwise is somebody's file."""
    photo, out = picture(tmp_path / "x.png"), tmp_path / "o"
    out.mkdir()
    with sidecars.claimed(out / "x_depth.json", {"kind": "depth_affine", "files": {}, "meta": {}}, {}):
        text = (out / ".x_depth.unfinished").read_bytes()
    for part in (b"", text[:1], text[:12], text[: len(text) // 2], text[:-1]):
        (out / ".x_depth.unfinished").write_bytes(part)
        (out / ".notes.unfinished").write_bytes(b'{"todo": "buy milk')
        assert run([photo], out, formats=["png"], load=red.load) == 0
        assert tree(out) == [".notes.unfinished", "x_depth.json", "x_depth.png"]


def test_other_weights_under_the_same_path_are_not_done(tmp_path: Path) -> None:
    """The second model is of another seed: the same names and sizes. Then its file alone is put in the first one's place."""
    photo, out, model = picture(tmp_path / "x.png", size=(32, 32)), tmp_path / "o", tmp_path / "depth"
    genpercept.load("mini/depth", device="cpu").save_pretrained(model)
    request = Request(str(model), processing_resolution=32)

    def again(**change: Any) -> int:
        before = (out / "x_depth.npy").stat().st_mtime_ns if (out / "x_depth.npy").exists() else 0
        assert run([photo], out, request, formats=["npy"], machine=Machine("cpu"), resume=True, **change) == 0
        return int((out / "x_depth.npy").stat().st_mtime_ns != before)

    assert again() == 1 and again() == 0
    about = read_json(out / "x_depth.json")["meta"]
    assert len(about["weights"]["model"]) == len(about["model_sha256"]) == 64
    os.utime(model / "genpercept.json")  # touched, or copied, is the same
    assert again() == 0
    manifest_text = (model / "genpercept.json").read_text()
    changed = json.loads(manifest_text) | {"resolution": 64}
    (model / "genpercept.json").write_text(json.dumps(changed))
    assert again() == 1 and again() == 0
    file = next(model.glob("unet/*.safetensors"))
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256"):  # not done; and not what its genpercept.json says, either
        again()


def test_another_run_in_the_same_folder_is_told_who_is_there(tmp_path: Path, red: Red) -> None:
    photo, out = picture(tmp_path / "x.png"), tmp_path / "o"
    out.mkdir()
    with locks.hold(out, "predict"), pytest.raises(ValueError, match=f"in use by process {os.getpid()} on .* since "):
        run([photo], out, load=red.load)
    assert run([photo], out, load=red.load) == 0 and locks.NAME not in tree(out)


# ---- stdin, stdout and a file of its own name


def pipe(*words: str | Path, data: bytes) -> Any:
    from click.testing import CliRunner

    from genpercept.commands.cli import cli

    return CliRunner().invoke(cli, ["predict", *map(str, words), "--device", "cpu"], input=data, standalone_mode=False)


def test_stdin_and_stdout(tmp_path: Path) -> None:
    photo = picture(tmp_path / "x.png", size=(32, 24))
    done = pipe("-", "--out", "-", "--format", "npy", data=photo.read_bytes())
    assert done.return_value == 0 and np.load(io.BytesIO(done.stdout_bytes)).shape == (24, 32)
    assert "1 image predicted" in done.stderr
    done = pipe("-", "--out", tmp_path / "o", data=photo.read_bytes())
    assert done.return_value == 0 and tree(tmp_path / "o") == [
        f"stdin_depth{s}" for s in (".json", ".png", "_color.png")
    ]
    other = picture(tmp_path / "y.png", 3).read_bytes()
    assert pipe("-", "--out", tmp_path / "o", data=other).return_value == 2  # another image's results are there
    done = pipe("-", "--out", "-", data=b"no image")
    assert done.return_value == 2 and done.stdout_bytes == b"" and "error: -: not an image" in done.stderr
    for words, line in (((photo, photo.with_name("y.png")), "one file for 2 images"), (("-", "-"), "more than once")):
        assert line in str(pipe(*words, "--out", "-", data=b"").exception)
    assert "only one format goes to stdout" in str(pipe("-", "--out", "-", "--format", "png,npy", data=b"").exception)


@pytest.mark.parametrize(
    ("out", "formats", "files"),
    [
        ("p_depth.png", None, {"png": "p_depth.png"}),
        ("p_color.png", None, {"color": "p_color.png"}),
        ("p.png", ["color"], {"color": "p.png"}),
        ("p.exr", None, {"exr": "p.exr"}),
        ("new/p.PNG", None, {"png": "p.PNG"}),
    ],
)
def test_one_file(tmp_path: Path, red: Red, out: str, formats: list[str] | None, files: dict[str, str]) -> None:
    photo = picture(tmp_path / "x.jpg")
    for _ in range(2):
        assert run([photo], tmp_path / out, formats=formats, load=red.load, resume=True) == 0
    assert red.seen == 1
    (sidecar,) = tmp_path.rglob("*.json")
    assert read_json(sidecar)["files"] == files and (tmp_path / out).is_file() and len(tree(tmp_path)) == 3


@pytest.mark.parametrize(
    ("out", "formats", "line"),
    [
        ("p.jpg", None, "no such file is written: end in .png, _color.png"),
        ("p.png", ["png", "npy"], "one file for 2 formats"),
        ("p.npy", ["color"], "format color is written as .png"),
        ("p.json", ["coco"], "the sidecar's name"),
    ],
)
def test_one_file_of_what_is_not_written(
    tmp_path: Path, red: Red, out: str, formats: list[str] | None, line: str
) -> None:
    with pytest.raises(ValueError, match=line):
        run([picture(tmp_path / "x.jpg")], tmp_path / out, formats=formats, load=red.load)
    assert tree(tmp_path) == ["x.jpg"]


def test_a_cutout_of_one_pixel(tmp_path: Path) -> None:
    pytest.importorskip("pymatting")
    photo = picture(tmp_path / "one.png", 255, size=(1, 1))
    words = ("--task", "matting", "--format", "cutout", "--device", "cpu", "--out", tmp_path / "o")
    assert invoke("predict", photo, *words).return_value == 0
    with Image.open(tmp_path / "o/one_matting_cutout.png") as image:
        assert image.mode == "RGBA" and np.asarray(image)[0, 0, :3].tolist() == [255, 0, 0]
