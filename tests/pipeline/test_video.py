"""Clips: frames of a shot on one scale and shift, cuts, smoothing, and what lies in memory and on disk meanwhile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

import genpercept
from genpercept.imaging.prediction import Prediction
from genpercept.imaging.video import Damaged, Frame
from genpercept.pipeline.video import answers, motion
from genpercept.pipeline.video.ahead import ahead
from genpercept.pipeline.video.align import Line, fit
from genpercept.pipeline.video.answers import Answers
from genpercept.pipeline.video.motion import Flow, Look
from genpercept.pipeline.video.sources import Images, by_number, clip_of
from genpercept.pipeline.video.stream import Grown, How, Video, shared_range
from tests.support import films

SIZE = (144, 192)
RATE = Fraction(25)


def smooth_map(seed: int, size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 in [0, 1]."""
    return films.textured(seed, size, 60)[..., 0].astype(np.float32) / 255


def panned(count: int, seed: int = 0, step: int = 4) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames of a camera that turns, and their true values."""
    large = (SIZE[0], SIZE[1] + step * count)
    frames = films.panned(films.textured(seed, large), count, SIZE, step)
    return frames, films.panned(smooth_map(seed + 100, large), count, SIZE, step)


def network(values: Sequence[np.ndarray], kind: str = "depth_affine") -> Callable[[list[np.ndarray]], list[Prediction]]:
    """One that says these, one after another."""
    left = iter(values)
    return lambda images: [Prediction(next(left), kind) for _ in images]


def lines(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scales and shifts that keep [0, 1] within [0, 1]."""
    rng = np.random.default_rng(seed)
    scales = rng.uniform(0.5, 1, count)
    return scales, rng.uniform(0, 1 - scales)


# ---- scale and shift


@pytest.mark.parametrize("outliers", [0.0, 0.2])
def test_a_line_is_found_between_noisy_values_without_shrinking(outliers: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 1, 20_000)
    x, y = truth + 0.1 * rng.standard_normal(20_000), 0.7 * (truth + 0.1 * rng.standard_normal(20_000)) - 0.2
    wrong = rng.random(20_000) < outliers
    y[wrong] = rng.uniform(1, 3, wrong.sum())
    found = fit(x, y)
    assert found is not None and abs(found.scale - 0.7) < 0.02 and abs(found.shift + 0.2) < 0.02


def test_there_is_no_line_between_flat_or_opposed_values() -> None:
    x = np.linspace(0, 1, 1000)
    assert fit(x, np.zeros(1000)) is None and fit(x, -x) is None


def test_known_scales_and_shifts_are_taken_back_to_a_thousandth() -> None:
    frames, truth = panned(40)
    scales, shifts = lines(40)
    said = [s * t.astype(np.float64) + b for s, b, t in zip(scales, shifts, truth, strict=True)]
    clip = Video(Images(frames, RATE), network(said))
    found = list(clip)
    whole = np.array([p.meta["scale"] for p in found]) * scales
    moved = np.array([p.meta["scale"] for p in found]) * shifts + np.array([p.meta["shift"] for p in found])
    assert np.abs(whole / whole[0] - 1).max() < 1e-3 and np.abs(moved - moved[0]).max() < 1e-3
    for prediction, values in zip(found, truth, strict=True):
        assert np.abs(prediction.values - (whole[0] * values + moved[0])).max() < 1e-3
    report = clip.report
    assert report.shots == [0] and report.frames == 40
    assert report.before is not None and report.after is not None and report.after < 0.01 * report.before


def test_nothing_is_clipped_and_the_range_is_one_for_the_shot() -> None:
    """A camera that turns from what is near to what is far: each frame's own range is [0, 1], the shot's holds all."""
    count = 40
    frames, _ = panned(count, step=6)
    ramp = np.tile(np.linspace(0, 3, SIZE[1] + 6 * count, dtype=np.float32), (SIZE[0], 1))
    truth = films.panned(ramp, count, SIZE, 6)
    said = [(t - t.min()) / (t.max() - t.min()) for t in truth]
    found = [p.values for p in Video(Images(frames, RATE), network(said))]
    assert found[0].min() < 0.01 and found[-1].max() > 0.99 and found[0].max() < 0.5 < found[-1].min()
    joined = np.concatenate([f.ravel() for f in found]), np.concatenate([t.ravel() for t in truth])
    assert np.corrcoef(*joined)[0, 1] > 0.9999


def test_one_frame_is_what_its_image_alone_would_be() -> None:
    (frame,), (truth,) = panned(1)
    (found,) = Video(Images([frame], RATE), network([truth * 0.7 + 0.1]))
    assert np.abs(found.values - (truth * 0.7 + 0.1)).max() < 1e-5
    assert (found.meta["scale"], found.meta["shift"], found.meta["shot"], found.meta["time"]) == (1, 0, 0, 0)


def test_frames_alike_or_flat_are_left_as_they_are() -> None:
    for frame in (np.zeros((20, 30, 3), np.uint8), films.textured(0, (9, 7))):  # smaller than flow can do, too
        values = np.full(frame.shape[:2], 0.25, np.float32)
        found = list(Video(Images([frame] * 4, RATE), network([values] * 4), How(0.5)))
        assert all(np.abs(p.values - 0.25).max() < 1e-5 and p.meta["scale"] == 1 for p in found)


def test_pixels_that_are_not_valid_neither_count_nor_spread() -> None:
    frames, truth = panned(12)
    scales, shifts = lines(12)

    def said() -> Iterator[Prediction]:
        for s, b, t in zip(scales, shifts, truth, strict=True):
            values, valid = (s * t + b).astype(np.float32), np.ones(SIZE, bool)
            values[:60], valid[:60] = np.nan, False
            yield Prediction(values, "depth_affine", valid)

    left = said()
    found = list(Video(Images(frames, RATE), lambda images: [next(left) for _ in images], How(0.6)))
    whole = np.array([p.meta["scale"] for p in found]) * scales
    assert np.abs(whole / whole[0] - 1).max() < 1e-3
    for prediction, values in zip(found, truth, strict=True):
        assert prediction.valid is not None and not prediction.valid[:60].any()
        line = Line(whole[0], found[0].meta["scale"] * shifts[0] + found[0].meta["shift"])
        assert np.abs(prediction.values - line(values))[62:].max() < 5e-3


def test_a_range_of_lines_and_one_that_grows() -> None:
    assert shared_range([Line(1, 0), Line(0.5, 0.25)]) == Line(1, 0)
    shared = shared_range([Line(1, 0), Line(2, -1), Line(1, 1)])
    assert (shared(np.array(-1.0)), shared(np.array(2.0))) == pytest.approx((0, 1), abs=1e-6)
    grown = Grown()
    assert grown.add(Line(1, 0)) == Line(1, 0)
    assert grown.add(Line(1, 0.5)).scale == pytest.approx(1 / 1.02)  # by a fiftieth
    last = [grown.add(Line(1, 0.5)) for _ in range(60)][-1]
    assert last(np.array(1.5)) == pytest.approx(1) and last == grown.add(Line(1, 0))  # and never shrinks


# ---- cuts


def test_cuts_are_found_at_their_frames_and_nowhere_else() -> None:
    parts = [panned(7, seed, step) for seed, step in ((0, 4), (1, 12), (2, 0))]
    frames = [frame for images, _ in parts for frame in images]
    scales, shifts = lines(21)
    truth = [t for _, values in parts for t in values]
    said = [s * t + b for s, b, t in zip(scales, shifts, truth, strict=True)]
    clip = Video(Images(frames, RATE), network(said))
    shots = [p.meta["shot"] for p in clip]
    assert shots == [0] * 7 + [1] * 7 + [2] * 7 and clip.report.shots == [0, 7, 14]


def test_neither_a_change_of_exposure_nor_a_thing_that_crosses_is_a_cut() -> None:
    frames, truth = panned(12)
    darker = [np.rint(frame * (0.5 if i > 5 else 1.0)).astype(np.uint8) for i, frame in enumerate(frames)]
    crossed = [frame.copy() for frame in frames]
    for i, frame in enumerate(crossed):
        frame[40:100, 12 * i : 12 * i + 50] = (250, 40, 40)
    for images in (darker, crossed):
        clip = Video(Images(images, RATE), network(truth))
        assert len(list(clip)) == 12 and clip.report.shots == [0]


def test_each_shot_begins_with_a_range_of_its_own() -> None:
    one, two = panned(5, 0), panned(5, 1)
    said = [0.5 * t for t in one[1]] + [*two[1]]
    found = list(Video(Images([*one[0], *two[0]], RATE), network(said), How(0.8)))
    assert np.abs(found[5].values - two[1][0]).max() < 1e-4  # nothing of the shot before


# ---- smoothing


def noisy(truth: Sequence[np.ndarray], deviation: float, seed: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    noise = [cv2.GaussianBlur(rng.standard_normal(t.shape).astype(np.float32), (0, 0), 4) for t in truth]
    return [np.clip(t + deviation * n / n.std(), 0, 1) for t, n in zip(truth, noise, strict=True)]


def test_smoothing_takes_noise_away_along_the_motion() -> None:
    frames, truth = panned(24)
    said = noisy(truth, 0.02)
    error = {}
    for weight in (0.0, 0.8):
        clip = Video(Images(frames, RATE), network(said, "alpha"), How(weight))
        found = list(clip)
        error[weight] = np.mean([np.abs(p.values - t).mean() for p, t in zip(found[6:], truth[6:], strict=True)])
        assert clip.report.after is not None and clip.report.before is not None
        assert clip.report.after < 0.4 * clip.report.before if weight else clip.report.after == clip.report.before
    assert error[0.8] < 0.6 * error[0.0]


def test_smoothing_does_not_smear_what_moves() -> None:
    """A square of another depth crosses: as sharp, and as far, as it was said to be."""
    frames, truth = [], []
    background, square = films.textured(0, SIZE), films.textured(9, (60, 60), 4)
    for i in range(16):
        image, values = background.copy(), np.full(SIZE, 0.2, np.float32)
        image[40:100, 6 * i + 10 : 6 * i + 70] = square
        values[40:100, 6 * i + 10 : 6 * i + 70] = 0.9
        frames.append(image)
        truth.append(values)
    found = list(Video(Images(frames, RATE), network(truth, "alpha"), How(0.8)))
    for prediction, values in zip(found, truth, strict=True):
        assert np.abs(prediction.values - values).mean() < 2e-3
        assert ((prediction.values > 0.55) != (values > 0.55)).mean() < 1e-3


def test_normals_stay_of_length_one_and_names_and_points_as_they_are() -> None:
    frames, truth = panned(6)
    normals = [np.stack([t - 0.5, 0 * t, np.sqrt(1 - (t - 0.5) ** 2)], -1) for t in truth]
    for prediction in Video(Images(frames, RATE), network(normals, "normals"), How(0.8)):
        assert np.abs(np.linalg.norm(prediction.values, axis=-1) - 1).max() < 1e-5
        assert "scale" not in prediction.meta
    ids = [(10 * t).astype(np.int32) for t in truth]
    for prediction, values in zip(Video(Images(frames, RATE), network(ids, "class_ids"), How(0.8)), ids, strict=True):
        assert np.array_equal(prediction.values, values)
    points = [np.zeros((i % 3, 17, 3), np.float32) for i in range(6)]
    clip = Video(Images(frames, RATE), network(points, "keypoints"), How(0.8))
    assert [len(p.values) for p in clip] == [0, 1, 2, 0, 1, 2] and clip.report.before is None


# ---- what lies where


def test_answers_on_disk_are_as_they_were_to_16_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(0, 1, (20, 30)).astype(np.float32)
    normals = rng.standard_normal((20, 30, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    kept, spread = depth > 0.1, depth.copy()
    for prediction, step in (
        (Prediction(depth, "depth_affine", kept, spread, meta={"a": [1, "b"]}), 1 / 131070),
        (Prediction(normals, "normals"), 3 / 65535),
        (Prediction(7 * depth - 3, "anomaly"), 7 / 131070),
        (Prediction(rng.integers(-1, 40, (20, 30)), "class_ids"), 0),
        (Prediction(rng.uniform(0, 99, (2, 17, 3)), "keypoints"), 0),
        (Prediction(np.concatenate([np.abs(normals)] * 2, -1), "intrinsics"), 1 / 131070),
    ):
        store = Answers(tmp_path)
        store.put(3, prediction)
        found = store.take(3)
        assert found.kind == prediction.kind and found.meta == prediction.meta
        assert np.abs(found.values.astype(float) - prediction.values).max() <= step * 1.01
        assert (found.valid is None) == (prediction.valid is None)
    store.put(4, found)
    (tmp_path / "000005.answer").write_bytes((tmp_path / "000005.answer").read_bytes()[:50])
    assert 4 in store
    with pytest.raises(KeyError):
        store.take(4)
    assert 4 not in store and 3 in store


def test_a_clip_that_is_resumed_asks_for_what_is_missing_and_gives_the_same(tmp_path: Path) -> None:
    frames, truth = panned(10)
    scales, shifts = lines(10)
    said = [s * t + b for s, b, t in zip(scales, shifts, truth, strict=True)]
    asked: list[int] = []

    def network_of(limit: int) -> Callable[[list[np.ndarray]], list[Prediction]]:
        def run(images: list[np.ndarray]) -> list[Prediction]:
            places = [
                next(i for i, f in enumerate(frames) if f is image or np.array_equal(f, image)) for image in images
            ]
            if max(places) >= limit:
                raise RuntimeError("killed")
            asked.extend(places)
            return [Prediction(said[i], "depth_affine") for i in places]

        return run

    whole = [p.values for p in Video(Images(frames, RATE), network_of(10), How(0.7, batch_size=3))]
    asked.clear()
    how = How(0.7, batch_size=3, answers=tmp_path)
    with pytest.raises(RuntimeError):
        list(Video(Images(frames, RATE), network_of(6), how))
    assert asked == [0, 1, 2, 3, 4, 5]
    again = [p.values for p in Video(Images(frames, RATE), network_of(10), how)]
    assert asked == list(range(10)) and all(map(np.array_equal, whole, again))


def test_answers_do_not_stay_longer_than_their_shot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    parts = [panned(8, seed) for seed in (0, 1, 2)]
    frames, truth = ([x for part in parts for x in part[i]] for i in (0, 1))
    most = 0
    for _ in Video(Images(frames, RATE), network(truth)):
        most = max(most, len(list(tmp_path.rglob("*.answer"))))
    assert most <= 8 + 6 and list(tmp_path.iterdir()) == []


def test_a_live_clip_gives_each_frame_at_once() -> None:
    frames, truth = panned(6)
    given: list[int] = []

    def camera() -> Iterator[Frame]:
        for i, frame in enumerate(frames):
            given.append(i)
            yield Frame(i, i / RATE, frame)

    clip = iter(Video(camera(), network(truth), How(live=True)))
    for i in range(6):
        assert next(clip).meta["frame"] == i and given[-1] == i


def test_what_comes_before_the_damage_comes_and_then_the_damage() -> None:
    frames, truth = panned(7)

    class Cut:
        rate, count, tick = RATE, None, 1 / RATE

        def frames(self) -> Iterator[Frame]:
            yield from (Frame(i, i / RATE, frame) for i, frame in enumerate(frames))
            raise Damaged("cut", 7)

    for kind in ("depth_affine", "alpha"):
        found: list[int] = []
        with pytest.raises(Damaged):
            for prediction in Video(Cut(), network(truth, kind), How(batch_size=4)):
                found.append(prediction.meta["frame"])
        assert found == list(range(7))


def test_frames_of_two_sizes_are_refused() -> None:
    frames = [np.zeros((20, 30, 3), np.uint8), np.zeros((30, 20, 3), np.uint8)]
    clip = Video(
        frames_of(frames), lambda images: [Prediction(np.zeros(i.shape[:2]), "alpha") for i in images], How(live=True)
    )
    with pytest.raises(ValueError, match="frame 2: of another size than those before"):
        list(clip)


def frames_of(images: Sequence[np.ndarray]) -> Iterator[Frame]:
    return (Frame(i, i / RATE, image) for i, image in enumerate(images))


def test_working_ahead_keeps_order_and_errors_and_ends_with_its_taker() -> None:
    assert list(ahead(range(100), 3)) == list(range(100))
    taken = ahead(itertools.count(), 2)
    assert [next(taken) for _ in range(3)] == [0, 1, 2]
    taken.close()  # an endless one does not hang

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        list(ahead(broken()))


# ---- motion


def test_motion_leads_back_to_where_a_pixel_was() -> None:
    large = films.textured(0, (144, 220))
    found = Flow().between(Look.at(large[:, :192]), Look.at(large[:, 6:198]))  # the camera has moved right by 6
    assert found.seen.mean() > 0.9 and np.quantile(np.abs(found.back[found.seen] - (6, 0)), 0.95) < 0.05
    assert not found.seen[:, -4:].any() and not found.is_cut  # what has come into sight was nowhere


def test_motion_is_found_on_a_small_copy() -> None:
    look = Look.at(np.zeros((1080, 1920, 3), np.uint8))
    assert look.rgb.shape == (216, motion.EDGE, 3)


# ---- what is a clip


def test_files_are_sorted_by_their_numbers() -> None:
    names = ["f10.png", "f2.png", "f1.png", "F3.png", "a.png"]
    assert [p.name for p in sorted(map(Path, names), key=by_number)] == [
        "a.png",
        "f1.png",
        "f2.png",
        "F3.png",
        "f10.png",
    ]


def test_what_is_no_clip_says_what_would_be(tmp_path: Path) -> None:
    for source, words in ((7, "type int"), (iter([]), "live=True"), ([], "empty list"), (tmp_path, "without images")):
        with pytest.raises(ValueError, match=words):
            clip_of(source)
    with pytest.raises(ValueError, match="frames a second"):
        clip_of([np.zeros((9, 9, 3))], rate=0)
    with pytest.raises(ValueError, match="smooth=1"):
        How(1.0)


# ---- the pipeline


def test_a_pipeline_predicts_a_film_a_folder_a_list_and_a_camera(tmp_path: Path) -> None:
    pipe = genpercept.load("mini/depth")
    frames, _ = panned(5)
    film = films.film(tmp_path / "a.mp4", frames)
    found = list(pipe.video(film, smooth=0.5, batch_size=2))
    assert [(p.meta["frame"], p.meta["time"], p.meta["shot"]) for p in found] == [(i, i / 25, 0) for i in range(5)]
    assert all(p.kind == "depth_affine" and p.size == SIZE and p.meta["task"] == "depth" for p in found)
    listed = list(pipe.video(frames, rate=10, smooth=0.5))
    assert [p.meta["time"] for p in listed] == [i / 10 for i in range(5)]
    assert np.abs(listed[4].values - found[4].values).mean() < 0.02  # the film is not quite its frames
    live = pipe.video(iter(frames), live=True)
    assert next(live).size == SIZE and len(list(live)) == 4
    alone = next(iter(pipe.video(frames[:1], align=False)))
    assert np.abs(alone.values - pipe(frames[0]).values).max() < 1e-5 and "scale" not in alone.meta


def test_values_are_packed_small() -> None:
    """A smooth map of 16 bits takes less than its 2 bytes a value."""
    large = smooth_map(0, (400, 600))
    packed = answers._planes(np.rint(large * 65535).astype(np.uint16))
    import zlib

    assert len(zlib.compress(packed.tobytes(), 1)) < 0.8 * 2 * large.size
    assert np.array_equal(answers._joined(packed), np.rint(large * 65535).astype(np.uint16))
