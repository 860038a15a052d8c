"""The engine by itself: what shares a batch, what is dropped, and how it ends."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from genpercept.commands.serve.engine import Engine, ModelSpec
from genpercept.commands.serve.limits import Asked, Busy, Ending, Limits
from genpercept.imaging.prediction import Prediction


def encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


CAT = np.ascontiguousarray(data.chelsea()[::3, ::3])
PHOTO, TALL = encoded(CAT), encoded(np.ascontiguousarray(CAT[:, :40]))
Make = Callable[..., Engine]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Engine] = []

    def engine(**limits: Any) -> Engine:
        made.append(Engine([ModelSpec("dis", "mini/dis")], Limits(decoders=1, **limits), device="cpu"))
        made[-1].load()
        return made[-1]

    yield engine
    for each in made:
        each.close()


def test_images_that_wait_share_a_batch_with_their_like(make: Make) -> None:
    engine, sizes = make(), list[int]()
    engine.on_batch = lambda images, seconds: sizes.append(images)
    asked = [(PHOTO, Asked()), (TALL, Asked()), (PHOTO, Asked(processing_resolution=64))]

    async def all_() -> list[list[Prediction]]:
        each = [[engine.predict(image, "dis", how) for _ in range(5)] for image, how in asked]
        return [list(found) for found in await asyncio.gather(*(asyncio.gather(*group) for group in each))]

    groups = asyncio.run(all_())
    assert sum(sizes) == 15 and 1 < max(sizes) <= 8 and len(sizes) < 15
    for (image, how), group in zip(asked, groups, strict=True):
        alone = asyncio.run(engine.predict(image, "dis", how))
        assert all(np.abs(found.values - alone.values).max() < 1e-5 for found in group)
    assert (engine.in_hand, engine.bytes) == (0, 0)


def test_the_queue_counts_requests_and_bytes(make: Make) -> None:
    engine = make(queue=2, body=1000, queue_bytes=1000)
    with engine.admitted(600) as first:
        with pytest.raises(Busy) as busy, engine.admitted(600):
            pass
        assert int(busy.value.headers["Retry-After"]) >= 1
        with engine.admitted(400) as second:
            with pytest.raises(Busy), engine.admitted():
                pass
            with pytest.raises(Busy):
                second.hold(401, more=True)
            first.hold(500, more=True)
            second.hold(500, more=True)
            first.hold(5000)  # what has been decoded is there, whether there is room or not
    assert (engine.in_hand, engine.bytes) == (0, 0)


def test_what_is_cancelled_while_it_waits_is_not_computed(make: Make) -> None:
    engine = make()

    async def some() -> None:
        kept = asyncio.create_task(engine.predict(PHOTO, "dis", Asked(processing_resolution=256)))
        dropped = [asyncio.create_task(engine.predict(PHOTO, "dis")) for _ in range(8)]
        await asyncio.sleep(0.01)
        for task in dropped:
            task.cancel()
        assert (await kept).values.shape == CAT.shape[:2]
        assert all(task.cancelled() for task in (await asyncio.wait(dropped))[0])

    asyncio.run(some())
    assert engine.counts.departed == 8 and engine.counts.predicted == 1 and engine.in_hand == 0


def test_an_end_refuses_what_is_left_at_its_deadline(make: Make) -> None:
    engine = make()

    async def ended() -> list[object]:
        asking = [engine.predict(PHOTO, "dis", Asked(processing_resolution=1024, seed=n)) for n in range(12)]
        closing = asyncio.create_task(asyncio.to_thread(engine.close, 0.2))
        started = time.monotonic()
        found = list(await asyncio.gather(*asking, return_exceptions=True))
        assert time.monotonic() - started < 10
        await closing
        return found

    found = asyncio.run(ended())
    refused = [each for each in found if isinstance(each, Ending)]
    assert refused and all(isinstance(each, Ending | Prediction) for each in found)
    assert engine.decoders.processes == [] and engine.in_hand == 0
    with pytest.raises(Ending), engine.admitted():
        pass


def test_an_unknown_model_is_named_with_its_nearest(make: Make) -> None:
    with pytest.raises(ValueError, match="did you mean 'dis'"):
        asyncio.run(make().predict(PHOTO, "diss"))


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([], {}, "no model"),
        ([ModelSpec("a", "mini/dis"), ModelSpec("a", "mini/pose")], {}, "named twice"),
        ([ModelSpec("a", "mini/dis")], {"device": "cuda:0,cuda:1"}, "one device"),
        ([ModelSpec("a", "mini/dis")], {"dtype": "fp8"}, "fp8"),
    ],
)
def test_what_no_engine_could_do(models: list[ModelSpec], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine(models, **options)
