"""A request's body to one image, in memory, or one film, on disk, and the options beside it, within limits of size and time."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from genpercept.commands.serve.engine import Ticket
from genpercept.commands.serve.film_jobs import Films, Job
from genpercept.commands.serve.limits import MIB, Broken, Limits, NoImage, Refusal, TooLarge, TooSlow

_FORM = "multipart/form-data"
_PARTS = 16  # of a form
_FIELD = 256  # bytes of an option
_LONG = {"known": 2**16}  # of those that may be longer, and may come as files
_STEP = MIB  # by which a body of unknown size takes room in the queue
_BLOCK = MIB  # of a film that is written at once


@dataclass(frozen=True)
class Kind:
    """What a route takes. parts: names of a form's part that holds it; media: how its own media types begin."""

    name: str
    parts: tuple[str, ...]
    media: str
    how: str


IMAGE = Kind("image", ("image", "file"), "image/", "its bytes as image/jpeg, image/png, ...")
FILM = Kind("film", ("film", "video", "file"), "video/", "its bytes as video/mp4, video/webm, ...")


class Departed(Exception):  # no error of anybody's
    """The client is gone: there is nobody to tell anything."""


def content_type(request: Request, kind: Kind = IMAGE) -> tuple[str, dict[bytes, bytes]]:
    """The media type and its parameters. NoImage for one whose body would hold nothing of `kind`."""
    given = request.headers.get("content-type", "")
    name, parameters = parse_options_header(given)
    media = name.decode("latin-1").lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise NoImage(f"Content-Encoding: send the {kind.name} as it is, not compressed once more")
    if media == _FORM:
        if not parameters.get(b"boundary"):
            raise NoImage("multipart/form-data without a boundary: leave the header to your HTTP library")
    elif media and not media.startswith(kind.media) and media != "application/octet-stream":
        more = "; no address is fetched" if media == "application/json" else ""
        how = f"send the {kind.name} itself: {kind.how} or as the part {kind.name!r} of multipart/form-data"
        raise NoImage(f"Content-Type {media[:60]}: {how}{more}")
    return media, parameters


def declared_size(request: Request, most: int) -> int:
    """Of the body, 0 where the client does not say. TooLarge, for more than `most`, before a byte of it has been read."""
    given = request.headers.get("content-length", "0")
    size = int(given) if given.isascii() and given.isdigit() else 0
    if size > most:
        raise TooLarge(f"an upload of {size:,} bytes: at most {most:,} are taken")
    return size


async def read(request: Request, ticket: Ticket, limits: Limits) -> bytes:
    """The whole body. TooLarge as soon as it is too long, TooSlow where it does not come in time, Busy, Departed."""
    body = bytearray()

    async def take(piece: bytes) -> None:
        nonlocal body
        body += piece
        if len(body) > ticket.bytes:
            ticket.hold(min(limits.body, len(body) + _STEP), more=True)

    await _arrived(request, limits.body, limits.body_seconds, take)
    return bytes(body)


async def store(
    request: Request, media: str, parameters: Mapping[bytes, bytes], job: Job, films: Films, limits: Limits
) -> dict[str, str]:
    """A film to `job.source`, as it comes, and the fields of its form. Refusals as `read` has them, and Broken."""
    block, written = bytearray(), 0

    async def take(piece: bytes) -> None:
        nonlocal block
        block += piece
        if len(block) >= _BLOCK:
            await write()

    async def write() -> None:
        nonlocal block, written
        written += len(block)
        films.hold(job, max(written, job.bytes))
        data, block = bytes(block), bytearray()
        await asyncio.to_thread(form.write, data)

    with job.source.open("wb") as file:
        form = _Reader(media, parameters, FILM, file)
        await _arrived(request, limits.film_body, limits.film_upload_seconds, take)
        await write()
        return form.finish()


async def _arrived(request: Request, most: int, seconds: float, take: Callable[[bytes], Awaitable[None]]) -> None:
    """Give `take` the body piece by piece."""
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Departed
                size += len(piece := message.get("body", b""))
                if size > most:
                    raise TooLarge(f"an upload of more than {most:,} bytes")
                await take(piece)
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        raise TooSlow(f"the upload was not there after {seconds:g} seconds") from None


def image_of(body: bytes, media: str, parameters: Mapping[bytes, bytes]) -> tuple[bytes, dict[str, str]]:
    """The image's bytes, and the other fields of a form. The names of files are not even looked at."""
    if media != _FORM:
        return body, {}
    image = io.BytesIO()
    form = _Reader(media, parameters, IMAGE, image)
    form.write(body)
    return image.getvalue(), form.finish()


class _Reader:
    """A body, written piece by piece: what it holds of `kind` goes to `into`, and `finish` has the fields of a form."""

    def __init__(self, media: str, parameters: Mapping[bytes, bytes], kind: Kind, into: IO[bytes]) -> None:
        self._into = into
        self._form = _Form(kind, into) if media == _FORM else None
        if self._form is not None:
            with _told():
                self._parser = MultipartParser(parameters[b"boundary"], self._form.callbacks())

    def write(self, data: bytes) -> None:
        if self._form is None:
            self._into.write(data)
            return
        with _told():
            self._parser.write(data)

    def finish(self) -> dict[str, str]:
        if self._form is None:
            return {}
        with _told():
            self._parser.finalize()
        self._form.check()
        return self._form.fields


@contextmanager
def _told() -> Iterator[None]:
    """Broken, in a line, for what is wrong with a form."""
    try:
        yield
    except (FormParserError, ValueError) as error:
        if isinstance(error, Refusal):
            raise
        raise Broken("a damaged form: leave making it to your HTTP library") from None


class _Form:
    """Takes a form apart: a part that has a file's name, or is called as `kind` says, goes to `into`; all else are fields.

    `known` is a field, even as a file.
    """

    def __init__(self, kind: Kind, into: IO[bytes]) -> None:
        self.fields: dict[str, str] = {}
        self._kind, self._into, self._found, self._whole, self._parts = kind, into, 0, False, 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._named,
            "on_header_value": self._value,
            "on_header_end": self._header,
            "on_headers_finished": self._headed,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def check(self) -> None:
        """Broken where there is not one of its kind."""
        if self._found != 1 or not self._whole:
            name = self._kind.name
            raise Broken(f"a form with {self._found} {name}s: send one, as its part {name!r}")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise Broken(f"a form of more than {_PARTS} parts: send one {self._kind.name} and its options")
        self._headers: dict[bytes, bytes] = {}
        self._header_name, self._header_value, self._field = bytearray(), bytearray(), bytearray()

    def _named(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def _headed(self) -> None:
        _, about = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._name = about.get(b"name", b"").decode("utf-8", "replace")
        self._wanted = self._name not in _LONG and (b"filename" in about or self._name in self._kind.parts)
        self._found += self._wanted

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._wanted:
            if self._found == 1:  # of a second one nothing is kept
                self._into.write(memoryview(data)[start:end])
            return
        self._field += memoryview(data)[start:end]
        if len(self._field) > (most := _LONG.get(self._name, _FIELD)):
            raise Broken(f"the field {self._name[:60]!r} of the form is longer than {most} bytes")

    def _end(self) -> None:
        if not self._wanted:
            self.fields[self._name] = self._field.decode("utf-8", "replace")

    def _all(self) -> None:
        self._whole = True
