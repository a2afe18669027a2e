"""Which photos does training look at, and are they fit for it?

A folder of pictures; a text file with a path a line; or shards, tar files in WebDataset's
manner, local or behind a URL. A shard is read through once, for an index of what lies where;
after that any photo of it is one read, or one request, and the order of training is free.

    folder | list.txt | shards-{000..099}.tar -> photos_in -> sources -> read_rgb
                                                                    '-> check -> findings
                                                                    '-> identity: still the same?
"""

import hashlib
import json
import math
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import Image

from rcod.errors import RcodError
from rcod.pixels.images import SUFFIXES, Photo, find, read, to_pil
from rcod.pixels.placing import placed

SOFT = 42.0  # dB: what survives /2 x2 better than this holds little fine detail
ALIKE = 12  # of 256 places; more say that it is another picture
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
WITHIN = ".tar#"  # between a shard and a picture in it
PATIENCE = 60  # seconds without a byte from a URL


class Member(NamedTuple):
    """A picture inside a shard."""

    shard: str  # path or URL
    name: str
    start: int  # first byte
    size: int

    def __str__(self) -> str:
        return f"{self.shard}#{self.name}"


Source = Path | Member


class Finding(NamedTuple):
    """What is wrong with a photo."""

    photo: str
    fault: str  # unreadable, small, soft, duplicate
    words: str


def photos_in(source: Path | str, cache: Path | None = None) -> list[Source]:
    """The training photos.

    Args:
        source: a folder of pictures; a text file with a path (or a shard, or a picture in one, as
            in `a.tar#0.png`) a line; a shard, or several as in `shard-{000..099}.tar`, also behind
            http.
        cache: where indices of shards are kept; nothing keeps none.
    """
    text = str(source)
    if _is_shard(text):
        return [member for shard in _expand(text) for member in _index(shard, cache)]
    path = Path(source)
    if path.is_dir():
        return [*find([path])]
    found, shards = list[Source](), dict[str, dict[str, Member]]()
    for line in map(str.strip, read_lines(path, "photos must be a folder or a list of paths")):
        if _is_shard(line):
            found += [member for shard in _expand(line) for member in _index(shard, cache)]
        elif WITHIN in line:
            found.append(_within(line, shards, cache))
        elif line:
            beside = path.parent / line
            found.append(beside if beside.exists() and not Path(line).exists() else Path(line))
    if not found:
        raise RcodError(f"the list of photos must name a file, got an empty {path}")
    return found


def read_lines(path: Path, rule: str) -> list[str]:
    """The lines of a text file; `rule` begins the sentence about one that is none."""
    if not path.is_file():
        raise RcodError(f"{rule}, got {path}; it isn't there")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise RcodError(f"{rule}, got {path}, which is no text in UTF-8; name another") from None


class _Enough(Exception):
    """What was asked for is known, and nothing more is read."""


def identity(photo: Source) -> str:
    """What tells a photo from others, and from what may come to lie in its place."""
    if isinstance(photo, Path):
        return _facts(photo)
    shard = photo.shard if _is_far(photo.shard) else _facts(Path(photo.shard))
    return f"{shard} {photo.name} {photo.start} {photo.size}"


def fingerprint(photos: Sequence[Source]) -> str:
    """A short name for a list of photos and its order."""
    return name_texts(map(identity, photos))


def name_texts(texts: Iterable[str]) -> str:
    """A short name for some texts and their order."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def read_rgb(photo: Source) -> Image.Image:
    """A photo, turned upright, in sRGB with 8 bits; `RcodError` says what is wrong with it."""
    return to_pil(Photo(read(_content(photo), str(photo)).pixels))


def area(photo: Source) -> int:
    """Pixels of a photo, from its header."""
    pixels = 0

    def stop(size: tuple[int, int]) -> None:
        nonlocal pixels
        pixels = size[0] * size[1]
        raise _Enough

    with suppress(_Enough):
        read(_content(photo), str(photo), stop)
    return pixels


def softness(image: Image.Image) -> float:
    """PSNR in dB of a /2 x2 bicubic round trip of the centre: high means little fine detail."""
    side = min(1024, *image.size) // 2 * 2
    left, top = (image.width - side) // 2, (image.height - side) // 2
    centre = image.crop((left, top, left + side, top + side))
    half = centre.resize((side // 2, side // 2), Image.Resampling.BICUBIC)
    again = half.resize((side, side), Image.Resampling.BICUBIC)
    error = np.asarray(centre, np.float32) - np.asarray(again, np.float32)
    return 10 * math.log10(255**2 / max(float((error**2).mean()), 1e-6))


def check(photos: Sequence[Source], side: int) -> Iterator[Finding]:
    """Look for photos that training should do without.

    Args:
        photos: all of them; each is decoded.
        side: of the crops that will be cut, pixels.
    """
    seen, known = np.zeros((len(photos), 32), np.uint8), list[int]()  # what they look like
    for number, photo in enumerate(photos):
        try:
            image = read_rgb(photo)
        except RcodError as error:
            yield Finding(str(photo), "unreadable", str(error))
            continue
        if min(image.size) < side:
            size = f"{image.width} x {image.height} pixels"
            yield Finding(str(photo), "small", f"{size} hold no crop of {side}")
            continue
        if (found := softness(image)) > SOFT:
            yield Finding(str(photo), "soft", f"{found:.1f} dB survive halving; halve it first")
        seen[number] = looks(image)
        unlike = np.bitwise_count(seen[known] ^ seen[number]).sum(axis=1)  # of 256
        if known and unlike[nearest := int(unlike.argmin())] <= ALIKE:
            yield Finding(str(photo), "duplicate", f"looks like {photos[known[nearest]]}")
        known.append(number)


def looks(image: Image.Image) -> np.ndarray:
    """What a picture looks like from afar: where it brightens from left to right, (32,) uint8."""
    small = image.convert("L").resize((17, 16), Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1])


def _is_shard(text: str) -> bool:
    return text.endswith(".tar")


def _is_far(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _expand(pattern: str) -> list[str]:
    """`a-{000..002}.tar` -> a-000.tar, a-001.tar, a-002.tar."""
    match = RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    start, end = match.span()
    return [
        f"{pattern[:start]}{number:0{len(first)}d}{pattern[end:]}"
        for number in range(int(first), int(last) + 1)
    ]


def _facts(path: Path) -> str:
    """Where a file lies, how large it is, and when it was written."""
    try:
        facts = path.stat()
    except OSError:
        return f"{path.resolve()} isn't there"
    return f"{path.resolve()} {facts.st_size} {facts.st_mtime_ns}"


def _within(line: str, shards: dict[str, dict[str, Member]], cache: Path | None) -> Member:
    """A picture of a shard, as a list names it; `shards` are those that were looked into."""
    shard = line[: line.index(WITHIN)] + ".tar"
    if shard not in shards:
        shards[shard] = {str(member): member for member in _index(shard, cache)}
    if line not in shards[shard]:
        raise RcodError(f"{line} must be a picture in its shard, and isn't; take it off the list")
    return shards[shard][line]


def _index(shard: str, cache: Path | None) -> list[Member]:
    """The pictures of a shard and where they lie, from the cache if it knows."""
    if not _is_far(shard) and not Path(shard).is_file():
        raise RcodError(f"a shard must be a tar file or its URL, got {shard}; it isn't there")
    known = None
    if cache is not None:
        key = shard if _is_far(shard) else _facts(Path(shard))
        known = cache / f"shard-{hashlib.sha256(key.encode()).hexdigest()[:16]}.json"
        if known.is_file():
            rows = json.loads(known.read_text(encoding="utf-8"))
            return [Member(shard, name, start, size) for name, start, size in rows]
    try:
        with _whole(shard) as file, tarfile.open(fileobj=file, mode="r|") as tar:
            members = [
                Member(shard, info.name, info.offset_data, info.size)
                for info in tar
                if info.isfile() and Path(info.name).suffix.lower() in SUFFIXES
            ]
    except (tarfile.TarError, OSError) as error:
        raise RcodError(f"{shard} must be a tar file, and cannot be read: {error}") from None
    if not members:
        raise RcodError(f"{shard} must hold pictures, and holds none; name another shard")
    if known is not None:
        known.parent.mkdir(parents=True, exist_ok=True)
        with placed(known) as out:
            out.write(json.dumps([member[1:] for member in members]).encode())
    return members


def _whole(shard: str) -> BinaryIO:
    """A shard from its first byte on."""
    if _is_far(shard):
        return cast(BinaryIO, urllib.request.urlopen(shard, timeout=PATIENCE))
    return Path(shard).open("rb")


def _content(photo: Source) -> Path | bytes:
    """A photo's file, or its bytes inside a shard."""
    if isinstance(photo, Path):
        return photo
    try:
        if _is_far(photo.shard):
            return _part(photo)
        with Path(photo.shard).open("rb") as file:
            file.seek(photo.start)
            return file.read(photo.size)
    except OSError as error:
        raise RcodError(f"{photo}: its shard must be readable, got: {error}") from None


def _part(photo: Member) -> bytes:
    """A photo out of a shard behind a URL."""
    last = photo.start + photo.size - 1
    request = urllib.request.Request(photo.shard, headers={"Range": f"bytes={photo.start}-{last}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        if answer.status != 206:
            raise RcodError(
                f"{photo.shard} must be served in parts (HTTP 206), got {answer.status}; "
                "download it, or take another server"
            )
        try:
            return answer.read()
        except HTTPException as error:
            raise RcodError(f"{photo} must come whole, got: {error!r}") from None
