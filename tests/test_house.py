"""What the files around the package promise holds."""

import importlib
import re
import subprocess
import tomllib
from operator import attrgetter
from pathlib import Path

import pytest
from PIL import Image
from pydantic import TypeAdapter

import rcod
from rcod.networks.systems import System
from rcod.training.presets import SETTINGS
from rcod.training.published_recipe import PublishedRecipe

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
ABSOLUTE = re.compile(r"(?<![\w.~)}\]-])/(?:work|home|root|Users|mnt|srv)/\w")
HOST = re.compile(r"pypi\.org|pythonhosted\.|debian\.org/debian|npmjs\.|localhost:\d{4}/simple")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def project() -> dict:
    return tomllib.loads(read("pyproject.toml"))["project"]


def own_files() -> list[Path]:
    """List the files git tracks or would track."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout, so the project's own files are not known")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_version_is_the_same_everywhere():
    version = project()["version"]
    assert rcod.__version__ == version
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    assert f"## {version}" in read("CHANGELOG.md")


def test_make_commands_in_the_papers_are_targets():
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    for paper in ("README.md", "CONTRIBUTING.md"):
        commands = set(re.findall(r"^make ([a-z]+)", read(paper), re.MULTILINE))
        assert commands, f"{paper} names no make command at the start of a line"
        assert commands <= targets


def test_links_in_the_papers_lead_somewhere():
    papers = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md"),
              *ROOT.glob("src/rcod/weights/*.md")]  # fmt: skip
    assert len(papers) > 10
    for paper in papers:
        links = re.findall(r"\]\((?!https?:|#)([^)#]+)", paper.read_text(encoding="utf-8"))
        assert [link for link in links if not (paper.parent / link).exists()] == [], paper


def test_every_function_that_the_method_names_is_there():
    text = read("docs/method.md")
    modules = {path.stem: path for path in (ROOT / "src/rcod").rglob("*.py")}
    dotted = re.findall(r"`([a-z_]+)\.([\w.]+)`", text)
    for module, name in (found := [one for one in dotted if one[0] in modules]):
        home = modules[module].relative_to(ROOT / "src").with_suffix("")
        attrgetter(name)(importlib.import_module(".".join(home.parts)))  # raises where it is not
    assert len(found) > 60
    for table in re.findall(r"\| computed by \|\n\|[-|]+\n((?:\|.*\n)+)", text):
        for row in table.splitlines():
            assert re.search(r"`[a-z_]+\.\w", row.split("|")[-2]), f"no function computes {row}"


def test_every_setting_that_the_method_names_can_be_set():
    known = {**System.model_fields, **PublishedRecipe.model_fields}
    pairs = re.findall(r"`([a-z_]+)=([a-z0-9_]+)`", read("docs/method.md"))
    assert len(pairs) >= 14
    for name, value in pairs:
        if name == "degradation":
            assert value in SETTINGS
        else:
            TypeAdapter(known[name].rebuild_annotation()).validate_python(value)


def test_no_file_names_a_machine():
    for path in own_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or weights
        name = path.relative_to(ROOT)
        assert ABSOLUTE.findall(text) == [], f"{name} names an absolute path"
        assert HOST.findall(text) == [], f"{name} names a registry host"


def test_an_absolute_path_and_a_host_would_be_found():
    assert ABSOLUTE.search("open('/" + "home/me/photo.png')")
    assert not ABSOLUTE.search("docs/work/home.md, https://example.com/home/page")
    assert HOST.search("https://" + "pypi" + ".org/simple")


def test_every_example_is_small_and_credited():
    assert len(EXAMPLES) == 3
    assert sum(path.stat().st_size for path in EXAMPLES) < 300_000
    for path in EXAMPLES:
        with Image.open(path) as photo:
            assert photo.mode == "RGB" and max(photo.size) <= 200
        assert path.name in read("NOTICE")
        assert path.name in read("examples/README.md")


def test_every_dependency_is_pinned():
    pinned = {line.split("==")[0].lower() for line in read("constraints.txt").splitlines()}
    extras = project()["optional-dependencies"]
    installed = ("train", "heic", "jxl", "web", "sd", "dev")  # by make test
    wanted = [*project()["dependencies"], *(one for name in installed for one in extras[name])]
    names = {re.split(r"[\[<>=]", requirement)[0].lower() for requirement in wanted}
    assert names <= pinned
