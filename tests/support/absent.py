"""`python absent.py PACKAGES COMMAND...`: the command line where these packages, by comma, are not installed.

Nothing finds them, by import or by the metadata of distributions, as on a machine that lacks them.
"""

from __future__ import annotations

import importlib.metadata
import sys
from importlib.machinery import PathFinder
from typing import Any

DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image", "cv2": "opencv-python-headless"} | {
    "py_sod_metrics": "pysodmetrics",
    "pillow_heif": "pillow-heif",
    "prometheus_client": "prometheus-client",
}


def hide(names: list[str]) -> None:
    """From here on the packages are not there."""
    find, distribution = PathFinder.find_spec, importlib.metadata.distribution
    gone = {DISTRIBUTIONS.get(name, name).lower() for name in names}

    def find_spec(fullname: str, path: Any = None, target: Any = None) -> Any:
        return None if fullname.partition(".")[0] in names else find(fullname, path, target)

    def there(name: str) -> importlib.metadata.Distribution:
        if name.lower() in gone:
            raise importlib.metadata.PackageNotFoundError(name)
        return distribution(name)

    PathFinder.find_spec = find_spec  # type: ignore[method-assign]
    importlib.metadata.distribution = there
    importlib.metadata.version = lambda name: there(name).version


if __name__ == "__main__":
    hide(sys.argv[1].split(","))
    sys.argv = ["genpercept", *sys.argv[2:]]
    from genpercept.commands.cli import main

    main()
