"""Enlarge and restore real photos in one diffusion step, with a dial from fidelity to realism.

from rcod import Restorer

restorer = Restorer.load("tiny")
restorer("photo.jpg", realism="auto").save("photo-4x.jpg")  # with its profile and EXIF

The house has one reading order. From top to bottom, each floor on those above it alone:

    errors, device, pickles
    pixels/, diffusion/, networks/, using/, training/, judging/, doors/
"""

from importlib import import_module
from typing import TYPE_CHECKING

from rcod.errors import RcodError

if TYPE_CHECKING:
    from rcod.diffusion.dial import Dial, Realism
    from rcod.networks.assembly import Parts
    from rcod.using.restore import Restorer, Result

__all__ = ["Dial", "Parts", "RcodError", "Realism", "Restorer", "Result", "__version__"]

__version__ = "0.1.0"

HOMES = {
    "Dial": "rcod.diffusion.dial", "Realism": "rcod.diffusion.dial",
    "Parts": "rcod.networks.assembly",
    "Restorer": "rcod.using.restore", "Result": "rcod.using.restore",
}  # what needs PyTorch, and where it lies  # fmt: skip


def __getattr__(name: str) -> object:
    """Import what needs PyTorch on first use, so that the command line starts at once."""
    if name in HOMES:
        return getattr(import_module(HOMES[name]), name)
    raise AttributeError(f"module 'rcod' has no attribute '{name}'")
