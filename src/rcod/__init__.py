"""Enlarge and restore real photos in one diffusion step, with a dial from fidelity to realism.

from rcod import Restorer

restorer = Restorer.load("tiny")
restorer("photo.jpg", realism="auto").picture.save("photo-4x.png")
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rcod.errors import RcodError

if TYPE_CHECKING:
    from rcod.using.restore import Realism, Restorer

__all__ = ["RcodError", "Realism", "Restorer", "__version__"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import what needs PyTorch on first use, so that the command line starts at once."""
    if name in ("Restorer", "Realism"):
        return getattr(import_module("rcod.using.restore"), name)
    raise AttributeError(f"module 'rcod' has no attribute '{name}'")
