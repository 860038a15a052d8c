"""Tables on the terminal, and where there is none."""

from __future__ import annotations

import io
import re
import sys

import pytest

from genpercept.commands import terminal

LONG = "runs/" + "model/" * 60 + "[bold]last[/bold]"
ROWS = [[LONG, "0.12345678901234567890", "δ1 ↑"], ["b", "1", "x"]]


def shown(rows: list[list[str]], width: int | None) -> str:
    terminal.show(
        terminal.table(("name", "figure", "word"), rows, words=(0, 2), title="[red]Title"), "end", width=width
    )
    return sys.stdout.getvalue()  # type: ignore[attr-defined]


def test_in_a_pipe_nothing_is_cut_broken_or_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = shown(ROWS, None).splitlines()
    assert lines[0] == "[red]Title" and lines[-2:] == ["", "end"]
    head, rule, first, second = lines[1:-2]
    assert head.split() == ["name", "figure", "word"] and set(rule) == {"─"}
    assert first.split() == [LONG, "0.12345678901234567890", "δ1", "↑"] and second.split() == ["b", "1", "x"]
    assert first.index("0.1234") + 22 == second.index(" 1 ") + 2  # figures end in one column
    assert "\x1b" not in "".join(lines) and all(line == line.rstrip() for line in lines)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [30, 60, 200])
def test_a_narrow_terminal_breaks_cells_and_loses_no_letter(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    text = re.sub(r"\x1b\[[0-9;]*m", "", shown(ROWS[:1], width))
    assert max(map(len, text.splitlines())) <= max(width, 16 + 3 + 22 + 3 + 4)
    assert "0.12345678901234567890" in text  # figures stay whole
    letters = sorted("".join(text.split()))
    expected = ["[red]Title", "name", "figure", "word", "end", LONG, *ROWS[0][1:]]
    assert [c for c in letters if c != "─"] == sorted("".join("".join(expected).split()))


def test_names_and_values_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.show(terminal.pairs([("model", LONG), ("a name longer than ten", "b"), ("c", "[1, 2]")]))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == f"model                   {LONG}" and third == "c                       [1, 2]"
    assert second == "a name longer than ten  b"
