"""Films and folders of frames in, films out."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genpercept.imaging import video
from genpercept.imaging.video import Damaged, Film, Stills, Writer
from tests.support import films

COLOURS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (200, 200, 30))


def quarters(size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Four colours: top left, top right, bottom left, bottom right."""
    image = np.zeros((*size, 3), np.uint8)
    h, w = size[0] // 2, size[1] // 2
    for part, colour in zip((np.s_[:h, :w], np.s_[:h, w:], np.s_[h:, :w], np.s_[h:, w:]), COLOURS, strict=True):
        image[part] = colour
    return image


def corners(image: np.ndarray) -> list[tuple[int, ...]]:
    """The nearest of the four colours in each corner."""
    spots = image[[4, 4, -5, -5], [4, -5, 4, -5]].astype(int)
    return [min(COLOURS, key=lambda c: int(np.abs(spot - c).sum())) for spot in spots]


def test_a_film_gives_its_frames_with_their_times(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 12 * i, np.uint8) for i in range(20)]
    found = Film(films.film(tmp_path / "a.mp4", frames, sound="aac"))
    assert (found.size, found.rate, found.count) == ((48, 64), 25, 20)
    read = list(found.frames())
    assert [frame.index for frame in read] == list(range(20))
    assert [frame.time for frame in read] == [Fraction(i, 25) for i in range(20)]
    assert max(np.abs(frame.image.astype(int) - 12 * i).max() for i, frame in enumerate(read)) <= 3
    assert [frame.time for frame in found.frames()] == [frame.time for frame in read]  # anew


def test_a_variable_rate_is_kept_in_and_out(tmp_path: Path) -> None:
    times = [0, 30, 100, 110, 400, 1000]
    source = Film(films.film(tmp_path / "v.mp4", [quarters()] * 6, times=times))
    assert [round(1000 * frame.time) for frame in source.frames()] == times
    with Writer(tmp_path / "out.mp4", source.rate, source.tick) as out:
        for frame in source.frames():
            out.write(frame.image, frame.time)
    assert [round(1000 * t) for t in films.decoded(tmp_path / "out.mp4")[1]] == times


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_a_turned_film_is_upright(tmp_path: Path, degrees: int) -> None:
    """What is shown is the stored frame turned to the left by so many degrees."""
    found = Film(films.film(tmp_path / "t.mp4", [quarters()], turned=degrees))
    (frame,) = found.frames()
    assert frame.image.shape[:2] == found.size == ((48, 64) if degrees == 180 else (64, 48))
    assert corners(frame.image) == corners(np.rot90(quarters(), degrees // 90))


def test_colours_survive_out_and_in_at_both_matrices(tmp_path: Path) -> None:
    for size in ((48, 64), (720, 64)):
        with Writer(tmp_path / "c.mp4", Fraction(25), Fraction(1, 25)) as out:
            out.write(quarters(size), Fraction(0))
        (frame,) = Film(tmp_path / "c.mp4").frames()
        inner = [frame.image[[8, 8, -9, -9], [8, -9, 8, -9]].astype(int)]
        assert np.abs(np.array(inner) - np.array(COLOURS)).max() <= 6, size


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    frames, found = films.panned(films.textured(0, (96, 260)), 24, (96, 128)), set()
    for i in range(6):
        with Writer(tmp_path / f"{i}.mp4", Fraction(25), Fraction(1, 25)) as out:
            for k, image in enumerate(frames):
                out.write(image, Fraction(k, 25))
        found.add((tmp_path / f"{i}.mp4").read_bytes())
    assert len(found) == 1


def test_odd_edges_are_padded_by_what_is_beside_them(tmp_path: Path) -> None:
    image = quarters((48, 64))[:47, :63]
    with Writer(tmp_path / "odd.mp4", Fraction(25), Fraction(1, 25)) as out:
        out.write(image, Fraction(0))
    (picture,), _, _ = films.decoded(tmp_path / "odd.mp4")
    assert picture.shape == (48, 64, 3)
    assert np.abs(picture[47, 63].astype(int) - COLOURS[3]).max() <= 12


@pytest.mark.parametrize("codec", ["aac", "flac", "ac3"])
def test_sound_is_copied_as_it_is(tmp_path: Path, codec: str) -> None:
    source = films.film(tmp_path / "s.mkv", [quarters()] * 20, sound=codec)
    with Writer(tmp_path / "out.mp4", Fraction(25), Fraction(1, 1000), source) as out:
        for frame in Film(source).frames():
            out.write(frame.image, frame.time)
    assert out.silent == []
    samples = films.decoded(tmp_path / "out.mp4")[2]
    assert samples > 19 * 1920 and abs(samples - films.decoded(source)[2]) < 100


def test_sound_that_mp4_does_not_take_is_named_and_left_out(tmp_path: Path) -> None:
    source = films.film(tmp_path / "s.mkv", [quarters()] * 5, sound="pcm_s16le")
    with Writer(tmp_path / "out.mp4", Fraction(25), Fraction(1, 1000), source) as out:
        for frame in Film(source).frames():
            out.write(frame.image, frame.time)
    assert out.silent == ["pcm_s16le"]
    pictures, _, samples = films.decoded(tmp_path / "out.mp4")
    assert len(pictures) == 5 and samples == 0


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_film_that_is_cut_off_gives_what_it_has_and_says_so(tmp_path: Path, name: str) -> None:
    frames = films.panned(films.textured(0, (48, 700)), 150, (48, 64))
    whole = films.film(tmp_path / name, frames, sound="aac", options={"movflags": "faststart"} if "mp4" in name else {})
    assert len(list(Film(whole).frames())) == 150
    read = []
    with pytest.raises(
        Damaged, match=rf"cut_{name}: damaged or cut off after frame \d+, at \d\.\d s .*; copy or"
    ) as error:
        read.extend(frame.index for frame in Film(films.shortened(whole, 0.6)).frames())
        pytest.fail("no error")
    assert "\n" not in str(error.value) and 20 < error.value.frames < 150


def test_the_frames_before_the_damage_come(tmp_path: Path) -> None:
    whole = films.film(tmp_path / "a.mkv", films.panned(films.textured(0, (48, 700)), 150, (48, 64)))
    frames = Film(films.shortened(whole, 0.6)).frames()
    read = []
    with pytest.raises(Damaged) as error:
        for frame in frames:
            read.append(frame.index)
    assert read == list(range(error.value.frames))


def test_long_sound_behind_the_last_frame_is_no_damage(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4"):
        path = films.film(tmp_path / name, [quarters()] * 10, sound="aac", longer=200)
        assert len(list(Film(path).frames())) == 10


def test_what_is_no_film_is_one_line(tmp_path: Path) -> None:
    import av

    (tmp_path / "junk.mp4").write_bytes(b"hello" * 1000)
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder.mp4").mkdir()
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        track = out.add_stream("aac", rate=48000)
        out.mux(track.encode(films.tone(0)))
        out.mux(track.encode())
    whole = films.film(tmp_path / "whole.mp4", [quarters()] * 20)  # its index is at the end
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {whole.name}\n")  # which FFmpeg would follow
    with av.open(str(tmp_path / "list.mp4")) as followed:
        assert followed.format.name == "concat"
    for path, words in (
        (tmp_path / "junk.mp4", "no film that can be read"),
        (tmp_path / "list.mp4", "no film that can be read"),
        (tmp_path / "empty.mp4", "no film that can be read"),
        (films.shortened(whole, 0.5), "cut off"),
        (tmp_path / "gone.mp4", "no such file"),
        (tmp_path / "folder.mp4", "--video"),
        (tmp_path / "sound.mp4", "holds sound alone, no picture track"),
    ):
        with pytest.raises(ValueError, match=words) as error:
            Film(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)


def test_a_film_larger_than_the_limit_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = films.film(tmp_path / "a.mp4", [quarters()])
    monkeypatch.setenv("GENPERCEPT_MAX_PIXELS", "3000")
    with pytest.raises(ValueError, match=r"frames of 64 x 48 pixels, more than the limit of 3,000: raise --max-pixels"):
        Film(path)


def test_without_pyav_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(ImportError, match=r"films need PyAV: pip install 'genpercept\[video\]'"):
        video.av()


def test_a_film_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), Writer(tmp_path / "o.mp4", Fraction(25), Fraction(1, 25)) as out:
        out.write(quarters(), Fraction(0))
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_stills_are_frames_of_one_size(tmp_path: Path) -> None:
    for i, size in enumerate(((40, 30), (40, 30), (50, 30))):
        Image.new("L", size, 40 * i).save(tmp_path / f"{i}.png")
    names = [tmp_path / f"{i}.png" for i in range(3)]
    two = list(Stills(names[:2], Fraction(10)).frames())
    assert [frame.time for frame in two] == [0, Fraction(1, 10)]
    assert two[1].image.shape == (30, 40, 3) and two[1].image.max() == 40  # grey is three channels
    with pytest.raises(ValueError, match=r"2\.png: 50 x 30 pixels, but .*0\.png has 40 x 30: frames of one clip"):
        list(Stills(names).frames())
