"""A request's body to the bytes of one image and the options beside it, in memory, within limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from genpercept.commands.serve.engine import Ticket
from genpercept.commands.serve.limits import MIB, Broken, Limits, NoImage, Refusal, TooLarge, TooSlow

_PARTS = 16  # of a form
_FIELD = 256  # bytes of an option
_LONG = {"known": 2**16}  # of those that may be longer, and may come as files
_STEP = MIB  # by which a body of unknown size takes room in the queue
_HOW = "send the image itself: its bytes as image/jpeg, image/png, ... or as the part 'image' of multipart/form-data"


class Departed(Exception):  # no error of anybody's
    """The client is gone: there is nobody to tell anything."""


def content_type(request: Request) -> tuple[str, dict[bytes, bytes]]:
    """The media type and its parameters. NoImage for one whose body would hold no image."""
    given = request.headers.get("content-type", "")
    name, parameters = parse_options_header(given)
    media = name.decode("latin-1").lower()
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise NoImage("Content-Encoding: send the image as it is, not compressed once more")
    if media == "multipart/form-data":
        if not parameters.get(b"boundary"):
            raise NoImage("multipart/form-data without a boundary: leave the header to your HTTP library")
    elif media and not media.startswith("image/") and media != "application/octet-stream":
        more = "; no address is fetched" if media == "application/json" else ""
        raise NoImage(f"Content-Type {media[:60]}: {_HOW}{more}")
    return media, parameters


def declared_size(request: Request, limits: Limits) -> int:
    """Of the body, 0 where the client does not say. TooLarge before a byte of it has been read."""
    given = request.headers.get("content-length", "0")
    size = int(given) if given.isascii() and given.isdigit() else 0
    if size > limits.body:
        raise TooLarge(f"an upload of {size:,} bytes: at most {limits.body:,} are taken")
    return size


async def read(request: Request, ticket: Ticket, limits: Limits) -> bytes:
    """The whole body. TooLarge as soon as it is too long, TooSlow where it does not come in time, Busy, Departed."""
    body = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise Departed
                body += message.get("body", b"")
                if len(body) > limits.body:
                    raise TooLarge(f"an upload of more than {limits.body:,} bytes")
                if len(body) > ticket.bytes:
                    ticket.hold(min(limits.body, len(body) + _STEP), more=True)
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        raise TooSlow(f"the upload was not there after {limits.body_seconds:g} seconds") from None


def image_of(body: bytes, media: str, parameters: Mapping[bytes, bytes]) -> tuple[bytes, dict[str, str]]:
    """The image's bytes, and the other fields of a form. The names of files are not even looked at."""
    if media != "multipart/form-data":
        return body, {}
    form = _Form()
    try:
        parser = MultipartParser(parameters[b"boundary"], form.callbacks())
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        if isinstance(error, Refusal):
            raise
        raise Broken("a damaged form: leave making it to your HTTP library") from None
    if len(form.images) != 1 or not form.whole:
        raise Broken(f"a form with {len(form.images)} images: send one, as its part 'image'")
    return form.images[0], form.fields


class _Form:
    """Takes a form apart: parts that have a file's name, or are called image or file, are images, all else are fields.

    `known` is a field, even as a file.
    """

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.fields: dict[str, str] = {}
        self.whole = False
        self._parts = 0

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._name,
            "on_header_value": self._value,
            "on_header_end": self._header,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > _PARTS:
            raise Broken(f"a form of more than {_PARTS} parts: send one image and its options")
        self._headers: dict[bytes, bytes] = {}
        self._header_name, self._header_value, self._body = bytearray(), bytearray(), bytearray()

    def _name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name, self._header_value = bytearray(), bytearray()

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._body += memoryview(data)[start:end]

    def _end(self) -> None:
        _, about = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = about.get(b"name", b"").decode("utf-8", "replace")
        if name not in _LONG and (b"filename" in about or name in ("image", "file")):
            self.images.append(bytes(self._body))
        elif len(self._body) > (most := _LONG.get(name, _FIELD)):
            raise Broken(f"the field {name[:60]!r} of the form is longer than {most} bytes")
        else:
            self.fields[name] = self._body.decode("utf-8", "replace")

    def _all(self) -> None:
        self.whole = True
