"""What do teacher and student hear of every photo? A phrase, or what a file says of it.

a.png<TAB>a red door
second/a.png<TAB>a blue one
"""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from rcod.errors import RcodError
from rcod.networks.bases import find_base
from rcod.networks.prompts import TextTower
from rcod.training.photos import Source, name_texts, read_lines
from rcod.training.published_losses import Heard
from rcod.training.published_recipe import PublishedRecipe
from rcod.training.stream import Lot
from rcod.training.task import Sources

UNHEARD = (
    "the student hears the empty text alone; as released it hears captions of {share:g} of its "
    "samples, with text=captions and --captions FILE"
)


class Texts(NamedTuple):
    """What is heard in a run."""

    hear: Callable[[Lot], Heard] | None  # of a batch; nothing where nobody asks
    name: str = ""  # that tells captions from others
    note: str = ""  # about what is left out


def open_texts(
    recipe: PublishedRecipe, sources: Sources, photos: list[Source], device: torch.device
) -> Texts:
    """What is heard of each batch: captions of its photos, a phrase, or nothing."""
    captions = recipe.text == "captions"
    if sources.captions is not None and not captions:
        raise RcodError(
            f"--captions is heard with text=captions alone, got text={recipe.text}; set that, or "
            "leave the file out"
        )
    unheard = recipe.caption_share and not captions
    note = UNHEARD.format(share=recipe.caption_share) if unheard else ""
    if recipe.goal == "metric" or (recipe.distill == "off" and not recipe.hears_captions):
        return Texts(None, note=note)
    base = recipe.row.base
    assert base is not None
    tower = TextTower(find_base(base, sources.base))
    negative = tower([recipe.negative]).to(device)
    if not captions:
        phrase = tower([recipe.phrase if recipe.text == "fixed" else ""]).to(device)
        away = negative if recipe.text == "fixed" else None
        return Texts(lambda lot: Heard(phrase.expand(len(lot.lr), -1, -1), away), note=note)
    if sources.captions is None:
        raise RcodError("text=captions needs --captions FILE, a photo's name, a tab, its caption")
    known = read_captions(sources.captions, photos)

    def hear(lot: Lot) -> Heard:
        return Heard(tower([known[i] for i in lot.photos]).to(device), negative)

    return Texts(hear, name_texts(known))


def read_captions(path: Path, photos: list[Source]) -> list[str]:
    """The caption of every photo, from lines of its name or path, a tab and the text.

    A name may lack its ending; where several photos have one name, their folders tell them apart.
    """
    lines = read_lines(path, "--captions must be lines of photo, tab, caption")
    rows = [line.partition("\t") for line in lines]
    known = {name.strip(): text.strip() for name, tab, text in rows if tab}
    places = [Path(photo if isinstance(photo, Path) else photo.name) for photo in photos]
    alike = Counter(place.name for place in places)
    found: list[str] = []
    for place in places:
        ends = [Path(*place.parts[i:]).as_posix() for i in range(len(place.parts))]
        if alike[place.name] > 1:
            ends.remove(place.name)  # which doesn't say whose it is
        text = next((known[name] for name in (*ends, place.stem) if name in known), None)
        if text is None:
            raise RcodError(f"{path} must have a caption for every photo, and has none for {place}")
        found.append(text)
    return found
