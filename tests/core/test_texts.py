"""Lists, tables and logs out of text files: what is kept, and one line that names the file for what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from genpercept.core import texts


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / "list.txt"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_lists_have_the_lines_that_say_something(tmp_path: Path) -> None:
    path = written(tmp_path, "# heading\na b\r\n\n  # ü \n   \nlast")
    assert texts.read_lines(path) == ["# heading", "a b", "  # ü ", "last"]
    assert texts.read_lines(path, comment="#") == ["a b", "  # ü ", "last"]
    assert texts.read_numbered(path) == [(1, "# heading"), (2, "a b"), (4, "  # ü "), (6, "last")]


def test_encodings_are_as_asked_for(tmp_path: Path) -> None:
    marked = written(tmp_path, "\ufeffid,name\n1,ü\n")
    assert texts.read_numbered(marked, encoding="utf-8-sig")[0] == (1, "id,name")
    assert texts.read_csv(marked, encoding="utf-8-sig") == [{"id": "1", "name": "ü"}]
    latin = written(tmp_path, b"caf\xe9\n")
    assert texts.read_lines(latin, errors="replace") == ["caf\ufffd"]
    with pytest.raises(ValueError, match=r"list\.txt: cannot be read as a split list: 'utf-8' codec") as error:
        texts.read_lines(latin, " as a split list")
    assert "\n" not in str(error.value)


def test_tables_have_a_row_for_each_line_that_is_not_quoted(tmp_path: Path) -> None:
    path = written(tmp_path, 'image,caption\n\na.jpg,"two\nlines"\nb.jpg\n')
    assert texts.read_csv(path) == [{"image": "a.jpg", "caption": "two\nlines"}, {"image": "b.jpg", "caption": None}]


@pytest.mark.parametrize("reader", [texts.read_lines, texts.read_numbered, texts.read_csv])
def test_what_is_not_there_is_one_line(reader: object, tmp_path: Path) -> None:
    assert callable(reader)
    for path in (tmp_path / "gone.txt", tmp_path):
        with pytest.raises(ValueError, match=rf"{path.name}: cannot be read as a list: \[Errno"):
            reader(path, " as a list")


def test_no_table_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list\.txt: cannot be read: field larger than field limit"):
        texts.read_csv(written(tmp_path, "a\n" + "x" * 200_000))


def test_logs_do_without_what_a_kill_cut_short(tmp_path: Path) -> None:
    whole = '{"step": 1}\n{"step": 2, "name": "ü"}\n'.encode()
    assert texts.read_log(tmp_path / "gone") == []
    assert texts.read_log(written(tmp_path, whole)) == [{"step": 1}, {"step": 2, "name": "ü"}]
    assert texts.read_log(written(tmp_path, whole[:-4])) == [{"step": 1}]  # in the middle of the ü
    assert texts.read_log(written(tmp_path, whole + b"[1]\nnull\n")) == [{"step": 1}, {"step": 2, "name": "ü"}]


def test_values_are_tomls_or_text() -> None:
    given = {"1": 1, "1e-4": 1e-4, "true": True, "[1, 2]": [1, 2], '"a b"': "a b", " hazelnut ": "hazelnut", "": ""}
    assert {text: texts.toml_value(text) for text in given} == given


def test_messages_are_one_line() -> None:
    assert texts.one_line(ValueError("a\n  b")) == "a b" and texts.one_line(ValueError("abc"), 2) == "ab"
    assert texts.one_line(TimeoutError()) == "TimeoutError"
    assert texts.listed(["a", "b"]) == "a, b" and texts.listed(list("abcdef")) == "a, b, c, d and 2 more"
    assert texts.shown(Path("a b")) == "a b" and texts.shown(Path("a\nb")) == r"'a\nb'"
