"""How is a pickle from somebody else read without running it?

PyTorch's restricted loader knows tensors and plain containers and refuses to call anything
else. What it returns is then taken apart with checks that name the tensor which is missing, has
no place or has another shape.

    file -> unpickled -> read_pickle -> dictionary -> take, take, take -> check_empty
"""

import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from rcod.errors import RcodError

DAMAGE = (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError,
          AttributeError, AssertionError, struct.error)  # fmt: skip  # of what is no whole pickle


def unpickled(path: Path) -> object:
    """What is in a file of PyTorch's, nothing of which is ever run.

    Raises:
        UnpicklingError: if it is no pickle, or one that asks to run code.
        DAMAGE: any of these, if it is not whole.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unusual pickles; an error follows where it matters
        return torch.load(path, map_location="cpu", weights_only=True)


def read_pickle(path: Path) -> dict[str, object]:
    """A published file as tensors and plain containers; nothing in it is ever run."""
    try:
        content = unpickled(path)
    except FileNotFoundError:
        raise RcodError(f"no checkpoint at {path}") from None
    except UnpicklingError:
        raise RcodError(
            f"{path} asks to run code or is no checkpoint, and was refused; a checkpoint must "
            "hold tensors, numbers, texts, lists and dictionaries only"
        ) from None
    except DAMAGE as error:
        why = getattr(error, "strerror", None) or str(error) or "it ends too early"
        raise RcodError(f"{path} must be a whole checkpoint, and can't be read: {why}") from None
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RcodError(
            f"{path} must hold a dictionary of named parts, got {type(content).__name__}"
        )
    return content


def tensors_of(value: object, what: str) -> dict[str, Tensor]:
    """A dictionary of tensors, float32."""
    if not isinstance(value, dict):
        raise RcodError(f"{what} must be a dictionary of tensors, got {type(value).__name__}")
    for name, tensor in value.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            raise RcodError(f"{name} of {what} must be a tensor of floats, "
                            f"got {type(tensor).__name__}")  # fmt: skip
        if tensor.untyped_storage().nbytes() < tensor.nbytes:  # a shape is easily told
            raise RcodError(f"{name} of {what} must hold {tensor.nbytes} bytes by its shape, got "
                            f"{tensor.untyped_storage().nbytes()}")  # fmt: skip
    return {str(name): tensor.detach().float() for name, tensor in value.items()}


def take(state: dict[str, Tensor], name: str, path: Path) -> Tensor:
    """Remove a tensor that must be there."""
    if name not in state:
        raise RcodError(f"{path} lacks the tensor {name}")
    return state.pop(name)


def check_state(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    """Refuse a state that is not exactly the network's, naming the first tensor that is wrong."""
    own = network.state_dict()
    if lost := sorted(own.keys() - state.keys()):
        raise RcodError(f"{what} lacks {lost[0]}")
    if extra := sorted(state.keys() - own.keys()):
        raise RcodError(f"{what} holds {extra[0]}, which has no place")
    for name, tensor in own.items():
        if state[name].shape != tensor.shape:
            raise RcodError(f"{name} of {what} must be {tuple(tensor.shape)}, "
                            f"got {tuple(state[name].shape)}")  # fmt: skip


def check_empty(state: Mapping[str, object], what: str, path: Path) -> None:
    """Refuse what is left when everything known was taken."""
    if state:
        raise RcodError(f"{what} in {path} holds {some(state)}, which has no place")


def some(names: Mapping[str, object]) -> str:
    """The first few of several names."""
    shown = sorted(names)[:3]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(shown) + more
