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


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    marked = written(tmp_path, "\ufeffid,name\n1,ü\n")
    assert texts.read_numbered(marked)[0] == (1, "id,name")
    assert texts.read_csv(marked) == [{"id": "1", "name": "ü"}]
    assert texts.read_toml(written(tmp_path, "\ufeffa = 1\r\nb = 2\rc = 3\n")) == {"a": 1, "b": 2, "c": 3}
    assert texts.read_json(written(tmp_path, '\ufeff{"a": 1}')) == {"a": 1}
    assert texts.read_log(written(tmp_path, '\ufeff{"a": 1}\n')) == [{"a": 1}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_editors_end_them_and_nowhere_else(end: str, tmp_path: Path) -> None:
    names = ["a\u2028b", "c\u2029d", "e\x85f", "g\x0ch", "i\x0bj", "k\x1cl"]  # all of which str.splitlines splits
    path = written(tmp_path, end.join([names[0], "", *names[1:]]))
    assert texts.read_lines(path) == names
    assert [number for number, _ in texts.read_numbered(path)] == [1, 3, 4, 5, 6, 7]
    rows = texts.read_table(written(tmp_path, end.join(["image", *names])))
    assert rows == [(number, {"image": name}) for number, name in enumerate(names, 2)]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"caf\xe9\n", "line 1, column 4: byte 0xe9 is not UTF-8; save it as UTF-8"),
        ("ü\r\nab".encode() + b"\xff", "line 2, column 3: byte 0xff is not UTF-8"),
        ("a\n".encode("utf-16"), "UTF-16, not UTF-8; save it as UTF-8"),
        (b"\xfe\xff" + "a\n".encode("utf-16-be"), "UTF-16, not UTF-8"),
        ("a\n".encode("utf-32"), "UTF-32, not UTF-8"),
        ("a\nb".encode("utf-16-le"), "line 1: a null character: UTF-16, or no text"),
    ],
)
def test_other_encodings_are_said(content: bytes, says: str, tmp_path: Path) -> None:
    for read in (texts.read_lines, texts.read_csv, texts.read_toml, texts.read_json):
        with pytest.raises(ValueError) as error:
            read(written(tmp_path, content), " as a split list")
        assert f"list.txt: cannot be read as a split list: {says}" in str(error.value)
        assert "\n" not in str(error.value)
    latin = written(tmp_path, b"caf\xe9\n")
    assert texts.read_lines(latin, errors="replace") == ["caf\ufffd"]


def test_tables_have_a_row_for_each_line_that_is_not_quoted(tmp_path: Path) -> None:
    path = written(tmp_path, 'image,caption\n\na.jpg,"two\nlines"\nb.jpg\n')
    assert texts.read_table(path) == [
        (3, {"image": "a.jpg", "caption": "two\nlines"}),
        (5, {"image": "b.jpg", "caption": ""}),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "image,depth\na b.jpg,d.png\n",
        "image;depth\na b.jpg;d.png",
        "image\tdepth\r\na b.jpg\td.png\r\n\t\r\n",
        " image , depth \n  a b.jpg ,\td.png \n , \n\n",
        '"image","depth"\n"a b.jpg","d.png"\n',
        'image; "depth"\na b.jpg; "d.png"\n',
        "image,depth,\na b.jpg,d.png,\n,,\n",
        "\n\nimage,depth\na b.jpg,d.png,,,\n",
    ],
)
def test_tables_are_read_as_programs_write_them(text: str, tmp_path: Path) -> None:
    assert texts.read_csv(written(tmp_path, text)) == [{"image": "a b.jpg", "depth": "d.png"}]


def test_a_separator_in_quotes_is_a_part_of_the_cell(tmp_path: Path) -> None:
    path = written(tmp_path, '"image";caption\na.jpg;"one; two, ""three"""\n')
    assert texts.read_csv(path) == [{"image": "a.jpg", "caption": 'one; two, "three"'}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,caption\na.jpg,one, two\n", "line 2, column 3: 'two' has no name in the first line"),
        ("image,,\n\na.jpg,x,\n", "line 3, column 2: 'x' has no name"),
        ("image,depth,image\n", "line 1, column 3: a second column 'image'"),
    ],
)
def test_a_wrong_table_says_line_and_column(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=says):
        texts.read_csv(written(tmp_path, text))


def test_wrong_toml_and_json_say_line_and_column(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"list\.txt: not a TOML file: .*line 2, column 5"):
        texts.read_toml(written(tmp_path, "a = 1\r\nb = \r\n"))
    with pytest.raises(ValueError, match=r"list\.txt: not JSON: .*\(at line 2, column 1\)"):
        texts.read_json(written(tmp_path, '{"a": 1,\r}'))
    with pytest.raises(ValueError, match=r"not JSON: nested too deeply"):
        texts.read_json(written(tmp_path, "[" * 200_000))


def test_paths_are_written_with_either_slash() -> None:
    assert texts.slashes(" .\\images\\a b.jpg\t") == texts.slashes("./images/a b.jpg") == "images/a b.jpg"


@pytest.mark.parametrize("reader", [texts.read_lines, texts.read_numbered, texts.read_csv])
def test_what_is_not_there_is_one_line(reader: object, tmp_path: Path) -> None:
    assert callable(reader)
    for path in (tmp_path / "gone.txt", tmp_path):
        with pytest.raises(ValueError, match=rf"{path.name}: cannot be read as a list: (No such file|Is a dir)"):
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


def test_the_time_that_is_left() -> None:
    assert texts.time_left(1, 4, 33.2) == "1 min 40 s left"  # 99.6 s
    assert texts.time_left(2, 4, 59.6) == "1 min 00 s left"
    assert texts.time_left(0, 4, 30.0) == ""  # no rate yet
