"""Do the Dockerfile's steps work, where there is no Docker?

    python tools/check_image.py

Reads the Dockerfile and does what it says, in a temporary folder: copies exactly the files that
it copies (less what .dockerignore keeps out), installs into a fresh environment, starts the
command as a user without rights where this runs as root, runs the health check, enlarges a photo,
and ends the process as Docker does. Also checks that compose.yaml names what the image has.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[1]
NOBODY = 65534  # Debian's user and group without rights
TOKEN = "check-image"
PORT = "7861"  # not the image's own, which may be in use here


def main() -> None:
    """Do the steps, saying each."""
    argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    steps = instructions((ROOT / "Dockerfile").read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="rcod-image-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        (build := root / "build").mkdir()
        for name, rest in steps:
            if name == "COPY" and not rest.startswith("--from"):
                copy(rest.split()[:-1], build)
            elif name == "RUN" and "/opt/rcod" in rest:
                run(rest.replace("/opt/rcod", str(root / "opt")), build)
        command = [value for name, value in steps if name == "CMD"][-1]
        check = next(value for name, value in steps if name == "HEALTHCHECK")
        serve(root, json.loads(command), json.loads(re.findall(r"CMD (\[.*\])", check)[0]))
    check_compose(steps)
    print("image: every step works")


def instructions(text: str) -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(name, rest.strip()) for name, _, rest in (x.partition(" ") for x in lines if x)]


def copy(names: list[str], build: Path) -> None:
    """COPY, from what .dockerignore lets through."""
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    for name in names:
        kept = f"!{name.removeprefix('./')}"
        if "*" in ignore and kept not in ignore:
            sys.exit(f"image: .dockerignore keeps out {name}, which the Dockerfile copies")
        source = ROOT / name
        print(f"image: COPY {name}", flush=True)
        if source.is_dir():
            skip = [line.rsplit("/", 1)[-1] for line in ignore if line.startswith("**/")]
            shutil.copytree(source, build / name, ignore=shutil.ignore_patterns(*skip))
        else:
            shutil.copy(source, build / name)


def run(command: str, build: Path) -> None:
    """RUN, with this Python where the image has its own."""
    shown = command.replace(str(build.parent), "")
    print(f"image: RUN {shown}", flush=True)
    command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
    subprocess.run(["sh", "-euc", command], cwd=build, check=True, stdout=subprocess.DEVNULL)


def serve(root: Path, command: list[str], health: list[str]) -> None:
    """CMD, HEALTHCHECK, one photo, and Docker's SIGTERM."""
    bin_ = root / "opt" / "bin"
    command = [str(bin_ / command[0]), *command[1:]]
    command[command.index("--port") + 1] = PORT
    command[command.index("--host") + 1] = "127.0.0.1"
    health = [part.replace("7860", PORT) for part in health]
    path = f"{bin_}:{os.environ['PATH']}"
    quiet = {"PATH": path, "HOME": "/nonexistent", "RCOD_TOKEN": TOKEN}
    who = NOBODY if os.getuid() == 0 and is_open(Path(sys.base_prefix)) else None
    print(f"image: CMD as {'this user' if who is None else 'nobody'}", flush=True)
    process = subprocess.Popen(command, env=quiet, cwd="/", user=who, group=who)
    try:
        for _ in range(120):
            ready = subprocess.run(health, env=quiet, cwd="/", stderr=subprocess.DEVNULL)
            if ready.returncode == 0:
                break
            time.sleep(0.5)
        else:
            sys.exit("image: the health check never passed")
        print("image: healthy", flush=True)
        enlarge()
    finally:
        process.terminate()
        code = process.wait(60)
    if code != 0:
        sys.exit(f"image: SIGTERM must end it with 0, got {code}")


def is_open(folder: Path) -> bool:
    """Whether a user without rights may run what lies in a folder."""
    return all(
        path.stat().st_mode & 0o001 for path in (folder.resolve(), *folder.resolve().parents)
    )


def enlarge() -> None:
    """Send a photo over HTTP."""
    shown = {"Authorization": f"Bearer {TOKEN}"}
    photo = {"image": (ROOT / "examples" / "heron.jpg").read_bytes()}
    answer = httpx.post(
        f"http://127.0.0.1:{PORT}/v1/upscale", files=photo, headers=shown, timeout=60
    )
    if answer.status_code != 200 or not answer.content.startswith(b"\x89PNG"):
        sys.exit(f"image: a PNG must come back, got {answer.status_code} {answer.text[:200]}")
    print("image: a photo came back", flush=True)


def check_compose(steps: list[tuple[str, str]]) -> None:
    """The port that compose.yaml publishes is the one the image exposes."""
    exposed = next(value for name, value in steps if name == "EXPOSE")
    compose = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    if f':{exposed}"' not in compose or "build:" not in compose:
        sys.exit(f"image: compose.yaml must build here and publish port {exposed}")


if __name__ == "__main__":
    main()
