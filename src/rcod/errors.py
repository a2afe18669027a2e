"""What can a caller fix?

Every mistake that comes from outside (a file, a number, a name) is raised as `RcodError`
with one sentence: what must hold, what came, what to do. The command line prints it
without a traceback. A bug of our own is an `assert` instead.
"""


class RcodError(ValueError):
    """Something the caller can fix; its text says how."""
