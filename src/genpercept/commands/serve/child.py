"""A process that decodes other people's images and can do nothing else: little memory, little time, no files, no network.

    python -m genpercept.commands.serve.child FILE PIXELS BYTES SECONDS FILE_BYTES

FILE is where it puts an image, since the readers want a path: all that it writes anywhere.

Writes an empty line to stdout when it is ready. Then reads from stdin eight bytes that say how long an image is, and the image;
writes a line of JSON, {"shape": [H, W], "camera": what EXIF tells of it, or null} and the pixels (H, W, 3) uint8 after it, or
{"error": line, "large": whether it has too many pixels}; and so on until stdin ends. Damaged files can make a decoder crash,
hang or want all memory: it is this process then that goes, with one image.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from genpercept.commands.serve.inherited import allow, confine, own_streams
from genpercept.core.texts import one_line
from genpercept.imaging.pixels import TooManyPixels
from genpercept.imaging.read import read_photograph


def main(words: list[str]) -> None:
    path, (pixels, memory, seconds, largest) = Path(words[0]), map(int, words[1:])
    given, told = own_streams()
    source, sink = os.fdopen(given, "rb"), os.fdopen(told, "wb")
    warnings.simplefilter("ignore")
    Image.init()  # its plugins are files, which are read now or never
    with suppress(ImportError):
        import pillow_heif  # noqa: F401
    with path.open("w+b") as file:
        confine(memory, largest)
        sink.write(b"\n")
        sink.flush()
        while length := source.read(8):
            data = source.read(int.from_bytes(length, "big"))
            if len(data) < int.from_bytes(length, "big"):
                return
            allow(seconds)
            _answer(data, file, path, pixels, sink)


def _answer(data: bytes, file: BinaryIO, path: Path, pixels: int, sink: BinaryIO) -> None:
    try:
        file.seek(0)
        file.truncate()
        file.write(data)
        file.flush()
        image, camera = read_photograph(path, pixels)
    except (ValueError, OSError, MemoryError) as error:
        line = one_line(error, 300).replace(str(path), "the image")
        told = {"error": line, "large": isinstance(error, TooManyPixels)}
        sink.write(json.dumps(told).encode() + b"\n")
    else:
        told = {"shape": image.shape[:2], "camera": None if camera is None else camera.to_meta()}
        sink.write(json.dumps(told).encode() + b"\n")
        sink.write(image.data)
    sink.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
