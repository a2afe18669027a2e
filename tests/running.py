"""A server in a process of its own, for the tests of HTTP and of the page."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import rcod

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(rcod.__file__).parents[1]), "COLUMNS": "200"}


@dataclass
class Running:
    """A server process and where it listens."""

    process: subprocess.Popen[str]
    url: str

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").split(":")
        return host, int(port)

    def end(self) -> tuple[int, str]:
        """SIGTERM, then exit code and everything it wrote to standard error."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


def start(*options: str) -> Running:
    """Run `rcod serve` on a free port, and wait until it answers."""
    command = [sys.executable, "-m", "rcod", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    if "http://" not in line:
        process.kill()
        raise AssertionError(process.communicate()[1])
    return Running(process, "http://" + line.split("http://")[1].split()[0].rstrip("/"))


@contextmanager
def own_signals() -> Iterator[None]:
    """Let a server that runs in this process hear signals, and give pytest its own back."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
