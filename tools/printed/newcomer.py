"""What somebody has who has just installed it: a folder with photographs, and the program, out of a checkout or of a wheel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

_SHARED = ("OMP_NUM_THREADS", "LANG", "LC_ALL", "TMPDIR", "PIP_INDEX_URL", "SSL_CERT_FILE")  # of our environment


@dataclass(frozen=True)
class Machine:
    """bin: where `genpercept` and `python` are found first. beside: a checkout whose folders lie around the reader, or none."""

    kind: str
    bin: Path
    beside: Path | None
    work: Path

    def environment(self) -> dict[str, str]:
        """No network, no display, no folder of anybody's but the work's."""
        shared = {name: os.environ[name] for name in _SHARED if name in os.environ}
        home = self.work / "home"
        home.mkdir(parents=True, exist_ok=True)
        return shared | {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin",
            "HOME": str(home),
            "HF_HUB_OFFLINE": "1",
            "GENPERCEPT_CACHE": str(self.work / "cache"),
            "NUMBA_CACHE_DIR": str(self.work / "numba"),
            "COLUMNS": "120",
        }

    def folder(self, page: str) -> Path:
        """A page's own: photographs, and, beside a checkout, what that has."""
        place = self.work / "pages" / page.replace("/", "_")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        if self.beside is not None:
            for path in self.beside.iterdir():
                if path.name not in (".git", ".venv", "demo", "runs", "results"):
                    (place / path.name).symlink_to(path)
        _photographs(place)
        return place


def checkout(source: Path, work: Path) -> Machine:
    """The code of a checkout, with the packages of this interpreter."""
    python = f'PYTHONPATH="{source / "src"}" exec "{sys.executable}"'
    return Machine("checkout", _programs(work, f"{python} -m genpercept", python), source, work)


def wheel(source: Path, work: Path, bare: bool) -> Machine:
    """A wheel of the checkout in an environment of its own.

    bare: with what it requires and nothing else, from the package index; else with all packages of this interpreter.
    """
    built = work / "dist"
    _quiet("build", "--wheel", "--no-isolation", "--outdir", str(built), str(source))
    (file,) = built.glob("*.whl")
    venv = work / "venv"
    subprocess.run(
        [sys.executable, "-m", "venv", "--clear", *([] if bare else ["--without-pip"]), str(venv)], check=True
    )
    if bare:
        words = ["install", "--quiet", "--disable-pip-version-check", "-c", str(source / "constraints.txt"), str(file)]
        subprocess.run([str(venv / "bin" / "python"), "-m", "pip", *words], check=True, capture_output=True)
    else:
        # beside the wheel's own packages, those of this interpreter: their .pth files, an editable checkout's, are not read
        site = next((venv / "lib").glob("python*/site-packages"))
        (site / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        python = str(venv / "bin" / "python")
        _quiet("pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", str(file))
    found = _programs(work, f'exec "{venv}/bin/genpercept"', f'exec "{venv}/bin/python"')
    return Machine("bare wheel" if bare else "wheel", found, None, work)


def _programs(work: Path, genpercept: str, python: str) -> Path:
    """Scripts that start them; what is in $MORE comes behind a command's own words, to shorten it."""
    folder = work / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, start in (("genpercept", genpercept), ("python", python), ("python3", python)):
        more = " $MORE" if name == "genpercept" else ""
        (folder / name).write_text(f'#!/bin/sh\nset -f\n{start} "$@"{more}\n')
        (folder / name).chmod(0o755)
    return folder


def _quiet(*words: str) -> None:
    done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"python -m {' '.join(words)}:\n{done.stdout}{done.stderr}")


def _photographs(place: Path) -> None:
    """The free photographs of the documentation: photos/, and one beside it."""
    from sklearn.datasets import load_sample_image

    (place / "photos").mkdir()
    for name in ("china", "flower"):
        Image.fromarray(load_sample_image(f"{name}.jpg")).save(place / "photos" / f"{name}.jpg", quality=95)
    shutil.copyfile(place / "photos" / "china.jpg", place / "photo.jpg")
