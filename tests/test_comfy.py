"""The nodes give ComfyUI what the restorer gives everybody."""

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor

from rcod.errors import RcodError
from rcod.pixels.images import Photo, read
from rcod.using.open_photo import OpenPhoto, Setting
from rcod.using.restore import Dial, Restorer

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def nodes() -> ModuleType:
    """The folder for `custom_nodes`, loaded from its path as ComfyUI does."""
    spec = spec_from_file_location("custom_rcod", EXAMPLES / "comfyui" / "__init__.py")
    assert spec is not None and spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    return module


def ask(nodes: ModuleType, name: str, **inputs: object) -> tuple[object, ...]:
    """Call a node as ComfyUI does: every input it requires, defaults where none is given."""
    node = nodes.NODE_CLASS_MAPPINGS[name]
    declared = node.INPUT_TYPES()
    for key, (kind, *settings) in declared["required"].items():
        first = kind[0] if isinstance(kind, list) else None
        inputs.setdefault(key, settings[0].get("default") if settings else first)
    assert set(inputs) <= {key for part in declared.values() for key in part}
    found = getattr(node(), node.FUNCTION)(**inputs)
    assert len(found) == len(node.RETURN_TYPES) == len(getattr(node, "RETURN_NAMES", found))
    return found


@pytest.fixture(scope="module")
def model(nodes: ModuleType) -> Restorer:
    (restorer,) = ask(nodes, "RcodModel", device="cpu")
    assert isinstance(restorer, Restorer)
    return restorer


@pytest.fixture(scope="module")
def batch() -> Tensor:
    """Two pictures as ComfyUI holds them, (2, 40, 48, 3)."""
    pixels = [read(EXAMPLES / name).pixels[:, 20:60, 20:68] for name in ("otter.jpg", "heron.jpg")]
    return torch.stack(pixels).movedim(1, -1)


def test_every_node_has_a_name_that_people_read(nodes: ModuleType):
    assert nodes.NODE_CLASS_MAPPINGS.keys() == nodes.NODE_DISPLAY_NAME_MAPPINGS.keys()


@pytest.mark.parametrize("dial", ["auto", "auto-local", "fidelity", "neutral", "realism"])
def test_pictures_of_a_batch_are_the_restorers_own(
    nodes: ModuleType, model: Restorer, batch: Tensor, dial: Dial
):
    pictures, facts = ask(nodes, "RcodUpscale", model=model, image=batch, dial=dial, scale=2.0)
    alone = [model(picture.movedim(-1, 0), dial, 2.0) for picture in batch]
    assert isinstance(pictures, Tensor) and pictures.shape == (2, 80, 96, 3)
    for picture, result in zip(pictures, alone, strict=True):
        assert torch.equal(picture.movedim(-1, 0), result.photo.pixels)
    assert isinstance(facts, str)
    for line, result in zip(facts.splitlines(), alone, strict=True):
        assert line.startswith(result.level) and f"t = {result.timestep}" in line


def test_the_slider_is_heard_where_the_dial_says_number(
    nodes: ModuleType, model: Restorer, batch: Tensor
):
    asked = {"model": model, "image": batch[:1], "realism": 0.3}
    by_name, by_number = (
        ask(nodes, "RcodUpscale", **asked, dial=dial)[0] for dial in ("fidelity", "number")
    )
    photo = batch[0].movedim(-1, 0)
    assert isinstance(by_name, Tensor) and isinstance(by_number, Tensor)
    assert torch.equal(by_name[0].movedim(-1, 0), model(photo, "fidelity").photo.pixels)
    assert torch.equal(by_number[0].movedim(-1, 0), model(photo, 0.3).photo.pixels)


def test_a_mask_says_where(nodes: ModuleType, model: Restorer, batch: Tensor):
    masks = torch.zeros(2, 40, 48)
    masks[1, :, 24:] = 1
    pictures, _ = ask(nodes, "RcodUpscale", model=model, image=batch, where=masks)
    assert isinstance(pictures, Tensor)
    for picture, lr, mask in zip(pictures, batch, masks, strict=True):
        alone = model(lr.movedim(-1, 0), mask)
        assert torch.equal(picture.movedim(-1, 0), alone.photo.pixels)
    for_all, _ = ask(nodes, "RcodUpscale", model=model, image=batch, where=masks[1:])
    assert isinstance(for_all, Tensor) and torch.equal(for_all[1], pictures[1])


@pytest.mark.parametrize(
    ("masks", "words"),
    [((3, 40, 48), "one for each of 2 pictures, got 3"), ((1, 64, 64), "got 64 x 64 for a photo")],
)
def test_a_mask_of_something_else_is_refused(
    nodes: ModuleType, model: Restorer, batch: Tensor, masks: tuple[int, ...], words: str
):
    with pytest.raises(RcodError, match=words):
        ask(nodes, "RcodUpscale", model=model, image=batch, where=torch.zeros(masks))


def test_what_lies_beyond_black_and_white_is_cut(nodes: ModuleType, model: Restorer, batch: Tensor):
    beyond, _ = ask(nodes, "RcodUpscale", model=model, image=2 * batch - 0.5)
    within, _ = ask(nodes, "RcodUpscale", model=model, image=(2 * batch - 0.5).clamp(0, 1))
    assert isinstance(beyond, Tensor) and isinstance(within, Tensor)
    assert torch.equal(beyond, within)


def test_invention_is_what_the_page_shows(nodes: ModuleType, model: Restorer, batch: Tensor):
    results = [
        ask(nodes, "RcodUpscale", model=model, image=batch[:1], dial=dial)[0]
        for dial in ("realism", "fidelity")
    ]
    where, share = ask(nodes, "RcodInvention", image=results[0], fidelity=results[1])
    photo = Photo(batch[0].movedim(-1, 0), None, None, None)
    shown = OpenPhoto(model, photo).invention(Setting("realism"))
    assert isinstance(where, Tensor) and torch.equal(where[0], shown.where)
    assert share == shown.share and 0 < shown.share < 1
    with pytest.raises(RcodError, match="results of one photo at one scale"):
        ask(nodes, "RcodInvention", image=results[0], fidelity=batch)


def test_comfyui_hears_how_far_it_is_and_may_stop_it(
    nodes: ModuleType, model: Restorer, batch: Tensor, monkeypatch: pytest.MonkeyPatch
):
    told: list[tuple[int, int]] = []
    stop = False

    class Bar:
        """As ComfyUI's: raises when the user has pressed stop."""

        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int) -> None:
            told.append((value, self.total))
            if stop:
                raise InterruptedError

    utils = ModuleType("comfy.utils")
    utils.__dict__["ProgressBar"] = Bar
    monkeypatch.setitem(sys.modules, "comfy", ModuleType("comfy"))
    monkeypatch.setitem(sys.modules, "comfy.utils", utils)
    ask(nodes, "RcodUpscale", model=model, image=batch)
    assert told == [(100, 200), (200, 200)]
    stop = True
    with pytest.raises(InterruptedError):
        ask(nodes, "RcodUpscale", model=model, image=batch)
