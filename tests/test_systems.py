"""The table of systems."""

from importlib.resources import files

import pytest

from rcod.errors import RcodError
from rcod.networks.checkpoint import load
from rcod.networks.systems import SYSTEMS, System, covers


def test_rows_survive_their_own_text_and_know_their_name():
    for name, system in SYSTEMS.items():
        assert system.name == name
        assert System.model_validate_json(system.model_dump_json()) == system


def test_bundled_weights_load_and_are_small():
    bundled = [system for system in SYSTEMS.values() if system.weights is not None]
    assert bundled
    total = 0
    for system in bundled:
        path = files("rcod") / "weights" / str(system.weights)
        total += len(path.read_bytes())
        loaded, _, _ = load(path)  # pyright: ignore[reportArgumentType]  (a real folder)
        assert loaded.name == system.name
    assert total < 40e6


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(", r"must be a regular expression, got \(: missing"),
        ("a{99999999999999999999}", "must be a regular expression, got a.9"),
        (r"(\w+\.?)+!", "2 repeats and 2 groups at most, no group repeated, got"),
        ("(a|a)" * 30 + "!", "2 repeats and 2 groups at most"),
        (".*" * 30 + "!", "2 repeats and 2 groups at most"),
        ("a" * 301, "must have 300 characters"),
    ],
)
def test_patterns_that_never_end_are_refused(pattern: str, words: str):
    with pytest.raises(RcodError, match=f"a pattern for layers .*{words}"):
        covers(pattern, 8 * "attentions.")
