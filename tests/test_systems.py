"""The table of systems."""

from importlib.resources import files

from rcod.networks.checkpoint import load
from rcod.networks.systems import SYSTEMS, System


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
