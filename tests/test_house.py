"""The house: floors that no import climbs, no circle, names of tasks in their tables alone, nothing too big."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from importlib.abc import InspectLoader
from pathlib import Path
from typing import cast

import pytest

from genpercept.core.moved import MOVED, target
from tests.support.paths import ROOT

SOURCE = ROOT / "src" / "genpercept"

LAYERS = [
    ["core", "equations"],
    ["imaging", "world", "checkpoints"],
    ["models", "tasks", "data"],
    ["metrics", "pipeline"],
    ["training"],
    ["commands"],
    ["__main__"],
]
FLOOR = {room: floor for floor, rooms in enumerate(LAYERS, 1) for room in rooms}

# Where names of tasks, kinds and labels are at home.
AT_HOME = ("tasks/", "metrics/", "data/", "pipeline/families/", "core/labels.py", "imaging/kinds.py")


@cache
def modules() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = ["genpercept", *path.relative_to(SOURCE).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def named(node: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """Modules of ours that a node names: an import, wherever it stands, or a string such as "genpercept.training"."""
    if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "genpercept":
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in known else node.module
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name in known)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value and node.value in known:
        yield node.value


@cache
def imports() -> dict[tuple[str, str], int]:
    """(module, module that it names) -> line, for all modules; the package's own __init__ hands names on and does not count."""
    known, found = modules(), {}
    for module, path in known.items():
        if module in ("genpercept", "genpercept.core.moved"):  # both name modules of all floors for others to import
            continue
        for node in ast.walk(tree(path)):
            found |= {(module, other): getattr(node, "lineno", 0) for other in named(node, known) if other != module}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else "the package itself"


def test_the_contracts_have_these_floors() -> None:
    config = ConfigParser()
    config.read(ROOT / ".importlinter")
    layers = config["importlinter:contract:floors"]["layers"].split("\n")
    assert [line.split(" | ") for line in layers if line][::-1] == LAYERS and len(LAYERS) <= 8
    assert config["importlinter"]["exclude_type_checking_imports"] == "False"
    for section in config.sections():
        for ignored in filter(None, config[section].get("ignore_imports", "").split("\n")):
            assert ignored.split(" -> ")[1].rpartition(".")[2].startswith("_"), f"{section}: {ignored}"


def test_no_import_goes_up_not_even_in_a_function_or_by_a_name_in_a_string() -> None:
    up = [
        f"{a}:{line} -> {b}"
        for (a, b), line in imports().items()
        if room(a) != room(b) and FLOOR.get(room(b), 99) >= FLOOR[room(a)]
    ]
    assert not up, "\n".join(up)


def test_there_is_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for a, b in imports():
        graph.setdefault(a, set()).add(b)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module in done:
            return
        for other in sorted(graph.get(module, ())):
            visit(other, (*trail, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_a_circle_and_a_hidden_import_would_be_found(tmp_path: Path) -> None:
    known = {"genpercept.a": tmp_path, "genpercept.b.c": tmp_path}
    code = "def f():\n    from genpercept.b import c\n    return 'genpercept.a'\n\nif x:\n    import genpercept.b.c"
    found = [name for node in ast.walk(ast.parse(code)) for name in named(node, known)]
    assert sorted(found) == ["genpercept.a", "genpercept.b.c", "genpercept.b.c"]


# ---- names of tasks, kinds and labels --------------------------------------------------------------------------------


@cache
def names() -> frozenset[str]:
    from genpercept.core.labels import LABELS
    from genpercept.imaging.kinds import KINDS
    from genpercept.metrics import METRICS
    from genpercept.tasks import TASKS

    return frozenset({*LABELS, *KINDS, *METRICS.names(), *TASKS.names()})


def constants(node: ast.AST | None) -> set[str]:
    """Names of tasks, kinds and labels that an expression is, or holds as a literal."""
    if isinstance(node, ast.Constant):
        return {node.value} & names() if isinstance(node.value, str) else set()
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return set().union(*map(constants, node.elts))
    return set()


def branches(source: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what) of each comparison with a name, `case` of one, and table (dict, tuple, list or set) of several."""
    for node in ast.walk(source):
        found: set[str] = set()
        if isinstance(node, ast.Compare):
            found = set().union(*map(constants, (node.left, *node.comparators)))
        elif isinstance(node, ast.MatchValue):
            found = constants(node.value)
        elif isinstance(node, ast.Dict):
            found = set().union(*map(constants, node.keys))
            found = found if len(found) > 1 else set()
        elif isinstance(node, ast.Tuple | ast.List | ast.Set):
            found = constants(node)
            found = found if len(found) > 1 else set()
        if found:
            yield getattr(node, "lineno", 0), ", ".join(sorted(found))


# ---- types and sizes -------------------------------------------------------------------------------------------------

LONGEST_FILE, LONGEST_FUNCTION = 400, 60


def casts_to_any(source: ast.AST) -> Iterator[int]:
    """Lines of `cast(Any, ...)`."""
    for node in ast.walk(source):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "cast" and ast.unparse(node.args[0]) == "Any":
            yield node.lineno


def test_nothing_is_cast_to_any() -> None:
    found = [f"{module}:{line}" for module, path in modules().items() for line in casts_to_any(tree(path))]
    assert not found, "\n".join(found)
    assert list(casts_to_any(ast.parse("a = 1\nb = cast(Any, a)"))) == [2]


def test_files_and_functions_fit_on_their_pages() -> None:
    long = [
        f"{module}: {lines} lines"
        for module, path in modules().items()
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST_FILE
    ]
    long += [
        f"{module}.{node.name}: {lines} lines"
        for module, path in modules().items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


def test_the_top_of_the_package_is_its_rooms() -> None:
    found = {path.name for path in SOURCE.iterdir() if path.name != "__pycache__"}
    assert {name for name in found if not name.endswith(".py")} == set(FLOOR) - {"__main__", "equations"}
    assert {name for name in found if name.endswith(".py")} == {"__init__.py", "__main__.py", "equations.py"}
    assert len(found) <= 14


# ---- names stay in their tables --------------------------------------------------------------------------------------

# What a scan of names finds beside the tables, and why it is none of them.
NOT_A_TABLE = {
    "commands/score/run.py": "names of the command's own options",
    "training/losses/__init__.py": "the names of a loss's arguments",
    "training/losses/hdn.py": "HDN's contexts in depth, the option's value in the paper",
    "training/recipe_fields.py": "a default: which labels the autoencoder sees painted",
    "training/stages/finetune.py": "the key of a task's truth that says which pixels count",
}


def test_names_of_tasks_kinds_and_labels_stay_in_their_tables() -> None:
    found: dict[str, list[str]] = {}
    for path in modules().values():
        place = path.relative_to(SOURCE).as_posix()
        if not place.startswith(AT_HOME):
            for line, what in branches(tree(path)):
                found.setdefault(place, []).append(f"{place}:{line}: {what}")
    new = [line for place, lines in found.items() if place not in NOT_A_TABLE for line in lines]
    assert not new, "\n".join(new)
    assert set(found) == set(NOT_A_TABLE), "a place that is allowed needs it no longer"
    assert sum(map(len, found.values())) <= 10


def test_a_branch_on_a_name_would_be_found() -> None:
    code = "if kind == 'normals': pass\nmatch x:\n    case 'depth': pass\nt = {'dis': 1, 'pose': 2}\nif a in ('mask', 1): pass"
    assert sorted(line for line, _ in branches(ast.parse(code))) == [1, 3, 4, 5]


# Public models that have no rules of their own outside their file; bench names them because it measures public models.
FAMILIES = ("depthfm", "geowizard", "depthmaster")
OF_FAMILIES = ("pipeline/families/", "commands/bench/")


def spoken(source: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, word) of each name and string that has a family's in it, but for docstrings."""
    notes = {
        id(node.body[0].value)
        for node in ast.walk(source)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(source):
        words = [getattr(node, key, None) for key in ("id", "attr", "arg", "name", "module", "value")]
        said = [] if id(node) in notes else [word for word in words if isinstance(word, str)]
        yield from (
            (getattr(node, "lineno", 0), word) for word in said if any(name in word.lower() for name in FAMILIES)
        )


def test_a_family_is_named_in_its_file_alone() -> None:
    """Recognising, running, inspecting and exporting ask the registry."""
    found = [
        f"{path.relative_to(SOURCE).as_posix()}:{line}: {word}"
        for path in modules().values()
        if not path.relative_to(SOURCE).as_posix().startswith(OF_FAMILIES)
        for line, word in spoken(tree(path))
    ]
    assert not found, "\n".join(found)
    code = "import x.depthfm\ndef f():\n    'GeoWizard'\n    return geowizard.A\nif a == 'DepthMaster': pass\nDEPTHFM_B = 1"
    assert sorted(line for line, _ in spoken(ast.parse(code))) == [1, 4, 5, 6]


# ---- import paths of before ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("old", [*MOVED, "backbones.sd21", "losses.ssi", "datasets.folder", "families.lotus"])
def test_an_old_import_path_gives_the_module_itself_and_a_warning(old: str) -> None:
    sys.modules.pop(f"genpercept.{old}", None)
    with pytest.warns(DeprecationWarning, match=rf"genpercept\.{old} is genpercept\.\S+ now"):
        module = importlib.import_module(f"genpercept.{old}")
    assert module is importlib.import_module(f"genpercept.{target(old)}")
    assert module.__spec__ is not None and module.__spec__.name == module.__name__ == f"genpercept.{target(old)}"


@pytest.mark.parametrize(("old", "file"), [("train", "training/__main__.py"), ("cli", "commands/cli.py")])
def test_an_old_program_runs_todays(old: str, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m genpercept.train` asks the finder for its code."""
    sys.modules.pop(f"genpercept.{old}", None)
    spec = importlib.util.find_spec(f"genpercept.{old}")
    assert spec is not None
    code = cast(InspectLoader, spec.loader).get_code(f"genpercept.{old}")
    assert code is not None and Path(code.co_filename) == SOURCE / file
    assert f"genpercept.{old} is genpercept.{file.split('/')[0]}" in capsys.readouterr().err


def test_what_has_not_moved_is_not_answered() -> None:
    assert target("equations") is None and target("tasks.depth") is None and target("pipeline") is None
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("genpercept.nowhere")


# ---- the tests -------------------------------------------------------------------------------------------------------


def borrowed(source: ast.AST) -> Iterator[str]:
    """Test modules and conftests that code imports."""
    for node in ast.walk(source):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        module = getattr(node, "module", None) or ""
        for part in (*module.split("."), *(part for name in names for part in name.split("."))):
            if part.startswith("test_") or part == "conftest":
                yield f"{node.lineno}: {part}"


def test_no_test_module_imports_another() -> None:
    """What several need is a fixture in a conftest.py, or lies in tests/support."""
    found = {str(path.relative_to(ROOT)): list(borrowed(tree(path))) for path in (ROOT / "tests").rglob("*.py")}
    assert len(found) > 60 and not {path: lines for path, lines in found.items() if lines}


def test_a_borrowed_test_would_be_found() -> None:
    code = (
        "import tests.a.test_b\nfrom test_c import d\nfrom tests.a import test_e as f\nfrom . import conftest\nimport g"
    )
    assert [line[3:] for line in borrowed(ast.parse(code))] == ["test_b", "test_c", "test_e", "conftest"]


def test_tests_lie_in_rooms_and_helpers_in_none() -> None:
    """tests/ROOM as src/genpercept/ROOM; beside them what is about the whole tree, golden answers and shared helpers."""
    folders = {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("*.py"))}
    assert folders == {*FLOOR, "support"} - {"equations", "__main__"}
    loose = list((ROOT / "tests" / "support").rglob("test_*.py"))
    assert not loose
