"""Files that only other machines run: each parses, and names what there is."""

from __future__ import annotations

import fnmatch
import re
from typing import Any

import pytest
import yaml

from tests.support.paths import ROOT

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def read(path: Any) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows(path: Any) -> None:
    jobs = read(path)["jobs"]
    for job in jobs.values():
        assert set([job["needs"]] if "needs" in job else []) <= set(jobs)
        for step in job["steps"]:
            assert ("uses" in step) != ("run" in step)
            assert set(re.findall(r"\bmake ([\w-]+)", step.get("run", ""))) <= TARGETS
    versions = [job["strategy"]["matrix"]["python"] for job in jobs.values() if "strategy" in job]
    assert versions == [["3.11", "3.12", "3.13"]]


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms(path: Any) -> None:
    form = read(path)
    assert form["name"] and form["description"]
    ids = [part["id"] for part in form["body"]]
    assert len(ids) == len(set(ids))
    assert all(part["attributes"]["label"] for part in form["body"])


def test_citation() -> None:
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["authors"] == [{"name": "GenPercept contributors"}]
    paper = citation["preferred-citation"]
    assert len(paper["authors"]) == 8
    assert all(author["family-names"] for author in paper["authors"])


def test_the_container_finds_what_it_copies_and_has_no_rights() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [name for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert copied
    for name in copied:
        assert (ROOT / name).exists()
        assert any(fnmatch.fnmatch(name, pattern) for pattern in let_in), name
    last = text.rpartition("\nFROM ")[2]
    assert last.index("\nUSER genpercept") < last.index("\nENTRYPOINT")
    assert "/healthz" in re.sub(r"\\\n", "", last).partition("HEALTHCHECK")[2].partition("\n")[0]


def test_what_runs_before_a_commit() -> None:
    hooks = [hook for repo in read(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    for hook in hooks:
        assert hook["entry"].startswith(".venv/bin/")
        assert all((ROOT / name).exists() for name in re.findall(r"tests/\S+\.py", hook["entry"]))
