"""What does a file of captions say of every photo?

a.png<TAB>a red door
second/a.png<TAB>a blue one
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rcod.errors import RcodError
from rcod.training.photos import Source, read_lines


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


def name_captions(captions: Sequence[str]) -> str:
    """A short name for captions and their order."""
    return hashlib.sha256("\n".join(captions).encode()).hexdigest()[:16]
