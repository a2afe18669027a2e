"""Where do photos and results lie that are behind an address?

Anywhere that fsspec knows: folders, s3://, gs://, http://, archives inside of them. What such a
place raises is as manifold as the libraries behind it; here it becomes one sentence.

    zip://a.png::s3://bucket/many.zip -> opened -> file system, path
                                      '-> name_of -> a.png
"""

import re
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TextIO, cast

from rcod.errors import RcodError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CACHES = re.compile(r"^((block|file|simple)cache(://)?::)+")  # whose path is what they cache
QUERY = re.compile(r"^(https?://[^?#]*).*")  # a signature, often, which may hold slashes


class Store:
    """The output folder, wherever it lies."""

    def __init__(self, out: str) -> None:
        self.address = out
        self.fs, self.root = opened(out)

    def path(self, *parts: str) -> str:
        """An address below the folder, as its file system takes it."""
        return "/".join((self.root.rstrip("/"), *parts))

    def reached(self) -> AbstractContextManager[None]:
        """Where the folder is asked for something."""
        return reaching(f"{self.address} must be a folder to write to")

    def add_lines(self, folder: str, lines: Sequence[str]) -> str:
        """Write lines into a new file, whole where stores do so; files sort by their time."""
        path = self.path(folder, f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}.jsonl")
        part = path.removesuffix(".jsonl") + ".part"
        with self.reached():
            self.fs.makedirs(self.path(folder), exist_ok=True)
            self.fs.pipe_file(part, ("\n".join(lines) + "\n").encode())
            self.fs.mv(part, path)
        return path

    def lines(self, folder: str) -> Iterator[str]:
        """All lines of a folder's files, the last one first."""
        with self.reached():
            if not self.fs.isdir(self.path(folder)):
                return
            paths = map(str, self.fs.ls(self.path(folder), detail=False))
            for path in sorted(paths, reverse=True):
                if path.endswith(".jsonl"):
                    with cast("TextIO", self.fs.open(path, "rt", encoding="utf-8")) as file:
                        yield from reversed(file.readlines())

    def clear(self, folder: str) -> None:
        """Remove a folder."""
        with self.reached():
            if self.fs.isdir(self.path(folder)):
                self.fs.rm(self.path(folder), recursive=True)


def opened(address: str) -> "tuple[AbstractFileSystem, str]":
    """The file system behind an address, and the path there."""
    with reaching(f"{address} must be an address that fsspec knows"):
        try:
            from fsspec.core import url_to_fs

            return url_to_fs(address)
        except ImportError as error:
            raise RcodError(
                f"{address} needs more than is installed, got: {error}; pip install 'rcod[ray]', "
                "and s3fs for s3://, gcsfs for gs://"
            ) from None


@contextmanager
def reaching(what: str) -> Iterator[None]:
    """Turn whatever a store raises into one sentence.

    Args:
        what: what must hold, with the address.
    """
    try:
        yield
    except RcodError:
        raise
    except Exception as error:  # noqa: BLE001  # botocore's, aiohttp's, zipfile's: no common kind
        raise RcodError(
            f"{what}, got: {said(error)}; check the address and your access to it"
        ) from None


def said(error: Exception) -> str:
    """What an error says; one without words has its name."""
    return str(error) or type(error).__name__


def is_here(fs: "AbstractFileSystem") -> bool:
    """Whether its files are this machine's; a cache's kind is one word, that ends alike."""
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def name_of(address: str) -> str:
    """The name of an address's file: the first of a chain, without what http asks by."""
    first = QUERY.sub(r"\1", CACHES.sub("", address).partition("::")[0])
    return PurePosixPath(first.rpartition("://")[2]).name


def whole(address: str) -> str:
    """An address as folders give theirs; those of stores are whole, and no store is asked."""
    inner, chained, last = address.rpartition("::")
    if "://" not in last or last.startswith(("file://", "local://")):
        fs, path = opened(last)
        last = fs.unstrip_protocol(path)
    return f"{inner}{chained}{last}"


def found_by(given: str, fs: "AbstractFileSystem", path: str) -> str:
    """A path's address: of an archive it names the chain that the archive was given by."""
    first = CACHES.sub("", given)
    _, chained, outer = first.partition("::")
    return (
        f"{given.removesuffix(first)}{fs.unstrip_protocol(path)}{chained}{outer and whole(outer)}"
    )
