"""The house has one reading order: a module imports only modules that stand above it."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "rcod"
MODULE_LINES = 300
FUNCTION_LINES = 50
DOORS = ("__init__", "__main__")  # the public doors stand outside the order and may import anything
ORDER = (
    # ground
    "errors",
    "device",
    # pixels
    "decode",
    "metadata",
    "placing",
    "encode",
    "profiles",
    "resample",
    "images",
    "color",
    "tiling",
    "metrics",
    "aids",
    "naturalness",
    "perceptual",
    # mathematics
    "schedule",
    "grouping",
    "dial",
    # networks
    "lora",
    "guide",
    "backbone",
    "bases",
    "storage",
    "stable",
    "prompts",
    "estimators",
    "onestep",
    "framing",
    "systems",
    "assembly",
    "pickles",
    "published",
    "checkpoint",
    # using
    "passes",
    "hosted",
    "restore",
    "sheet",
    "forecast",
    "orders",
    "jobs",
    "ledger",
    "batch",
    "sitting",
    # training
    "kernels",
    "degradation",
    "data",
    "elder",
    "losses",
    "vsd",
    "adversary",
    "recipe",
    "rundir",
    "learner",
    "objectives",
    "train",
    # judging
    "likeness",
    "inception",
    "judge",
    "datasets",
    "synthetic",
    "scoring",
    "contenders",
    "peers",
    "journal",
    "evaluate",
    "intervals",
    "report",
    "promises",
    "studies",
    "benchmark",
    "fullsize",
    # doors
    "engine",
    "meters",
    "guard",
    "service",
    "server",
    "web",
    "terminal",
    "upscaling",
    "judging",
    "cli",
)


def imported_modules(tree: ast.Module) -> set[str]:
    """Name the package's own modules a source imports, at any depth; '.' for a relative import."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            paths = ["rcod.."]
        elif isinstance(node, ast.ImportFrom) and node.module == "rcod":
            paths = [f"rcod.{alias.name}" for alias in node.names if alias.name in ORDER]
        elif isinstance(node, ast.ImportFrom):
            paths = [node.module or ""]
        else:
            continue
        names |= {path.split(".", 2)[1] or "." for path in paths if path.startswith("rcod.")}
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
    if name in DOORS:
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
    assert path.parent == PACKAGE, "the package is flat"
    assert breaches(path.stem, path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("name", "source", "complaint"),
    [
        ("images", "from rcod.restore import Restorer", "restore, which does not stand above it"),
        ("images", "import rcod.cli", "cli, which does not stand above it"),
        ("images", "from rcod import train", "train, which does not stand above it"),
        ("images", "def late():\n    from rcod.web import serve", "web, which does not stand"),
        ("images", "from .errors import RcodError", "imports relatively"),
        ("images", "from rcod.utils import x", "utils, which has no place"),
        ("utils", "x = 1", "utils has no place in the order"),
        ("images", "x = 1\n" * (MODULE_LINES + 1), "images has 301 lines"),
        ("images", "def f():\n" + "    x = 1\n" * FUNCTION_LINES, "f has 51 lines"),
    ],
)
def test_breach_is_named(name: str, source: str, complaint: str):
    (found,) = breaches(name, source)
    assert complaint in found


def test_imports_from_above_and_from_outside_are_fine():
    source = "import torch\nfrom rcod.errors import RcodError\nfrom rcod import __version__\n"
    assert breaches("images", source) == []
