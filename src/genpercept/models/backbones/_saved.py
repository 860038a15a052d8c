"""Subclasses of diffusers' models that add a method are saved as what they are to diffusers: the parent's class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genpercept.checkpoints.parts import write_config
from genpercept.core.files import read_json


class SavedAsParent:
    """Mixed in before a diffusers model: config.json names `parent_name`, so that plain diffusers loads the folder."""

    parent_name: str

    def save_config(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> None:
        base: Any = super()
        base.save_config(save_directory, push_to_hub=push_to_hub, **kwargs)
        path = Path(save_directory) / "config.json"
        config = read_json(path) | {"_class_name": self.parent_name}
        write_config(path, config, sort_keys=True)
