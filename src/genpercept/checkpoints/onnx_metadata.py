"""What an ONNX file says beside its graph, found without reading the graph: `metadata_props` of its ModelProto.

The package onnx would read all weights for it, and takes a tenth of a second to import. A protobuf message is a row of fields,
each with a number, a kind and, where it is not a number itself, a length by which it can be passed over:
https://protobuf.dev/programming-guides/encoding, https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

_METADATA_PROPS, _KEY, _VALUE = 14, 1, 2  # numbers of fields
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # kinds
_FIXED = {_EIGHT: 8, _FOUR: 4}  # bytes
_MOST = 2**24  # bytes of an entry: ours have a few thousand


def read(path: Path) -> dict[str, str]:
    """The texts by their keys. ValueError for a file that ends in the middle or is no such message; OSError as opening does."""
    found = {}
    with path.open("rb") as stream:
        for number, length in _fields(stream, os.fstat(stream.fileno()).st_size):
            if number == _METADATA_PROPS:
                entry = dict(_texts(stream.read(length)))
                found[entry.get(_KEY, "")] = entry.get(_VALUE, "")
    return found


def _texts(message: bytes) -> Iterator[tuple[int, str]]:
    stream = BytesIO(message)
    for number, length in _fields(stream, len(message)):
        yield number, stream.read(length).decode()


def _fields(stream: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """Number and length of each field of bytes, at which the stream stands then; it goes on behind them."""
    while (at := stream.tell()) < end:
        number, kind = divmod(_varint(stream), 8)
        if kind == _VARINT:
            _varint(stream)
            continue
        if kind not in (_BYTES, *_FIXED) or not number:
            raise ValueError(f"byte {at} begins no field of a protobuf message")
        length = _FIXED.get(kind) or _varint(stream)
        behind = stream.tell() + length
        if behind > end:
            raise ValueError(f"its field at byte {at} has {length} bytes, the file ends before")
        if kind == _BYTES:
            if number == _METADATA_PROPS and length > _MOST:
                raise ValueError(f"its metadata at byte {at} has {length} bytes")
            yield number, length
        stream.seek(behind)


def _varint(stream: BinaryIO) -> int:
    value = shift = 0
    while byte := stream.read(1):
        value |= (byte[0] & 0x7F) << shift
        shift += 7
        if byte[0] < 0x80 and shift <= 70:
            return value
        if shift > 63:
            break
    raise ValueError(f"no number at byte {stream.tell()}")
