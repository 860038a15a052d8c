"""Downloads: the files that `genpercept predict` would write, made when somebody asks for one."""

from __future__ import annotations

import mimetypes
import tempfile
from pathlib import Path
from urllib.parse import quote

from fastapi import FastAPI, Response
from fastapi.responses import PlainTextResponse

from genpercept.commands.app.store import Answer, Store
from genpercept.commands.serve import answers
from genpercept.imaging import write

# What a page calls a format; others by their name.
_WORDS = {
    "png": "PNG, 16 bits",
    "color": "Colours",
    "npy": "npy",
    "npz": "npz, all of it",
    "exr": "EXR",
    "ply": "Points (PLY)",
    "points": "Points (npy)",
    "mesh": "Mesh (PLY)",
    "glb": "Mesh (GLB)",
    "mask": "Mask",
    "cutout": "Cut-out",
    "overlay": "Overlay",
    "coco": "COCO JSON",
    answers.JSON: "JSON, what it is",
}
PATH = "files"


def offered(kind: str) -> dict[str, str]:
    """Format -> what to call it: all that hold the kind and whose package is installed, and the JSON that describes them."""
    names = sorted(answers.formats(kind), key=lambda name: name == answers.JSON)
    return {name: _WORDS.get(name, name) for name in names}


def links(answer: Answer, *, spatial: bool = False) -> str:
    """HTML: a link for each file, relative to the page, so that it works below any path of a proxy. spatial: of those alone
    that lie in space."""
    items = (
        f'<a href="{PATH}/{answer.token}/{name}" download>{words}</a>'
        for name, words in offered(answer.prediction.kind).items()
        if not spatial or (name in write.FORMATS and write.FORMATS[name].spatial)
    )
    return f'<p class="files">{"".join(items)}</p>'


def made(answer: Answer, name: str) -> tuple[str, bytes]:
    """(file name, content) of one format. ValueError for one that cannot hold it."""
    kind = answer.prediction.kind
    with tempfile.TemporaryDirectory() as folder:
        formats = write.default_formats(kind) if name == answers.JSON else (name,)
        target = Path(folder) / f"{answer.stem}.png"
        image, photo = answer.photograph.image, answer.photograph.stem
        paths = answer.prediction.save(target, formats, image=image, name=photo)
        path = paths[-1] if name == answers.JSON else paths[0]
        return path.name, path.read_bytes()


def serve(app: FastAPI, store: Store) -> None:
    """Adds the route of the links. An answer that is forgotten is 404, in one line."""

    @app.get(f"/{PATH}/{{token}}/{{name}}", include_in_schema=False)
    def file(token: str, name: str) -> Response:
        answer = store.by_token(token)
        if answer is None:
            return PlainTextResponse("This answer is no longer kept: press Predict again.\n", 404)
        try:
            filename, content = made(answer, name)
        except ValueError as error:
            return PlainTextResponse(f"{error}\n", 404)
        kind = mimetypes.guess_type(filename)[0] or "application/octet-stream"
        where = f"attachment; filename*=UTF-8''{quote(filename)}"
        return Response(content, media_type=kind, headers={"Content-Disposition": where, "Cache-Control": "no-store"})
