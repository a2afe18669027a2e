"""What can a caller fix?

Every mistake that comes from outside (a file, a number, a name) is raised as `RcodError`
with one sentence: what must hold, what came, what to do. The command line prints it
without a traceback. A bug of our own is an `assert` instead.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class RcodError(ValueError):
    """Something the caller can fix; its text says how."""


class TooLarge(RcodError):
    """A picture with more pixels than can be taken."""


def explain(error: "ValidationError", whole: str = "it") -> str:
    """The first of what a model holds against values, as `where: what must hold, got what`."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or whole
    if first["type"] == "extra_forbidden":
        return f"there is no setting called {where}"
    said = first["msg"].removeprefix("Value error, ")
    came = "" if first["type"] == "value_error" else f", got {first['input']}"
    return f"{where}: {said}{came}"
