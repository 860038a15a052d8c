"""Printed commands: click takes each of README and docs; slowly, each is run as printed (tools/printed_commands.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tools.printed import pages
from tools.printed.judged import trial
from tools.printed.pages import Printed, calls, placeholder
from tools.printed.parsing import wrong

ALL = [one for path in pages.pages(ROOT) for one in pages.read(path, ROOT)]
PAGE = """# A page

    genpercept predict photos/ --out results   # a comment
    not a command

Text with `genpercept train R.toml --dry-run` in it.

<!-- needs: weights -->
```bash
genpercept predict photos/ --model a/b \\
    --out results | head && genpercept doctor > said.txt
for task in depth dis; do
    genpercept train mini/$task --out runs/$task
done
```

```console
$ genpercept doctor
all that predicting needs is there
```

```python
import genpercept
```
```toml mine.toml
stage = "finetune"
```
"""


def test_a_page_is_read(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    found = pages.read(tmp_path / "page.md", tmp_path)
    assert [(one.line, one.kind, one.needs) for one in found] == [
        *((3, "shell", ""), (6, "inline", ""), (10, "shell", "weights"), (12, "shell", "weights"), (18, "shell", "")),
        *((23, "python", ""), (26, "file", "")),
    ]
    assert calls(found[2].text) == [["predict", "photos/", "--model", "a/b", "--out", "results"], ["doctor"]]
    assert found[0].shown == "genpercept predict photos/ --out results"
    assert found[3].text.endswith("done") and found[4].transcript and found[6].title == "mine.toml"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("genpercept fit anomaly --root MVTEC --out fit", "MVTEC"),
        ("genpercept predict x --model GENPERCEPT/unet_depth_v2", "GENPERCEPT"),
        ("HF_HUB_OFFLINE=1 genpercept predict x --out results  # see README", ""),
        ("genpercept predict 'shots/*.jpg' --out results", ""),
        ("accelerate launch -m genpercept.training R.toml RUN [key=value ...]", "..."),
    ],
)
def test_placeholders(text: str, found: str) -> None:
    assert placeholder(text) == found


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("genpercept predict photos/ --out results", "run"),
        ("genpercept train mini/depth --out runs/depth", "short"),
        ("genpercept train mini/depth --dry-run", "run"),
        ("genpercept serve --port 8000", "serve"),
        ("genpercept predict photos/ --model prs-eth/marigold-depth-v1-1", "read"),
        ("genpercept predict photos/ --device cuda", "read"),
        ("genpercept evaluate --root /data/nyu", "read"),
        ("pip install genpercept", "read"),
        ("curl -s http://127.0.0.1:8000/healthz", "run"),
    ],
)
def test_how_far_a_command_is_tried(text: str, how: str) -> None:
    assert trial(Printed("README.md", 1, "shell", text), ROOT).how == how


def test_a_wrong_option_is_found() -> None:
    assert "--recusive" in wrong(["predict", "photos/", "--out", "x", "--recusive"], True)
    assert "nothing" in wrong(["nothing"], False) and wrong(["predict"], False) == ""


def test_every_printed_command_is_one_that_click_takes() -> None:
    """Those in a line of text may leave out what they must have."""
    found = {}
    for one in ALL:
        for words in calls(one.text) if one.kind in ("shell", "inline") and "for " not in one.text else []:
            if problem := wrong(words, one.kind == "shell"):
                found[f"{one.page}:{one.line}: {one.shown}"] = problem
    assert len(ALL) > 100 and found == {}


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", ["checkout", "wheel"])
def test_every_printed_command_runs(kind: str, tmp_path: Path) -> None:
    script = ROOT / "tools" / "printed_commands.py"
    words = ["--from", kind, "--work", str(tmp_path), "--json", str(tmp_path / "results.json")]
    subprocess.run([sys.executable, str(script), *words], cwd=ROOT, capture_output=True, check=False)
    results = json.loads((tmp_path / "results.json").read_text())
    assert len(results) > 100
    assert [f"{r['one']['page']}:{r['one']['line']}: {r['said']}" for r in results if r["state"] == "failed"] == []
