"""What the interface says of itself: descriptions and examples for OpenAPI."""

from __future__ import annotations

from typing import Any

from genpercept.imaging.write import FORMATS as _FORMATS

FORMATS = f"{', '.join(_FORMATS)} or json, as the task allows."

ABOUT = """Dense prediction of single images. Send an image to `/v1/predict/TASK`, get a picture or numbers at its own size:

    curl -F image=@photo.jpg http://127.0.0.1:8000/v1/predict/depth?format=color -o depth.png

`Accept` or `format` choose what comes back; every error is `{"error": "..."}`. No address is fetched, and nothing is kept."""

_BYTES: dict[str, Any] = {"type": "string", "format": "binary"}
_NAMES = (
    *(
        "model",
        "format",
        "processing_resolution",
        "steps",
        "ensemble_size",
        "seed",
        "flip_test",
        "fov",
        "threshold",
        "tiles",
        "overlap",
        "refine",
        "known",
    ),
)

REQUEST: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One image: its bytes, or a form with it as the part `image`; options may be further fields.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": _BYTES, **{name: {"type": "string"} for name in _NAMES}},
                },
            },
            "image/jpeg": {"schema": _BYTES},
            "image/png": {"schema": _BYTES},
            "application/octet-stream": {"schema": _BYTES},
        },
    }
}


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
MODELS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {"example": {"models": [_MODEL], "limits": _LIMITS}}}}
}
