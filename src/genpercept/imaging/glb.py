"""A mesh as trimesh's, and as a GLB file (binary glTF 2.0) with the photograph on it. Needs trimesh (extra `mesh`)."""

from __future__ import annotations

import io
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from genpercept.imaging.camera import Camera
from genpercept.imaging.mesh import Mesh
from genpercept.imaging.ply import AXES

if TYPE_CHECKING:
    import trimesh

_LARGEST = 4096  # pixels of a texture's longer edge: what every graphics card takes
_QUALITY = 90  # of JPEG


def to_trimesh(mesh: Mesh, image: np.ndarray, words: str, camera: Camera) -> trimesh.Trimesh:
    """With normals, and the photograph (H, W, 3) uint8 as its texture; `metadata` says what its lengths are.

    ValueError where trimesh is not installed.
    """
    _require()
    found = _textured(mesh, _texture(image))
    found.metadata.update(_told(words, camera))
    return found


def glb_bytes(mesh: Mesh, image: np.ndarray, words: str, camera: Camera) -> bytes:
    """The mesh with its texture as JPEG; `asset.extras` says what its lengths are, and which camera was taken.

    ValueError where trimesh is not installed.
    """
    _require()
    texture = _texture(image)
    found = _textured(mesh, Image.new("RGB", (1, 1)))  # whose place the JPEG takes

    def embed(buffers: Any, tree: dict[str, Any]) -> None:
        jpeg = io.BytesIO()
        texture.save(jpeg, "JPEG", quality=_QUALITY)
        image = tree["images"][0]
        key = list(buffers)[image["bufferView"]]
        buffers[key] = jpeg.getvalue() + b"\0" * (-jpeg.tell() % 4)
        image["mimeType"] = "image/jpeg"

    def tell(tree: dict[str, Any]) -> None:
        from genpercept.core.version import __version__

        tree["asset"] |= {"generator": f"genpercept {__version__}", "extras": _told(words, camera)}
        for material in tree["materials"]:  # a photograph has its light in it
            material["extensions"] = {"KHR_materials_unlit": {}}
        tree["extensionsUsed"] = ["KHR_materials_unlit"]

    from trimesh.exchange.gltf import export_glb

    return export_glb(found.scene(), include_normals=True, buffer_postprocessor=embed, tree_postprocessor=tell)


def _textured(mesh: Mesh, texture: Image.Image) -> trimesh.Trimesh:
    import trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    height, width = mesh.size
    # trimesh counts v from the bottom, as OpenGL does, and turns it when it writes glTF, which counts from the top
    uv = (mesh.places + 0.5) / (width, height) * (1, -1) + (0, 1)
    material = PBRMaterial(baseColorTexture=texture, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True)
    return trimesh.Trimesh(
        mesh.vertices,
        mesh.faces,
        vertex_normals=mesh.normals,
        visual=TextureVisuals(uv=uv, material=material),
        process=False,
    )


def _told(words: str, camera: Camera) -> dict[str, Any]:
    return {"lengths": words, "camera": camera.to_meta(), "axes": AXES}


def _texture(image: np.ndarray) -> Image.Image:
    picture = Image.fromarray(image)
    picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.LANCZOS)
    return picture


def _require() -> None:
    if find_spec("trimesh") is None:
        raise ValueError("textured meshes need trimesh: pip install 'genpercept[mesh]', or choose format mesh (PLY)")
