"""Films, and images as the frames of a clip, under `genpercept predict`: what is written, kept, refused, and gone on with."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from genpercept.commands.predict.run import Asked, Machine, Request, run
from genpercept.core.files import read_json
from genpercept.imaging import sidecars
from genpercept.imaging.prediction import Prediction
from tests.support import films
from tests.support.commands import Call, invoke
from tests.support.red import Red, picture, tree

SIZE = (48, 64)


@pytest.fixture
def red() -> Red:
    return Red()


def frames(count: int, seed: int = 0) -> list[np.ndarray]:
    return films.panned(films.textured(seed, (SIZE[0], SIZE[1] + 4 * count)), count, SIZE)


def errors(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("genpercept: error:")]


def about(path: Path) -> dict[str, Any]:
    return read_json(path)


# ---- what is written


def test_a_film_becomes_a_film_with_its_sound_and_a_sidecar(tmp_path: Path, red: Red) -> None:
    source = films.film(tmp_path / "a.mp4", [*frames(7), *frames(5, 1)], sound="aac")
    assert run([source], tmp_path / "o", load=red.load) == 0
    assert tree(tmp_path / "o") == ["a_depth.json", "a_depth.mp4"] and red.seen == 12
    pictures, times, samples = films.decoded(tmp_path / "o/a_depth.mp4")
    assert len(pictures) == 12 and pictures[0].shape == (*SIZE, 3) and samples == films.decoded(source)[2]
    assert times == pytest.approx([i / 25 for i in range(12)])
    told = about(tmp_path / "o/a_depth.json")
    assert told["kind"] == "depth_affine" and told["shape"] == [12, *SIZE] and told["files"] == {"mp4": "a_depth.mp4"}
    video = told["video"]
    assert (video["frames"], video["fps"], video["frames_folder"]) == (12, 25, None)
    assert video["shots"] == [{"first": 0, "frames": 7}, {"first": 7, "frames": 5}]
    assert len(video["scale"]) == len(video["shift"]) == 12 and video["scale"][7] != 0
    assert set(video["flicker"]) == {"before", "after"} and told["meta"]["clip"]["smooth"] == 0
    assert sidecars.digests(told)["a_depth.mp4"].fits(tmp_path / "o/a_depth.mp4")  # type: ignore[index]


def test_frames_of_16_bits_have_a_sidecar_each_and_the_values_of_their_shot(tmp_path: Path, red: Red) -> None:
    source = films.film(tmp_path / "a.mp4", frames(3))
    assert run([source], tmp_path / "o", formats=["png", "npy", "color", "mp4"], load=red.load) == 0
    names = [f"{n:06d}{end}" for n in (1, 2, 3) for end in (".json", ".npy", ".png", "_color.png")]
    assert tree(tmp_path / "o") == ["a_depth.json", "a_depth.mp4", *(f"a_depth/{name}" for name in names)]
    stored = np.asarray(Image.open(tmp_path / "o/a_depth/000002.png"))
    values = np.load(tmp_path / "o/a_depth/000002.npy")
    assert stored.dtype == np.uint16 and np.abs(stored / 65535 - values).max() < 1e-5
    meta = about(tmp_path / "o/a_depth/000002.json")["meta"]
    assert (meta["frame"], meta["time"], meta["shot"]) == (1, 0.04, 0) and meta["input"]["path"] == str(source)
    (picture_of_2,) = [films.decoded(tmp_path / "o/a_depth.mp4")[0][1]]
    color = np.asarray(Image.open(tmp_path / "o/a_depth/000002_color.png"))
    assert np.abs(picture_of_2.astype(int) - color).mean() < 8  # the film is of the same colours


def test_the_film_beside_its_colours(tmp_path: Path, red: Red) -> None:
    source = films.film(tmp_path / "a.mp4", [image[:46, :62] for image in frames(4)])
    assert run([source], tmp_path / "o", load=red.load, clips=Asked(beside=True)) == 0
    pictures, _, _ = films.decoded(tmp_path / "o/a_depth.mp4")
    original, _, _ = films.decoded(source)
    assert pictures[0].shape == (46, 124, 3)
    assert np.abs(pictures[0][:, :62].astype(int) - original[0]).mean() < 6


def test_one_film_into_one_file(tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]) -> None:
    source = films.film(tmp_path / "a.mp4", frames(2))
    assert run([source], tmp_path / "o/mine.mp4", load=red.load) == 0
    assert tree(tmp_path / "o") == ["mine.json", "mine.mp4"] and "mine.mp4" in capsys.readouterr().err
    for out, formats, words in (
        (source, None, "an input that the result would overwrite"),
        (tmp_path / "o/x.mp4", ["mp4", "png"], "one film for formats mp4, png: name a folder"),
        (tmp_path / "o/x.png", None, "more than one frame: name a folder, or a file.mp4"),
    ):
        with pytest.raises(ValueError, match=words):
            run([source], out, load=red.load, formats=formats)


def test_a_film_of_one_frame_is_what_its_image_is(tmp_path: Path, red: Red) -> None:
    Image.fromarray(frames(1)[0]).save(tmp_path / "a.png")
    assert run([tmp_path / "a.png"], tmp_path / "still", formats=["png"], load=red.load) == 0
    assert run([tmp_path / "a.png"], tmp_path / "o", formats=["png"], load=red.load, clips=Asked(together=True)) == 0
    (one,) = (tmp_path / "o").rglob("000001.png")
    assert np.array_equal(np.asarray(Image.open(one)), np.asarray(Image.open(tmp_path / "still/a_depth.png")))


def test_grey_turned_and_odd_films(tmp_path: Path, red: Red) -> None:
    grey = [np.repeat(image[..., :1], 3, -1) for image in frames(3)]
    source = films.film(tmp_path / "a.mp4", grey, turned=90, times=[0, 500, 530])
    assert run([source], tmp_path / "o", load=red.load) == 0
    pictures, times, _ = films.decoded(tmp_path / "o/a_depth.mp4")
    assert pictures[0].shape == (SIZE[1], SIZE[0], 3) and times == pytest.approx([0, 0.5, 0.53])
    folder = tmp_path / "odd"
    for i, image in enumerate(frames(3)):
        folder.mkdir(exist_ok=True)
        Image.fromarray(image[:47, :63]).save(folder / f"{i}.png")
    assert run([folder], tmp_path / "o", load=red.load, clips=Asked(together=True)) == 0
    assert films.decoded(tmp_path / "o/odd_depth.mp4")[0][0].shape == (48, 64, 3)
    assert about(tmp_path / "o/odd_depth.json")["shape"] == [3, 47, 63]


# ---- which inputs are clips


def test_films_are_told_by_their_names_and_photographs_stay_photographs(
    tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in/a.png")
    films.film(tmp_path / "in/a.mp4", frames(2))
    films.film(tmp_path / "in/B.MOV", frames(2))
    assert run([tmp_path / "in"], tmp_path / "o", load=red.load) == 0
    assert tree(tmp_path / "o") == ["a_depth.json", "a_depth.png", "a_depth_color.png"]
    assert "2 files skipped: B.MOV, a.mp4; films are predicted when they are named" in capsys.readouterr().err
    assert run([tmp_path / "in/a.png", f"{tmp_path}/in/*.mp4"], tmp_path / "two", load=red.load) == 0
    assert tree(tmp_path / "two")[:3] == ["a_mp4_depth.json", "a_mp4_depth.mp4", "a_png_depth.json"]
    with pytest.raises(ValueError, match=r"x\.mp4: a film, and .*a\.png is an image"):
        run([tmp_path / "in/a.png"], tmp_path / "x.mp4", load=red.load)
    with pytest.raises(ValueError, match=r"a\.png: an image, and format mp4 is of films: add"):
        run([tmp_path / "in/a.png", tmp_path / "in/a.mp4"], tmp_path / "p", formats=["mp4"], load=red.load)
    (tmp_path / "in/a.png").unlink()
    assert run([tmp_path / "in"], tmp_path / "q", load=red.load) == 2
    assert "its films are predicted when they are named" in errors(capsys)[0]


def test_a_result_is_no_input(tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]) -> None:
    films.film(tmp_path / "a.mp4", frames(2))
    assert run([tmp_path / "a.mp4"], tmp_path, load=red.load) == 0
    assert run([f"{tmp_path}/*.mp4"], tmp_path / "o", load=red.load) == 0
    assert "1 file skipped: results of an earlier run" in capsys.readouterr().err
    assert tree(tmp_path / "o") == ["a_depth.json", "a_depth.mp4"]


def test_images_are_frames_by_name_with_a_rate(tmp_path: Path, red: Red) -> None:
    for folder in ("shots/one", "shots/two"):
        for i in (10, 9, 1):
            picture(tmp_path / folder / f"f{i}.png", red=20 * i)
    asked = Asked(together=True, rate=10)
    inputs = [tmp_path / "shots/one", f"{tmp_path}/shots/two/f1*.png"]
    assert run(inputs, tmp_path / "o", load=red.load, clips=asked, formats=["mp4", "npy"]) == 0
    one, two = (about(tmp_path / f"o/{name}_depth.json")["video"] for name in ("one", "two"))
    assert (one["frames"], two["frames"], one["fps"]) == (3, 2, 10)
    reds = [np.load(tmp_path / f"o/one_depth/{n:06d}.npy").mean() for n in (1, 2, 3)]
    assert reds == sorted(reds)  # f1, f9, f10
    words = [
        tmp_path / "shots/one" / name for name in ("f1.png", "f10.png", "f9.png")
    ]  # as a shell spells a pattern out
    assert run(words, tmp_path / "s", load=red.load, clips=asked) == 0
    assert about(tmp_path / "s/one_depth.json")["video"]["frames"] == 3
    with pytest.raises(ValueError, match="would both become one"):
        run([tmp_path / "shots/one", f"{tmp_path}/shots/one/*.png"], tmp_path / "t", load=red.load, clips=asked)


def test_frames_of_different_sizes_are_refused_before_the_first(
    tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "in/a.png")
    picture(tmp_path / "in/b.png", size=(9, 6))
    assert run([tmp_path / "in"], tmp_path / "o", load=red.load, clips=Asked(together=True)) == 2
    assert "b.png: 9 x 6 pixels, but " in errors(capsys)[0] and red.seen == 0 and tree(tmp_path / "o") == []


def test_what_clips_cannot_have_is_one_line(tmp_path: Path, red: Red) -> None:
    film, image = films.film(tmp_path / "a.mp4", frames(2)), picture(tmp_path / "a.png")
    (tmp_path / "boxes.json").write_text("{}")
    fitted = tmp_path / "fitted"
    fitted.mkdir()
    (fitted / "fit.json").write_text(json.dumps({"categories": {"screw": "m"}}))
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([film], {"engine": "ray"}, "leave out --engine ray"),
        (
            [film],
            {"request": Request(task="pose", boxes=str(tmp_path / "boxes.json"))},
            "--boxes: .* or find people by",
        ),
        ([film], {"request": Request(model=str(fitted))}, "models by category"),
        ([film], {"clips": Asked(rate=10)}, "--fps: .*a.mp4 has a rate of its own"),
        ([film], {"clips": Asked(beside=True), "formats": ["png"]}, "--side-by-side: of format mp4"),
        ([image], {"clips": Asked(smooth=0.5)}, "--smooth: is for films and for --video"),
        ([film], {"formats": ["mp5"]}, "unknown output format 'mp5'"),
        (
            [tmp_path],
            {"clips": Asked(together=True), "recursive": True},
            "--recursive: --video takes each folder as one clip, without its subfolders",
        ),
    ]
    for inputs, how, words in cases:
        with pytest.raises(ValueError, match=words) as error:
            run(inputs, tmp_path / "o", load=red.load, **how)
        assert "\n" not in str(error.value)
    assert red.seen == 0


# ---- damage, and going on


def test_of_a_film_that_is_cut_off_what_it_has_is_predicted(
    tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = films.shortened(films.film(tmp_path / "a.mkv", frames(150), sound="aac"), 0.6)
    whole = films.film(tmp_path / "b.mp4", frames(2))
    (tmp_path / "junk.mp4").write_bytes(b"no film")
    for resume in (False, True):
        assert run([cut, whole, tmp_path / "junk.mp4"], tmp_path / "o", load=red.load, resume=resume) == 1
        lines = errors(capsys)
        assert (
            len(lines) == 2
            and "cut_a.mkv: damaged or cut off after frame" in lines[0]
            and "junk.mp4: no film" in lines[1]
        )
    told = about(tmp_path / "o/cut_a_depth.json")["video"]
    assert 20 < told["frames"] == len(films.decoded(tmp_path / "o/cut_a_depth.mp4")[0]) == red.seen - 2
    assert "damaged" in told["damage"] and "b_depth.mp4" in tree(tmp_path / "o")


def test_a_run_that_ended_goes_on_frame_by_frame_to_the_same_bytes(tmp_path: Path) -> None:
    source = films.film(tmp_path / "a.mp4", frames(20))

    def stops(after: int) -> Callable[[np.ndarray], None]:
        left = [after]

        def check(image: np.ndarray) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise RuntimeError("the power went")

        return check

    asked, formats = Asked(smooth=0.7), ["mp4", "png"]
    plain = Red()
    assert run([source], tmp_path / "whole", load=plain.load, clips=asked, formats=formats) == 0
    broken = Red(stops(12))
    assert run([source], tmp_path / "o", load=broken.load, clips=asked, formats=formats) == 2
    assert tree(tmp_path / "o")[-1] == ".a_depth.frames/clip.json" or ".a_depth.frames/000012.answer" in tree(
        tmp_path / "o"
    )
    after = Red()
    assert run([source], tmp_path / "o", load=after.load, clips=asked, formats=formats, resume=True) == 0
    assert after.seen == 8 and tree(tmp_path / "o") == tree(tmp_path / "whole")
    for name in tree(tmp_path / "o"):
        if not name.endswith(".json"):
            assert (tmp_path / "o" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    assert run([source], tmp_path / "o", load=after.load, clips=asked, formats=formats, resume=True) == 0
    assert after.seen == 8  # done: nothing is read
    (tmp_path / "o/a_depth/000003.png").write_bytes(b"")
    assert run([source], tmp_path / "o", load=after.load, clips=asked, formats=formats, resume=True) == 0
    assert (tmp_path / "o/a_depth/000003.png").stat().st_size > 0
    seen = after.seen
    assert run([source], tmp_path / "o", load=after.load, clips=Asked(smooth=0.2), formats=formats, resume=True) == 0
    assert after.seen > seen  # another request


def test_answers_of_another_film_or_request_are_not_taken(tmp_path: Path) -> None:
    def fails(image: np.ndarray) -> None:
        if red.seen + len(seen) >= 5:
            raise RuntimeError
        seen.append(1)

    seen: list[int] = []
    red = Red(fails)
    source = films.film(tmp_path / "a.mp4", frames(10))
    assert run([source], tmp_path / "o", load=red.load) == 2
    films.film(source, frames(10, 1))
    other = Red()
    assert run([source], tmp_path / "o", load=other.load, resume=True) == 0 and other.seen == 10


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A run that was asked to end leaves handlers that end its process, which here is that of the other tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.usefixtures("own_signals")
def test_ctrl_c_leaves_what_is_done_and_no_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = films.film(tmp_path / "a.mp4", [*frames(30), *frames(30, 1)])
    count = [0]

    def interrupts(image: np.ndarray) -> None:
        count[0] += 1
        if count[0] == 40:
            os.kill(os.getpid(), signal.SIGINT)
            threading.Event().wait(0.05)

    red = Red(interrupts)
    assert run([source], tmp_path / "o", load=red.load) == 130
    left = tree(tmp_path / "o")
    assert (
        not [name for name in left if name.endswith((".mp4", ".tmp", ".lock"))]
        and ".a_depth.frames/000030.answer" in left
    )
    after = Red()
    assert run([source], tmp_path / "o", load=after.load, resume=True) == 0
    assert after.seen < 30 and tree(tmp_path / "o") == ["a_depth.json", "a_depth.mp4"]


def test_a_film_of_the_users_is_never_overwritten(tmp_path: Path, red: Red, capsys: pytest.CaptureFixture[str]) -> None:
    source = films.film(tmp_path / "a.mp4", frames(3))
    (tmp_path / "o/a_depth").mkdir(parents=True)
    (tmp_path / "o/a_depth.mp4").write_bytes(b"mine")
    (tmp_path / "o/a_depth/000002.png").write_bytes(b"mine")
    assert run([source], tmp_path / "o", load=red.load) == 2
    assert "a_depth.mp4: there already, and not written by this program" in errors(capsys)[0]
    assert run([source], tmp_path / "o", load=red.load, formats=["png"]) == 2
    assert "000002.png: there already" in errors(capsys)[0]
    assert (tmp_path / "o/a_depth.mp4").read_bytes() == (tmp_path / "o/a_depth/000002.png").read_bytes() == b"mine"
    assert run([source], tmp_path / "o", load=red.load, formats=["png", "mp4"], overwrite=True) == 0
    assert len(films.decoded(tmp_path / "o/a_depth.mp4")[0]) == 3
    films.film(tmp_path / "b/a.mp4", frames(3)) if (tmp_path / "b").mkdir() is None else None
    assert run([tmp_path / "b/a.mp4"], tmp_path / "o", load=red.load) == 2
    assert "is the result of" in errors(capsys)[0]


# ---- the network


class Wide(Red):
    """Notes how many images come at once, and takes no more than two."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []

    def __call__(self, images: list[np.ndarray], **options: Any) -> list[Prediction]:
        self.calls.append(len(images))
        if len(images) > 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().__call__(images, **options)


def test_frames_share_batches_that_shrink_when_memory_is_short(tmp_path: Path) -> None:
    wide = Wide()
    source = films.film(tmp_path / "a.mp4", frames(12))
    assert run([source], tmp_path / "o", load=wide.load, machine=Machine(batch_size=4)) == 0
    assert wide.seen == 12 and max(wide.calls) == 4 and wide.calls.count(4) == 1 and wide.calls.count(2) == 6


def test_kinds_that_cannot_be_mixed_say_so_and_masks_are_steadied(tmp_path: Path, call: Call) -> None:
    source = films.film(tmp_path / "a.mp4", frames(3))
    code, _, err = call("predict", source, "-o", tmp_path / "s", "-t", "segmentation", "--smooth")
    assert code == 0 and "--smooth: class_ids are names, points or several images" in err
    assert len(films.decoded(tmp_path / "s/a_segmentation.mp4")[0]) == 3
    code, _, err = call("predict", "--smooth", source, "-o", tmp_path / "m", "-t", "matting", "--format", "mp4,mask")
    assert code == 0 and "cannot be mixed" not in err
    flicker = about(tmp_path / "m/a_matting.json")["video"]["flicker"]
    assert flicker["after"] < flicker["before"]


def test_what_concerns_all_clips_ends_the_run_in_one_line(
    tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = films.film(tmp_path / "a.mp4", frames(2))
    code, _, err = call("predict", source, "-o", tmp_path / "o", "-m", "mini/normals", "-t", "depth")
    assert code == 2 and "is a model for normals, not depth" in err and err.count("genpercept: error") == 1
    code, _, err = call("predict", source, "-o", tmp_path / "o", "--format", "mp4,mask")
    assert code == 2 and "format mask cannot hold depth_affine" in err
    for package, said in (("av", "films need PyAV"), ("cv2", "clips need OpenCV")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, package, None)
            code, _, err = call("predict", source, "-o", tmp_path / "o")
        assert code == 2 and f"{said}: pip install 'genpercept[video]'" in err.splitlines()[-1]
    assert tree(tmp_path / "o") == []


# ---- the command


def test_the_command_with_json_and_a_number_behind_smooth_or_none(tmp_path: Path, call: Call) -> None:
    source = films.film(tmp_path / "a.mp4", frames(3))
    code, out, err = call(
        "predict", "--smooth", source, "-o", tmp_path / "o", "--json", "--side-by-side", "--format", "mp4,png"
    )
    assert code == 0, err
    (clip,) = json.loads(out)["images"]
    assert clip["image"] == str(source) and set(clip["files"]) == {"mp4", "json"}
    assert about(tmp_path / "o/a_depth.json")["meta"]["clip"]["smooth"] == 0.8
    assert "3 frames predicted in" in err
    for words, weight in ((("--smooth", "0.3"), 0.3), (("--smooth=0",), 0)):
        assert call("predict", source, *words, "-o", tmp_path / "p")[0] == 0
        assert about(tmp_path / "p/a_depth.json")["meta"]["clip"]["smooth"] == weight
    code, _, err = call("predict", source, "--smooth", "1", "-o", tmp_path / "o")
    assert code == 2 and "--smooth" in err


def test_the_strength_of_the_help_is_that_of_the_arithmetic() -> None:
    from genpercept.commands.predict import options
    from genpercept.pipeline.video import smooth

    assert float(options._STRENGTH) == smooth.STRENGTH
    assert "Videos" in invoke("predict", "--help").output
