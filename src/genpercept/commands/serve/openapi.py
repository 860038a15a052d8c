"""What the interface says of itself: descriptions and examples for OpenAPI."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from genpercept.imaging.write import FORMATS as _FORMATS

FORMATS = f"{', '.join(_FORMATS)} or json, as the task allows."

ABOUT = """Dense prediction of single images. Send an image to `/v1/predict/TASK`, get a picture or numbers at its own size:

    curl -F image=@photo.jpg http://127.0.0.1:8000/v1/predict/depth?format=color -o depth.png

Send a film to `/v1/films/predict/TASK`: it becomes a job, which `/v1/films/ID` tells of.

`Accept` or `format` choose what comes back; every error is `{"error": "..."}`. No address is
fetched, and nothing is kept but films' results, for a while."""

FILM_FORMATS = f"mp4, the film; and for each of its frames {', '.join(_FORMATS)}, as the task allows. Default: mp4."

_BYTES: dict[str, Any] = {"type": "string", "format": "binary"}


def body(name: str, options: Iterable[str], media: Iterable[str]) -> dict[str, Any]:
    """Of a request with one image or film, as `name` says. options: further fields of the form. media: of the bytes alone."""
    properties = {name: _BYTES, **{option: {"type": "string"} for option in options}}
    form = {"schema": {"type": "object", "required": [name], "properties": properties}}
    about = f"One {name}: its bytes, or a form with it as the part `{name}`; options may be further fields."
    raw = {each: {"schema": _BYTES} for each in (*media, "application/octet-stream")}
    return {"requestBody": {"required": True, "description": about, "content": {"multipart/form-data": form, **raw}}}


def _error(about: str, line: str, **headers: Any) -> dict[str, Any]:
    schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    found: dict[str, Any] = {"description": about}
    found["content"] = {"application/json": {"schema": schema, "example": {"error": line}}}
    if headers:
        found["headers"] = {name.replace("_", "-"): {"schema": {"type": "integer"}} for name in headers}
    return found


_JSON = {
    "task": "depth",
    "model": "mini/depth",
    "kind": "depth_affine",
    "meaning": "depth up to scale and shift, 0 near, 1 far",
    "height": 512,
    "width": 512,
    "shape": [512, 512],
    "meta": {"steps": 1, "seed": None},
    "valid_fraction": 1.0,
    "minimum": 0.0,
    "maximum": 1.0,
    "mean": 0.41,
    "encoding": "value = pixel / 65535",
    "png": "iVBORw0KGgo...",
}

RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The prediction, at the image's own size.",
        "content": {
            "image/png": {"schema": _BYTES},
            "application/x-npz": {"schema": _BYTES},
            "application/x-npy": {"schema": _BYTES},
            "image/x-exr": {"schema": _BYTES},
            "application/json": {"schema": {"type": "object"}, "example": _JSON},
        },
    },
    400: _error("The image cannot be read.", "the image: a truncated JPEG; get or export it again"),
    401: _error("The server has an API key.", "an API key is needed: Authorization: Bearer KEY"),
    404: _error("No such task or model here.", "no model for the task 'dept' here: did you mean 'depth'?"),
    406: _error(
        "Not to be had in that format.", "format 'glb' is not to be had of normals: choose from png, color, json"
    ),
    408: _error("The upload took too long.", "the upload was not there after 30 seconds"),
    413: _error("Too many bytes or pixels.", "an upload of 60,000,000 bytes: at most 33,554,432 are taken"),
    415: _error("No body that holds an image.", "Content-Type application/json: send the image itself"),
    422: _error("Options that do not go.", "ensemble_size=50: must lie between 1 and 10"),
    429: _error("The queue is full.", "64 requests of 80 MiB are in hand: try again later", Retry_After=1),
    500: _error("A fault of the server.", "the model failed; the server's log says more"),
    503: _error("The server is loading or ending.", "the server is ending", Retry_After=1),
}

READY: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"status": "ready"}}}},
    503: _error("Not now.", "loading", Retry_After=1),
}

_MODEL = {
    "name": "mini/depth",
    "task": "depth",
    "kind": "depth_affine",
    "resolution": 96,
    "formats": ["png", "color", "npy", "npz", "json"],
    "stochastic": False,
    "sha256": "c09b336b...",
    "meaning": "depth up to scale and shift, 0 near, 1 far",
}
_LIMITS = {"bytes": 33554432, "pixels": 50000000, "processing_resolution": 1024, "ensemble_size": 10, "steps": 50}
_LIMITS |= {"film_bytes": 268435456, "film_pixels": 8294400, "film_frames": 3000}
MODELS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"models": [_MODEL], "limits": _LIMITS}}}}
}

# ---- films -----------------------------------------------------------------------------------------------------------


_ID = "S0mEiDtHaTNoBoDyGuEsSeS_"
_JOB = {
    "id": _ID,
    "state": "running",
    "task": "depth",
    "model": "mini/depth",
    "progress": 0.417,
    "frames": {"done": 5, "total": 12},
    "films_before": 0,
}
_OVER = {**_JOB, "state": "done", "progress": 1.0, "frames": {"done": 12, "total": 12}}
_OVER |= {"result": f"/v1/films/{_ID}/result", "formats": ["mp4", "json"], "kept_seconds": 3600}
_NONE = _error("No such film, or none any more.", "no such film here: it was removed, or its time is over")


def _job(about: str, example: dict[str, Any]) -> dict[str, Any]:
    return {"description": about, "content": {"application/json": {"schema": {"type": "object"}, "example": example}}}


FILM_SENT: dict[int | str, dict[str, Any]] = {
    202: _job("The job; its address is in Location.", {**_JOB, "state": "queued", "progress": 0.0})
    | {"headers": {"Location": {"schema": {"type": "string"}}}},
    **{status: RESPONSES[status] for status in (401, 404, 406, 408, 422, 503)},
    400: _error("The film cannot be read.", "the film: no film that can be read, or cut off; check the file"),
    413: _error("Too many bytes, pixels or frames.", "the film: 9,000 frames: at most 3,000 are taken"),
    415: _error("No body that holds a film.", "Content-Type application/json: send the film itself"),
    429: _error("The queue is full.", "8 films are in hand: try again later", Retry_After=1),
}
FILM_ASKED: dict[int | str, dict[str, Any]] = {200: _job("The job.", _OVER), 401: RESPONSES[401], 404: _NONE}
FILM_RESULT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The film of colours, the files of its frames, or what is known of it.",
        "content": {
            "video/mp4": {"schema": _BYTES},
            "application/zip": {"schema": _BYTES},
            "application/json": {"schema": {"type": "object"}},
        },
    },
    **{status: RESPONSES[status] for status in (401, 406, 429, 503)},
    404: _NONE,
    409: _error("There is no result, or none yet.", "the film is running: there is no result to fetch"),
}
FILM_DELETED: dict[int | str, dict[str, Any]] = {
    200: _job("It was waiting or running, and is cancelled.", {**_JOB, "state": "cancelled", "kept_seconds": 3600}),
    204: {"description": "It was over, and is removed."},
    401: RESPONSES[401],
    404: _NONE,
}
