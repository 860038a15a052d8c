"""Object detectors of transformers (YOLOS by default; DETR, RT-DETR and their kin by name) as a finder of people.

Images are prepared here and not by transformers' image processors, most of which want torchvision.
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genpercept.checkpoints import budget, regular, schema
from genpercept.checkpoints.parts import read_json, tensor_shapes
from genpercept.checkpoints.weights import weight_files
from genpercept.core.texts import one_line
from genpercept.core.values import resize

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which these models are trained with
_SHORT, _LONG = 800, 1333  # pixels: the shorter edge, unless the longer would exceed its limit


class PeopleDetector:
    """A transformers detection model that has a class "person"."""

    def __init__(self, model: Any, threshold: float) -> None:
        labels = {str(name).lower(): int(i) for i, name in model.config.id2label.items()}
        if "person" not in labels:
            raise ValueError(f"detector {model.config._name_or_path!r}: has no class 'person'; use one trained on COCO")
        self.model, self.person, self.threshold = model.eval(), labels["person"], threshold

    @torch.inference_mode()
    def __call__(self, image: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8, or float in [0, 1] -> (N, 5) x, y, width, height in pixels, score; best first."""
        h, w = image.shape[:2]
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].float()
        x = x / 255 if image.dtype == np.uint8 else x
        scale = min(_SHORT / min(h, w), _LONG / max(h, w))
        x = resize(x, (max(1, round(h * scale)), max(1, round(w * scale))))
        x = (x - torch.tensor(_MEAN).view(1, 3, 1, 1)) / torch.tensor(_STD).view(1, 3, 1, 1)
        out = self.model(pixel_values=x.to(self.model.device, self.model.dtype))
        scores = out.logits[0].float().softmax(-1)[:, self.person].cpu().numpy()
        cx, cy, bw, bh = out.pred_boxes[0].float().cpu().numpy().T
        boxes = np.stack([(cx - bw / 2) * w, (cy - bh / 2) * h, bw * w, bh * h, scores], 1).astype(np.float32)
        boxes = boxes[(scores >= self.threshold) & (bw > 0) & (bh > 0)]
        return boxes[np.argsort(-boxes[:, 4], kind="stable")]


def _checked(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights in a detector's folder. ValueError for one that transformers should not read."""
    regular.check_folder(folder, regular.TOKENIZER)
    config = read_json(folder / "config.json")
    for key, value in config.items():
        if key in ("num_labels", "num_hidden_layers", "num_attention_heads") and value is not None:
            schema.check(folder / "config.json", key, value, int)
        if value is not None and (key.endswith("attn_implementation") or key == "quantization_config"):
            raise ValueError(f"{folder / 'config.json'}: {key} chooses code to run: leave it out")
    return {name: shape for path in weight_files(folder) for name, shape in tensor_shapes(path).items()}


class Yolos:
    name = "yolos"
    model = "hustvl/yolos-small"

    def load(self, model: str | None = None, device: str = "cpu", threshold: float = 0.5) -> PeopleDetector:
        from transformers import AutoModelForObjectDetection

        name = model or self.model
        folder = Path(name).expanduser()
        try:
            stored = _checked(folder) if folder.is_dir() else None
            with budget.of(stored) if stored else nullcontext():
                source = str(folder) if stored else name
                loaded = AutoModelForObjectDetection.from_pretrained(source, trust_remote_code=False)
        except Exception as error:  # noqa: BLE001  # transformers has exceptions of its own, and no common one
            reason = one_line(error, 120)
            raise ValueError(
                f"detector {name!r}: {reason}; give a folder or hub id of a transformers detector, or --boxes"
            ) from None
        return PeopleDetector(loaded.to(device), threshold)


PLUGIN = Yolos()
