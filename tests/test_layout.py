"""The house has one reading order: a module imports only modules that stand above it."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "rcod"
MODULE_LINES = 300
FUNCTION_LINES = 50
DOORS = ("__init__", "__main__")  # the public doors stand outside the order and may import anything


def listed(folder: str) -> list[str]:
    """The names in the order that a folder's docstring gives."""
    source = (PACKAGE / folder / "__init__.py").read_text(encoding="utf-8")
    text = ast.get_docstring(ast.parse(source)) or ""
    lines = re.findall(r"^    (\w+/?(?:, \w+/?)*),?$", text, re.MULTILINE)
    return [name for line in lines for name in line.split(", ")]


GROUND = [name for name in listed("") if not name.endswith("/")]
FLOORS = [name[:-1] for name in listed("") if name.endswith("/")]
ORDER = [*GROUND, *(f"{floor}.{name}" for floor in FLOORS for name in listed(floor))]


def imported_modules(tree: ast.Module) -> set[str]:
    """Name the package's own modules a source imports, at any depth; '.' for a relative import."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            paths = ["rcod.."]
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [path for path in whole if path.removeprefix("rcod.") in ORDER]
            paths = known or [node.module or ""]
        else:
            continue
        names |= {path.removeprefix("rcod.") for path in paths if path.startswith("rcod.")}
    return names


def long_functions(tree: ast.Module) -> list[str]:
    """Describe every function that does not fit its budget, docstring included."""
    return [
        f"{node.name} has {lines} lines, at most {FUNCTION_LINES}"
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    ]


def breaches(name: str, source: str) -> list[str]:
    """Say in words what a module does against the house rules."""
    tree = ast.parse(source)
    found = long_functions(tree)
    if (lines := len(source.splitlines())) > MODULE_LINES:
        found.append(f"{name} has {lines} lines, at most {MODULE_LINES}")
    if name.rpartition(".")[2] in DOORS:
        return found
    if name not in ORDER:
        return [*found, f"{name} has no place in the order"]
    for other in sorted(imported_modules(tree)):
        if other == ".":
            found.append(f"{name} imports relatively; write the full name")
        elif other not in ORDER:
            found.append(f"{name} imports {other}, which has no place in the order")
        elif ORDER.index(other) >= ORDER.index(name):
            found.append(f"{name} imports {other}, which does not stand above it")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_module_keeps_the_house_rules(path: Path):
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    assert breaches(name, path.read_text(encoding="utf-8")) == []


def test_every_place_of_the_order_is_taken():
    for name in ORDER:
        assert (PACKAGE / f"{name.replace('.', '/')}.py").is_file()


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("from rcod.using.restore import Restorer", "restore, which does not stand above it"),
        ("import rcod.doors.cli", "cli, which does not stand above it"),
        ("from rcod.training import train", "train, which does not stand above it"),
        ("def late():\n    from rcod.doors.web import serve", "web, which does not stand"),
        ("from .errors import RcodError", "imports relatively"),
        ("from rcod.utils import x", "utils, which has no place"),
        ("x = 1\n" * (MODULE_LINES + 1), "images has 301 lines"),
        ("def f():\n" + "    x = 1\n" * FUNCTION_LINES, "f has 51 lines"),
    ],
)
def test_breach_is_named(source: str, complaint: str):
    (found,) = breaches("pixels.images", source)
    assert complaint in found


def test_a_stranger_is_named():
    assert breaches("pixels.utils", "x = 1") == ["pixels.utils has no place in the order"]


def test_imports_from_above_and_from_outside_are_fine():
    source = "import torch\nfrom rcod.errors import RcodError\nfrom rcod import __version__\n"
    assert breaches("pixels.images", source) == []
