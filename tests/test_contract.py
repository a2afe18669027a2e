"""The interface against its own OpenAPI description, by a tool that others wrote."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from running import start

EXAMPLES = 40  # requests of each kind and route; `python tests/test_contract.py 500` for more
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance",
          "response_schema_conformance")  # fmt: skip


def hammer(examples: int, folder: Path) -> tuple[subprocess.CompletedProcess[str], str, bool]:
    """Let schemathesis ask: what it found, what the server logged, whether that still answers."""
    server = start("--max-megapixels", "1", "--max-megabytes", "1")
    command = [
        sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run",
        f"{server.url}/openapi.json", "--checks", ",".join(CHECKS), "--seed", "0",
        "--max-examples", str(examples), "--phases", "examples,coverage,fuzzing", "--no-color",
        "--no-shrink", "--generation-database", "none", "--warnings", "off",
        "--continue-on-failure",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        alive = httpx.get(f"{server.url}/healthz").status_code == 200
    finally:
        code, errors = server.end()
    assert code == 0
    return done, errors, alive


@pytest.mark.skipif(
    importlib.util.find_spec("schemathesis") is None,
    reason="not checked here: schemathesis isn't installed",
)
def test_no_request_that_the_description_suggests_breaks_the_server(tmp_path: Path):
    done, errors, alive = hammer(EXAMPLES, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    assert alive and errors == ""
    assert re.search(r"(\d+) (?:generated|passed)", done.stdout)


if __name__ == "__main__":
    done, errors, alive = hammer(int(sys.argv[1]), Path.cwd())
    print(done.stdout[-6000:], errors, f"alive: {alive}")
