"""Every command as a real process, offline."""

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import rcod
from rcod.doors.guard import Limits
from rcod.doors.terminal import heard, keep, patience, standard_output
from rcod.errors import RcodError
from rcod.networks.checkpoint import find_weights

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(rcod.__file__).parents[1]), "COLUMNS": "200"}
needs_tiny = pytest.mark.skipif(
    not find_weights("tiny").is_file(), reason="the bundled model's weights are not there yet"
)


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rcod", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120)


def photo(path: Path, width: int = 24, height: int = 20) -> Path:
    Image.radial_gradient("L").resize((width, height)).convert("RGB").save(path)
    return path


def failed(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line per picture that was not done, exit code 1, no traceback."""
    refused(done, *words, code=1)


def refused(done: subprocess.CompletedProcess[str], *words: str, code: int = 2) -> None:
    """One line per error, exit code 2, no traceback."""
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == len(words), done.stderr
    for line, word in zip(lines, words, strict=True):
        assert line.startswith("error: ") and word in line, (line, word)


def test_version_help_and_models():
    assert run("--version").stdout == f"rcod {rcod.__version__}\n"
    assert "upscale" in run("--help").stdout
    listed = run("models").stdout
    assert listed.startswith("tiny") and "MIT" in listed


def test_help_imports_nothing_heavy():
    heavy = "{'torch', 'numpy', 'PIL', 'pydantic'}"
    code = f"import sys, rcod.doors.cli; print({heavy} & set(sys.modules))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stdout.strip() == "set()", done


def test_wrong_use_is_exit_code_two(tmp_path: Path):
    done = run("upscale", photo(tmp_path / "a.png"))
    assert done.returncode == 2 and "Traceback" not in done.stderr and "--out" in done.stderr


def test_an_empty_name_is_not_this_folder(tmp_path: Path, here, monkeypatch):
    source = photo(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    for words in (("", "-o", "out"), (source, "-o", ""), (source, "-o", "b.gif")):
        assert here("upscale", *words).returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--realism", "best", "got 'best'"),
        ("--realism", "", "got ''"),
        ("--realism", "nan", "realism must lie in [0, 1], got nan"),
        ("--scale", "-2", "scale must lie in [1, 8], got -2"),
        ("--scale", "nan", "scale must lie in [1, 8], got nan"),
        ("--color", "red", "color must be one of auto, wavelet, adain, none, got 'red'"),
        ("--format", "gif", "format must be one of same, png, jpg, jpeg, webp, tif, tiff, avif,"),
        ("--quality", "0", "quality must lie in [1, 100], got 0"),
        ("--width", "0", "width must be at least 1 pixel, got 0"),
        ("--realism-map", "none.png", "none.png: must be a readable picture, got: No such file"),
        ("--memory", "much", "memory must be a size such as 4GB or 800MB, got 'much'"),
        ("--seed", "1", "--seed is what --sample draws by"),
        ("--engine", "foo", "or ray to upscale on, got 'foo'"),
    ],
)
def test_wrong_options_are_refused_in_one_sentence(option, value, words, tmp_path: Path, here):
    refused(here("upscale", photo(tmp_path / "a.png"), "-o", tmp_path / "o", option, value), words)
    assert not (tmp_path / "o").exists()


def test_two_answers_to_one_question_are_refused(tmp_path: Path, here):
    source, out = photo(tmp_path / "a.png"), tmp_path / "out"
    size = here("upscale", source, "-o", out, "--scale", "4", "--width", "50")
    refused(size, "--scale and --width or --height both say how large a result is; leave one out")
    mapped = here("upscale", source, "-o", out, "--realism", "1", "--realism-map", source)
    refused(mapped, "a realism map says it for every place; leave out --realism")


def test_an_unknown_model_and_device_are_refused(tmp_path: Path, here):
    source, out = photo(tmp_path / "a.png"), tmp_path / "out"
    refused(here("upscale", source, "-o", out, "--model", "huge"), "model must be")
    refused(here("upscale", source, "-o", out, "--device", "gpu"), "device must be")


def bad_photos(folder: Path) -> dict[Path, str]:
    """Pictures that cannot be read, and words of the sentence each gets."""
    jpeg = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(jpeg, "JPEG")
    (folder / "no-pictures").mkdir()
    contents = {"empty.png": b"", "text.png": b"words", "cut.jpg": jpeg.getvalue()[:900]}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {
        folder / "missing.png": "missing.png: no such file or folder",
        folder / "no-pictures": "no-pictures: a folder must hold at least one picture",
        folder / "empty.png": "empty.png: must hold a picture, and the file is empty",
        folder / "text.png": "text.png: must be a picture that can be read",
        folder / "cut.jpg": "cut.jpg: must be a whole picture",
    }


def test_bad_photos_get_one_sentence_each(tmp_path: Path):
    bad = bad_photos(tmp_path)
    failed(run("upscale", *bad, "-o", tmp_path / "out"), *bad.values())
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["report.json"]


def test_an_unwritable_output_is_refused_before_the_work(tmp_path: Path, here):
    source = photo(tmp_path / "a.png")
    refused(here("upscale", source, source, "-o", source), "several photos must go into a folder")
    failed(here("upscale", source, "-o", source), "a photo to enlarge is never overwritten")
    refused(here("upscale", source, "-o", source / "below"), "must be a folder that can be written")
    if Path("/proc/self").is_dir():  # a folder where not even root can write
        refused(here("upscale", source, "-o", "/proc/out"), "must be a folder that can be written")


def test_no_file_of_the_user_is_overwritten(tmp_path: Path, here):
    source = photo(tmp_path / "a.png")
    twin = photo(tmp_path / "a.jpg")
    before = source.read_bytes()
    failed(here("upscale", source, "-o", tmp_path, "--overwrite"), "never overwritten")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("mine")
    failed(here("upscale", source, "-o", out), "exists already and is not a result of rcod")
    (out / "a.png").unlink()
    done = here("upscale", source, twin, "-o", out, "--format", "png", "--dry-run")
    assert "a.jpg: every picture needs an output name of its own" in done.stderr
    assert source.read_bytes() == before and not list(out.iterdir())


@needs_tiny
def test_good_photos_are_done_beside_bad_ones_at_any_size(tmp_path: Path):
    bad, out = bad_photos(tmp_path), tmp_path / "out"
    good = [photo(tmp_path / "pixel.png", 1, 1), photo(tmp_path / "line.png", 1, 5000)]
    mixed = [*list(bad)[:3], *good, *list(bad)[3:]]
    done = run("upscale", *mixed, "-o", out, "--scale", "1.5")
    failed(done, *bad.values())
    assert sorted(p.name for p in out.iterdir()) == ["line.png", "pixel.png", "report.json"]
    with Image.open(out / "pixel.png") as pixel, Image.open(out / "line.png") as line:
        assert pixel.size == (2, 2) and line.size == (2, 7500)
    closing = done.stdout.splitlines()
    assert len(closing) == 2 + 4  # the summary
    assert closing[2].split() == ["pictures", "megapixels", "seconds"]
    assert closing[5].split() == ["failed", "5"]
    for words in (str(out / "line.png"), "auto chose", "timestep", "metric", "2 x 7500", " s"):
        assert words in closing[1]


@needs_tiny
def test_all_writes_every_level_and_a_sheet_and_equals_one_alone(tmp_path: Path):
    source = photo(tmp_path / "a.png")
    everything = run("upscale", source, "-o", tmp_path / "all", "--realism", "all")
    assert everything.returncode == 0, everything.stderr
    names = ["a-auto", "a-fidelity", "a-levels", "a-neutral", "a-realism"]
    assert sorted(p.stem for p in (tmp_path / "all").iterdir()) == names
    before = {p.name: p.read_bytes() for p in (tmp_path / "all").iterdir()}
    again = run("upscale", source, "-o", tmp_path / "all", "--realism", "all")  # over its own
    assert again.returncode == 0, again.stderr
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "all").iterdir()}
    alone = run("upscale", source, "-o", tmp_path / "one", "--realism", "1")
    assert "realism, timestep" in alone.stdout and "96 x 80" in alone.stdout
    one, level = tmp_path / "one" / "a.png", tmp_path / "all" / "a-realism.png"
    assert one.read_bytes() == level.read_bytes()


@needs_tiny
def test_a_plan_is_told_before_anything_runs(tmp_path: Path, here):
    source = photo(tmp_path / "a.png", 300, 200)
    told = here("plan", source, "--memory", "100GB").stdout
    for words in ("300 x 200 to 1200 x 800, 1 tile of", "1 pass,", " GB at most", " s"):
        assert words in told, told
    assert "4 passes" in here("plan", source, "--realism", "all").stdout
    failed(here("plan", source, "--memory", "1MB"), "a.png: memory must be at least")
    (tmp_path / "b.png").write_bytes(b"no picture")
    Image.new("L", (1, 20_000)).save(tmp_path / "c.jpg")
    photo(tmp_path / "d.png")
    folder = here("plan", tmp_path)
    failed(folder, "b.png: must be a picture", "c.jpg: a JPEG picture must be at most 65500")
    assert folder.stdout.splitlines()[-1].startswith("2 photos, about ")
    assert len(list(tmp_path.iterdir())) == 4
    piped = subprocess.run([sys.executable, "-m", "rcod", "plan", "-"], capture_output=True,
                           input=source.read_bytes(), env=ENVIRONMENT)  # fmt: skip
    assert piped.stdout.startswith(b"-: 300 x 200 to 1200 x 800"), piped.stderr


@needs_tiny
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak can't be asked here")
def test_memory_is_kept_to(tmp_path: Path):
    """Reading of `ru_maxrss` would tell the parent's peak, too."""
    source = photo(tmp_path / "a.png", 900, 600)
    code = "from rcod.doors.cli import main\ntry: main()\n" \
           "finally: print(open('/proc/self/status').read())"  # fmt: skip
    command = [sys.executable, "-c", code, "upscale", source, "-o", tmp_path, "--format", "tif",
               "--memory", "500MB", "--realism", "0"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    (peak,) = (line.split()[1] for line in done.stdout.splitlines() if "VmHWM" in line)
    assert done.returncode == 0 and 1024 * int(peak) < 500e6, done


def test_a_rehearsal_says_what_would_be_done(tmp_path: Path, here):
    source = photo(tmp_path / "a.png")
    done = here("upscale", source, "-o", tmp_path / "out", "--dry-run")
    assert done.returncode == 0
    assert done.stdout == f"{source}: would become {tmp_path / 'out' / 'a.png'}\n"
    failed(here("upscale", tmp_path / "b.png", "-o", tmp_path / "out", "--dry-run"), "no such file")
    assert not (tmp_path / "out").exists()


@needs_tiny
def test_one_photo_takes_the_name_of_a_picture(tmp_path: Path, here):
    source, out = photo(tmp_path / "a.png", 24, 16), tmp_path / "new" / "large.jpeg"
    refused(here("upscale", source, "-o", out, "--format", "png"), "leave it out")
    refused(here("upscale", tmp_path, "-o", out), "several photos must go into a folder")
    refused(here("upscale", source, "-o", out.with_suffix(".bmp")), "name must end in .png")
    done = here("upscale", source, "-o", out, "--realism", "0")
    assert done.returncode == 0, done
    assert [path.name for path in out.parent.iterdir()] == ["large.jpeg"]
    with Image.open(out) as image:
        assert image.format == "JPEG" and image.size == (96, 64)
    every = here("upscale", source, "-o", out.with_suffix(".png"), "--realism", "all")
    assert every.returncode == 0, every
    assert (out.parent / "large-levels.png").is_file()


def test_standard_output_takes_one_result(tmp_path: Path, here):
    source = photo(tmp_path / "a.png")
    refused(here("upscale", source, source, "-o", "-"), "standard output takes one photo")
    refused(here("upscale", source, "-o", "-", "--realism", "all"), "takes one result")
    refused(here("upscale", source, "-o", "-", "--dry-run"), "-o - has none; name a folder")


@needs_tiny
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not checked here: no full device")
def test_a_full_standard_output_is_one_sentence(
    tmp_path: Path, here, monkeypatch: pytest.MonkeyPatch
):
    source = photo(tmp_path / "a.png")
    with Path("/dev/full").open("wb", buffering=0) as full:
        monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=full, encoding="utf-8"))
        done = here("upscale", source, "-o", "-", "--realism", "0", "--device", "cpu")
    refused(done, "standard output must take the whole picture, got: No space left on device")


@needs_tiny
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="not checked here: no full device")
def test_lines_that_find_no_room_stop_no_work(tmp_path: Path):
    source = photo(tmp_path / "a.png")
    upscale = ["upscale", str(source), "-o", str(tmp_path / "out"), "--realism", "0"]
    for arguments in (upscale, ["models"], ["--help"]):
        with Path("/dev/full").open("wb", buffering=0) as full:
            done = subprocess.run([sys.executable, "-m", "rcod", *arguments], stdout=full,
                                  stderr=subprocess.PIPE, env=ENVIRONMENT)  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith(b"error: standard output must take every line, got: No space")
        assert done.stderr.count(b"\n") == 1
    assert (tmp_path / "out" / "a.png").is_file()


def test_a_disk_that_is_full_elsewhere_is_not_blamed_on_standard_output():
    with pytest.raises(OSError, match="of another file"), heard():
        raise OSError(errno.ENOSPC, "of another file")


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of files there")
def test_a_result_that_finds_no_room_to_wait_is_one_sentence():
    import resource

    now = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, now[1]))  # no file may be larger
    try:
        with (
            pytest.raises(RcodError, match="File too large; set TMPDIR"),
            standard_output() as file,
        ):
            file.write(bytes(2**26 + 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, now)


def test_a_closed_pipe_is_no_mistake(monkeypatch: pytest.MonkeyPatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        monkeypatch.setattr("sys.stdout", SimpleNamespace(buffer=pipe))
        with pytest.raises(BrokenPipeError), standard_output() as file:
            file.write(b"a picture")


@pytest.mark.parametrize(
    "command",
    [
        ("study", "dial", "none", "--json"), ("score", "none", "none", "--json"),
        ("benchmark", "--model", "none", "--json"), ("data", "check", "none", "--out"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_written_is_refused_before_the_work(command, tmp_path: Path, here):
    nowhere = tmp_path / "none" / "found.json"
    words = f"{command[-1]} must name a file in a folder that exists, got {nowhere}"
    refused(here(*command, nowhere), words)
    refused(here(*command, tmp_path), f"{command[-1]} must name a file, got the folder {tmp_path}")


def test_a_file_that_cannot_be_written_after_the_work_is_one_sentence(tmp_path: Path):
    with pytest.raises(RcodError, match="must be a file that can be written, got: No such"):
        keep(tmp_path / "none" / "found.json", "words")


def test_a_name_that_is_too_long_is_one_sentence(tmp_path: Path, here):
    source, out, long = photo(tmp_path / "a.png"), tmp_path / "out", "x" * 300
    for given in (("upscale", long, "-o", out), ("upscale", f"*{long}", "-o", out),
                  ("upscale", long, "-o", "-"), ("upscale", source, source, "-o", long),
                  ("plan", long)):  # fmt: skip
        failed(here(*given), "File name too long")


def test_a_bad_photo_for_standard_output_is_named(tmp_path: Path, here):
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff junk")
    source = photo(tmp_path / "tall.jpg", 1, 20_000)
    for given, words in (("bad.jpg", "bad.jpg: must be "), ("none.jpg", "none.jpg: must be a read"),
                         ("tall.jpg", "tall.jpg: a JPEG picture must be at most")):  # fmt: skip
        done = here("upscale", tmp_path / given, "-o", "-")
        failed(done, words)
        assert done.stdout == ""
    with source.open() as stdin, pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", stdin)
        failed(here("upscale", "-", "-o", "-"), "standard input: a JPEG picture must be at most")


@pytest.mark.skipif(sys.platform == "win32", reason="no shell to close streams there")
def test_a_closed_stream_is_one_sentence(tmp_path: Path):
    source = photo(tmp_path / "a.png")

    def closed(stream: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = ["sh", "-c", f'exec "$@" {stream}&-', "sh", sys.executable, "-m", "rcod"]
        return subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True,
                              env=ENVIRONMENT, timeout=120)  # fmt: skip

    into = "upscale", "-", "-o"
    for more in ((*into, tmp_path / "o"), (*into, "-"), ("plan", "-")):
        failed(closed("<", *more), "standard input must be open, and it is closed")
    refused(closed(">", "upscale", source, "-o", "-"), "standard output must be open, and it is")
    assert closed(">", "models").returncode == 0


@pytest.mark.parametrize("command", ["web", "serve"])
@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "a token must be 8 to 200 printable characters"),
        (("--timeout", "inf", "--token", "open-sesame"), "seconds must be above 0 and finite"),
    ],
)
def test_what_a_server_cannot_be_is_refused(
    command: str, more: tuple[str, ...], words: str, here, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RCOD_TOKEN", "")
    monkeypatch.setattr("rcod.doors.web.listen_and_serve", lambda *given: pytest.fail("served"))
    refused(here(command, "--host", "0.0.0.0", *more), words)


def test_a_token_comes_from_the_environment(here, monkeypatch: pytest.MonkeyPatch):
    limits: list[Limits] = []
    monkeypatch.setattr("rcod.doors.web.listen_and_serve", lambda *given: limits.append(given[3]))
    monkeypatch.setenv("RCOD_TOKEN", "of-the-environment")
    here("web")
    here("web", "--token", "of-the-call")
    monkeypatch.delenv("RCOD_TOKEN")
    here("web")
    assert [one.token for one in limits] == ["of-the-environment", "of-the-call", None]


@pytest.mark.parametrize("size", ["\u00b2", "0", "-3", "sd"])
def test_a_size_that_is_no_number_of_pixels_is_refused(size: str, here):
    refused(here("benchmark", "--size", size), f"or sd with --systems, got {size}")


@pytest.mark.parametrize("command", ["web", "serve"])
def test_the_page_without_its_extra_is_refused(command: str, here, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "rcod.doors.web", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    refused(here(command), "need uvicorn, which isn't installed; pip install 'rcod[web]'")


@needs_tiny
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to a process here")
def test_ctrl_c_stops_cleanly(tmp_path: Path):
    sources = [str(photo(tmp_path / f"{i}.png", 200, 200)) for i in range(40)]
    command = [sys.executable, "-m", "rcod", "upscale", *sources, "-o", str(tmp_path / "o")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first picture is done
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "stopped; every file that was written is whole\n"
    for path in (tmp_path / "o").glob("*.png"):
        with Image.open(path) as picture:
            picture.load()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process at once there")
def test_the_first_signal_waits_and_the_second_ends(number: signal.Signals):
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with pytest.raises(KeyboardInterrupt), patience() as stop:
            assert not stop()
            signal.raise_signal(number)
            assert stop()
            signal.raise_signal(number)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_training_refuses_what_it_cannot_do(tmp_path: Path, here):
    place = ("--photos", tmp_path, "--run", tmp_path / "run")
    refused(here("train", "huge", *place), "no recipe is called huge; there are tiny-autoencoder")
    refused(here("train", "tiny-prior", "steps", *place), "changed by key=value, got steps")
    refused(here("train", "tiny-prior", "steps=0", *place), "steps: Input should be greater than")
    refused(here("train", "tiny-prior", *place), "a folder must hold at least one picture")


def test_a_model_is_trained_from_the_command_line(tmp_path: Path, here):
    (tmp_path / "photos").mkdir()
    photo(tmp_path / "photos" / "a.png", 96, 80)
    small = ("data.crop=64", "data.crops=4", "window=32", "model.latent=12")
    done = here("train", "tiny-autoencoder", *small, "--photos", tmp_path / "photos", "--run",
                tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").is_file()


@needs_tiny
def test_other_weights_of_the_same_size_are_another_setting(tmp_path: Path):
    weights = tmp_path / "mine.safetensors"
    held = find_weights("tiny").read_bytes()
    weights.write_bytes(held)
    (tmp_path / "in").mkdir()
    photo(tmp_path / "in" / "a.png")
    call = ["upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", weights]
    assert "done already" not in run(*call).stdout
    assert "done already" in run(*call).stdout
    weights.write_bytes(held[:-2] + b"\0\0")
    again = run(*call)
    assert again.returncode == 0 and "done already" not in again.stdout
