"""The HTTP interface over a real socket, in a process of its own."""

import asyncio
import concurrent.futures
import contextlib
import errno
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from running import ENVIRONMENT, Running, start
from starlette.datastructures import UploadFile

from rcod.doors.guard import Guard
from rcod.doors.open_photos import OpenPhotos
from rcod.doors.server import create_app, zip_levels
from rcod.doors.service import Service
from rcod.doors.web import add_page
from rcod.doors.work_queue import Stopped, Ticket, WorkQueue
from rcod.errors import RcodError
from rcod.pixels.images import Photo, write
from rcod.pixels.metadata import GPS, MARK_TAG, TURN
from rcod.using.open_photo import OpenPhoto, Setting, take
from rcod.using.orders import Options
from rcod.using.restore import LEAST_TILE, Restorer, Result

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "otter.jpg"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    running = start("--queue", "32", "--max-megapixels", "1", "--max-megabytes", "3")
    yield running
    code, errors = running.end()
    assert code == 0 and errors == "", errors


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("tiny")


def small(side: int = 24) -> bytes:
    image = Image.open(EXAMPLE).crop((30, 30, 30 + side, 30 + side))
    image.save(content := io.BytesIO(), "PNG")
    return content.getvalue()


def grown(side: int) -> bytes:
    """A larger photo."""
    Image.open(EXAMPLE).resize((side, side)).save(content := io.BytesIO(), "PNG")
    return content.getvalue()


def post(url: str, content: bytes, timeout: float = 30, **fields: str) -> httpx.Response:
    files = {"image": ("photo.png", content)}
    return httpx.post(f"{url}/v1/upscale", files=files, data=fields, timeout=timeout)


def alive(running: Running) -> bool:
    return httpx.get(f"{running.url}/healthz", timeout=10).json()["status"] == "ok"


def own_bytes(restorer: Restorer, path: Path, content: bytes, realism: float | str) -> bytes:
    """What Python writes for the same settings."""
    (source := path.with_suffix(".in.png")).write_bytes(content)
    write(path, restorer(source, realism).photo)  # pyright: ignore[reportArgumentType]
    return path.read_bytes()


def test_http_python_and_command_line_give_the_same_bytes(
    server: Running, restorer: Restorer, tmp_path: Path
):
    content = small()
    (photo := tmp_path / "a.png").write_bytes(content)
    command = [sys.executable, "-m", "rcod", "upscale", str(photo), "-o", str(tmp_path / "out"),
               "--realism", "0.37", "--scale", "3"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
    answer = post(server.url, content, realism="0.37", scale="3")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/png"
    assert answer.content == (tmp_path / "out" / "a.png").read_bytes()
    write(tmp_path / "b.png", restorer(photo, 0.37, 3).photo)
    assert answer.content == (tmp_path / "b.png").read_bytes()


def test_sizes_quality_and_tags_are_those_of_the_command_line(server: Running, tmp_path: Path):
    content = placed_photo()
    (photo := tmp_path / "a.jpg").write_bytes(content)
    for number, fields in enumerate((
        {"width": "70", "quality": "40", "format": "jpg"},
        {"height": "20", "max_side": "50", "format": "png"},  # smaller than the photo
    )):  # fmt: skip
        options = [f"--{name.replace('_', '-')}={value}" for name, value in fields.items()]
        command = [sys.executable, "-m", "rcod", "upscale", str(photo), "--realism", "0.37",
                   "--strip-gps", "-o", str(tmp_path / f"{number}"), *options]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT)
        answer = post(server.url, content, 30, realism="0.37", strip="gps", **fields)
        assert answer.content == (tmp_path / f"{number}" / f"a.{fields['format']}").read_bytes()
    assert post(server.url, content, width="9000").status_code == 422
    files = {"image": ("a.jpg", content)}
    fields = {"width": "70", "strip": "all", "quality": "40", "format": "jpg"}
    levels = httpx.post(f"{server.url}/v1/levels", files=files, data=fields, timeout=30)
    with zipfile.ZipFile(io.BytesIO(levels.content)) as packed:
        picture = Image.open(io.BytesIO(packed.read("auto.jpg")))
    assert picture.width == 70 and set(picture.getexif()) == {MARK_TAG}


def placed_photo() -> bytes:
    """A photo, stored turned, that says where and by what it was taken."""
    exif = Image.Exif()
    exif[TURN], exif[271] = 6, "A camera"
    exif[GPS] = {1: "N", 2: (47.0, 22.0, 5.0)}
    image = Image.open(EXAMPLE).crop((30, 30, 70, 54))
    image.save(content := io.BytesIO(), "JPEG", exif=exif)
    return content.getvalue()


def test_the_place_travels_unless_it_is_left_out(server: Running):
    for strip, kept in (("nothing", {271, GPS}), ("gps", {271}), ("all", set())):
        answer = post(server.url, placed_photo(), strip=strip, scale="1")
        assert set(Image.open(io.BytesIO(answer.content)).getexif()) - {MARK_TAG} >= kept
        assert (GPS in Image.open(io.BytesIO(answer.content)).getexif()) == (GPS in kept)


def test_what_could_not_be_kept_is_told(server: Running):
    assert "x-rcod-note" not in post(server.url, small(8)).headers
    page = Image.new("RGB", (8, 8))
    page.save(content := io.BytesIO(), "TIFF", save_all=True, append_images=[page])
    answer = post(server.url, content.getvalue())
    told = "The photo has more than one page; the first is taken and the others are left out."
    assert answer.headers["x-rcod-note"] == told
    page.save(content := io.BytesIO(), "PNG", exif=heavy())
    answer = post(server.url, content.getvalue(), format="jpg")
    assert "more EXIF than a JPEG holds" in answer.headers["x-rcod-note"]


def heavy() -> Image.Exif:
    """More EXIF than a JPEG holds."""
    exif = Image.Exif()
    exif[270] = "x" * 70_000
    return exif


def test_headers_tell_how_the_picture_came_about(server: Running, restorer: Restorer):
    answer = post(server.url, small(), format="jpg")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (96, 96)
    assert answer.headers["x-rcod-level"] in ("fidelity", "neutral", "realism")
    assert answer.headers["x-rcod-auto"] == "true" and float(answer.headers["x-rcod-metric"]) > 0
    assert int(answer.headers["x-rcod-timestep"]) in restorer.system.groups.timesteps
    assert {"queue;dur", "predict;dur", "color;dur"} <= {
        part.strip().split("=")[0] for part in answer.headers["server-timing"].split(",")
    }


def test_requests_at_once_give_the_pictures_of_serial_runs(
    server: Running, restorer: Restorer, tmp_path: Path
):
    content = small(16)
    places = [step / 19 for step in range(20)]
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda r: post(server.url, content, realism=repr(r)), places))
    for place, answer in zip(places, answers, strict=True):
        assert answer.content == own_bytes(restorer, tmp_path / "x.png", content, place)


def test_levels_come_as_a_zip(server: Running, restorer: Restorer):
    files = {"image": ("photo.png", small())}
    answer = httpx.post(f"{server.url}/v1/levels", files=files, timeout=30)
    with zipfile.ZipFile(io.BytesIO(answer.content)) as packed:
        names = ["fidelity.png", "neutral.png", "realism.png", "auto.png"]
        assert packed.namelist() == [*names, "levels.png", "levels.json"]
        told = json.loads(packed.read("levels.json"))
        steps = restorer.system.groups.timesteps
        assert told["realism"]["x-rcod-timestep"] == str(max(steps))
        neutral = post(server.url, small(), realism="neutral").content
        assert packed.read("neutral.png") == neutral


def test_levels_end_with_their_tile_when_the_client_has_gone(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
):
    finish = restorer.finish
    done: list[Result] = []

    def left(*given: Any) -> Result:
        ticket.stop()
        done.append(finish(*given))
        return done[-1]

    held = OpenPhoto(restorer, take(small()), keep=0)
    ticket = Ticket(lambda ticket: zip_levels(held, Setting(), Options(format="png"), ticket))
    monkeypatch.setattr(restorer, "finish", left)
    ticket.run()
    assert isinstance(ticket.result.exception(), Stopped) and done == []


def answered(restorer: Restorer, path: str = "/v1/upscale", **fields: str) -> httpx.Response:
    """What the service says to a small photo, in this process."""

    async def ask(app: Guard) -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.post(path, files={"image": ("a.png", small(8))}, data=fields)

    with WorkQueue() as engine:
        service = Service(restorer, engine)
        add_page(inner := create_app(service), service, OpenPhotos())
        app = Guard(inner, service.limits, engine, service.meters, None)
        return asyncio.run(ask(app))


@pytest.mark.parametrize("path", ["/v1/upscale", "/v1/levels"])
def test_what_nobody_foresaw_is_a_sentence_and_logged_once(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, path: str
):
    def broken(*given: Any) -> Result:
        raise RuntimeError("secret/path")

    monkeypatch.setattr(restorer, "finish", broken)
    answer = answered(restorer, path)
    assert answer.status_code == 500 and answer.headers["content-type"] == "application/json"
    assert answer.json() == {"error": "the server failed; its log says why"}
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert caplog.text.count("RuntimeError: secret/path") == 1


@pytest.mark.parametrize("path", ["/v1/upscale", "/v1/levels", "/page/photos"])
def test_an_uploads_temporary_file_ends_before_its_request_waits(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch, path: str
):
    seen: list[str] = []
    close = UploadFile.close

    async def closed(upload: UploadFile) -> None:
        seen.append("closed")
        await close(upload)

    def taken(service: Service, content: bytes, *more: Options) -> Photo:
        seen.append("taken")
        raise RcodError("enough")

    monkeypatch.setattr(UploadFile, "close", closed)
    monkeypatch.setattr(Service, "take", taken)
    assert answered(restorer, path).json() == {"error": "enough"}
    assert seen[:2] == ["closed", "taken"]


def test_a_full_disk_or_memory_is_not_the_clients_mistake(
    restorer: Restorer, monkeypatch: pytest.MonkeyPatch
):
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def small_memory(*given: Any) -> Result:
        return restorer.with_tile(LEAST_TILE).within_memory(unheld)

    def unheld(_: Restorer) -> Result:
        raise RuntimeError("can't allocate memory: you tried to allocate 9 bytes")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        answer = answered(restorer)
    sentence = answer.json()["error"]
    assert answer.status_code == 507 and "No space left on device" in sentence
    monkeypatch.setattr(restorer, "finish", small_memory)
    answer = answered(restorer)
    assert answer.status_code == 507 and "memory must hold one tile" in answer.json()["error"]
    assert answered(restorer, realism="can't allocate memory").status_code == 422


def test_models_metrics_and_description(server: Running):
    assert httpx.get(f"{server.url}/v1/models").json()["loaded"] == "tiny"
    post(server.url, small())
    text = httpx.get(f"{server.url}/metrics").text
    assert 'rcod_requests_total{route="/v1/upscale",status="200"}' in text
    assert 'rcod_request_seconds_bucket{route="/v1/upscale",le="+Inf"}' in text
    assert "rcod_seats_taken" in text and "rcod_memory_bytes" in text
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert set(paths) == {"/v1/upscale", "/v1/levels", "/v1/models", "/healthz", "/metrics"}


@pytest.mark.parametrize(
    ("content", "fields", "status", "words"),
    [
        (b"no picture", {}, 422, "must be a picture that can be read"),
        (b"", {}, 422, "must hold a picture"),
        (small()[:300], {}, 422, "must be a whole picture"),
        (small(), {"realism": "strong"}, 422, "realism must be fidelity"),
        (small(), {"realism": "nan"}, 422, "realism must lie in [0, 1]"),
        (small(), {"scale": "99"}, 422, "scale: "),
        (small(), {"scale": "nan"}, 422, "scale: "),
        (small(), {"format": "exe"}, 422, "format: "),
        (small(), {"color": "../../etc"}, 422, "color: "),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    server: Running, content: bytes, fields: dict[str, str], status: int, words: str
):
    answer = post(server.url, content, 30, **fields)
    assert answer.status_code == status
    sentence = answer.json()["error"]
    assert words in sentence and "\n" not in sentence
    for secret in ("Traceback", "/tmp", "rcod-", str(ROOT), ".py"):
        assert secret not in answer.text


Parts = list[tuple[str, tuple[str | None, bytes]]]


@pytest.mark.parametrize(
    ("path", "more", "words"),
    [
        (
            "/v1/upscale",
            [("realsim", (None, b"0.4"))],
            "one of image, realism, realism_map, color, ",
        ),
        ("/v1/upscale", [("realsim", (None, b"0.4"))], "got 'realsim'; correct or leave it out"),
        ("/v1/upscale", [("mask", ("m.png", b""))], "got 'mask'; correct or leave it out"),
        ("/v1/levels", [("realism", (None, b"0.4"))], "got 'realism'; correct or leave it out"),
        ("/v1/upscale", [("image", ("b.png", b""))], "image must come once, got it 2 times"),
        ("/v1/levels", [("scale", (None, b"2"))] * 3, "scale must come once, got it 3 times"),
        ("/v1/upscale?realism=0.4&scale=2", [], "must come in the form, got 'realism' in the addr"),
        ("/v1/levels?scale=2", [], "must come in the form, got 'scale' in the address"),
        (
            "/v1/upscale",
            [("realism_map", (None, b"m.png"))],
            "realism_map must be a file, got text",
        ),
    ],
)
def test_no_field_goes_unread(server: Running, path: str, more: Parts, words: str):
    parts: Parts = [("image", ("a.png", small(8))), *more]
    answer = httpx.post(server.url + path, files=parts, timeout=30)
    assert answer.status_code == 422 and words in answer.json()["error"]


def test_a_file_that_comes_as_text_is_one_sentence(server: Running):
    url = f"{server.url}/v1/upscale"
    for answer in (
        httpx.post(url, files={"image": (None, b"abc")}), httpx.post(url, data={"image": "abc"}),
    ):  # fmt: skip
        assert answer.status_code == 422
        sentence = "image must be a file, got text; send it as curl -F image=@photo.jpg does"
        assert answer.json() == {"error": sentence}


def test_every_place_has_the_realism_of_the_map_or_of_its_metric(
    server: Running, restorer: Restorer, tmp_path: Path
):
    (source := tmp_path / "a.png").write_bytes(content := small())
    Image.linear_gradient("L").save(drawn := io.BytesIO(), "PNG")
    files = {"image": ("a.png", content), "realism_map": ("m.png", drawn.getvalue())}
    answer = httpx.post(f"{server.url}/v1/upscale", files=files, timeout=30)
    write(tmp_path / "map.png", restorer(source, take(drawn.getvalue()).pixels.mean(0)).photo)
    assert answer.content == (tmp_path / "map.png").read_bytes()
    assert answer.headers["x-rcod-level"] == "map"
    answer = post(server.url, content, realism="auto-local")
    write(tmp_path / "local.png", restorer(source, "auto-local").photo)
    assert answer.content == (tmp_path / "local.png").read_bytes()
    assert answer.headers["x-rcod-level"] == "auto-local"


def test_a_map_that_does_not_fit_is_one_sentence(server: Running):
    Image.new("L", (90, 30)).save(wide := io.BytesIO(), "PNG")
    Image.new("L", (2000, 600)).save(large := io.BytesIO(), "PNG")
    for drawn, fields, status, words in (
        (wide.getvalue(), {}, 422, "the realism map must have the photo's shape, got 90 x 30"),
        (wide.getvalue(), {"realism": "0.4"}, 422, "for every place, got realism 0.4, too; leave"),
        (b"none", {}, 422, "realism_map: must be a picture that can be read"),
        (large.getvalue(), {}, 413, "a realism map must have at most 1 megapixels here, got 2000"),
    ):
        files = {"image": ("a.png", small()), "realism_map": ("m.png", drawn)}
        answer = httpx.post(f"{server.url}/v1/upscale", files=files, data=fields, timeout=30)
        assert answer.status_code == status and words in answer.json()["error"]


def test_too_many_pixels_are_refused_before_decoding(server: Running):
    Image.new("L", (9000, 8000)).save(content := io.BytesIO(), "PNG")
    answer = post(server.url, content.getvalue())
    assert answer.status_code == 413
    sentence = answer.json()["error"]
    assert "at most 1 megapixels here, got 9000 x 8000" in sentence
    assert sentence.endswith("rcod web --max-megapixels 72")
    answer = post(server.url, small(160), scale="8")
    assert answer.status_code == 413
    assert "choose a smaller scale, at most 6.2" in answer.json()["error"]


@pytest.mark.parametrize("view", ["result", "before", "invention", "sheet"])
def test_the_page_gets_no_larger_results_than_others(server: Running, view: str):
    opened = httpx.post(f"{server.url}/page/photos", files={"image": ("a.png", small(160))})
    photo = f"{server.url}/page/photos/{opened.json()['id']}"
    answer = httpx.get(f"{photo}/{view}?scale=8", timeout=60)
    assert answer.status_code == 413
    assert "choose a smaller scale, at most 6.2" in answer.json()["error"]


def test_a_large_body_is_refused_without_being_read(server: Running):
    answer = post(server.url, bytes(4_000_000))
    assert answer.status_code == 413 and "at most 3 MB" in answer.json()["error"]
    assert answer.json()["error"].endswith("rcod web --max-megabytes 5")

    def pieces() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield bytes(100_000)

    chunked = {"content-type": "multipart/form-data; boundary=x"}
    answer = httpx.post(f"{server.url}/v1/upscale", content=pieces(), headers=chunked, timeout=30)
    assert answer.status_code == 413
    with socket.create_connection(server.address, timeout=10) as raw:
        raw.sendall(b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\n"
                    b"Content-Length: 2000000000\r\n\r\nabc")  # fmt: skip
        assert raw.recv(100).startswith(b"HTTP/1.1 413")
    assert alive(server)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: local",  # half a header, then nothing
        b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\nshort",
        b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\ntoo long",
        b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Content-Length: 6\r\n\r\nhello",
        b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET " + b"/" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_broken_requests_do_no_harm(server: Running, request_: bytes):
    with socket.create_connection(server.address, timeout=10) as raw:
        raw.sendall(request_)
        raw.shutdown(socket.SHUT_WR)  # half-closed: nothing more will come
        answer = b""
        while piece := raw.recv(4096):
            answer += piece
    assert answer[:12] in (b"", b"HTTP/1.1 400", b"HTTP/1.1 422") and b"Traceback" not in answer
    assert alive(server)


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "C:\\x.png", "a\0b.png", "x" * 3000, "%2e%2e/a"]
)
def test_file_names_are_never_used(server: Running, name: str):
    files = {"image": (name, small(8))}
    answer = httpx.post(f"{server.url}/v1/upscale", files=files, timeout=30)
    assert answer.status_code in (200, 400) and "passwd" not in answer.text
    for path in ("/page/../cli.py", "/page/%2e%2e/cli.py", "/page/..%2f..%2fcli.py", "/page/nope"):
        with socket.create_connection(server.address, timeout=10) as raw:
            raw.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            assert raw.recv(100).startswith(b"HTTP/1.1 404")


def test_other_hosts_names_and_other_sites_are_refused(server: Running):
    answer = httpx.get(f"{server.url}/v1/models", headers={"host": "evil.example"})
    assert answer.status_code == 403
    url, files = f"{server.url}/v1/upscale", {"image": ("a.png", small(8))}
    for headers in (
        {"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}, {"origin": "null"},
        {"origin": "http://localhost:3000", "sec-fetch-site": "same-site"},
    ):  # fmt: skip
        assert httpx.post(url, headers=headers, files=files).status_code == 403
    own = {"origin": server.url, "sec-fetch-site": "same-origin"}
    assert httpx.post(url, headers=own, files=files, timeout=30).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.2", "LOCALHOST"])
def test_this_machine_is_itself_in_every_spelling(host: str):
    running = start("--host", host)
    try:
        assert httpx.get(f"{running.url}/page/about").json()["megabytes"] == 512
        answer = httpx.get(f"{running.url}/v1/models", headers={"host": "evil.example"})
        assert answer.status_code == 403
    finally:
        code, _ = running.end()
    assert code == 0


def test_every_answer_keeps_pages_apart(server: Running):
    for path in ("/", "/healthz", "/nothing"):
        headers = httpx.get(server.url + path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers


def test_token_queue_and_timeouts():
    running = start("--queue", "1", "--token", "open-sesame", "--timeout", "1")
    shown = {"authorization": "Bearer open-sesame"}
    try:
        assert alive(running)
        assert httpx.get(f"{running.url}/v1/models").status_code == 401
        wrong = {"authorization": "Bearer open-sesamf"}
        assert httpx.get(f"{running.url}/v1/models", headers=wrong).status_code == 401
        assert httpx.get(f"{running.url}/v1/models", headers=shown).status_code == 200
        entered = httpx.get(f"{running.url}/?token=open-sesame")
        assert entered.status_code == 303 and entered.headers["location"] == "/"
        cookie = entered.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie
        cookies = {"cookie": cookie.split(";")[0]}
        assert httpx.get(f"{running.url}/", headers=cookies).status_code == 200
        large = {"image": ("a.png", small(160))}
        full: list[httpx.Response] = []
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            url = f"{running.url}/v1/upscale"
            for answer in pool.map(
                lambda _: httpx.post(url, files=large, headers=shown, timeout=30), range(8)
            ):
                full.append(answer)
        assert {answer.status_code for answer in full} <= {200, 503, 504}
        refused = [answer for answer in full if answer.status_code == 503]
        assert refused and all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert "all seats are taken" in refused[0].json()["error"]
        huge = {"image": ("a.png", grown(400))}
        url = f"{running.url}/v1/levels"
        late = until(lambda: httpx.post(url, files=huge, headers=shown, timeout=30), 504)
        assert "longer than 1 s" in late.json()["error"]
        assert alive(running)
    finally:
        code, _ = running.end()
    assert code == 0


def test_who_leaves_gives_the_seat_back(server: Running):
    body = (b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            + grown(240) + b"\r\n--x--\r\n")  # fmt: skip
    head = (b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
            b"boundary=x\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n")  # fmt: skip
    for _ in range(6):
        with socket.create_connection(server.address, timeout=10) as raw:
            raw.sendall(head + body)
            time.sleep(0.05)
    begin = time.monotonic()
    assert post(server.url, small(8)).status_code == 200
    assert time.monotonic() - begin < 3, "only what ran was finished"
    assert "rcod_seats_taken 0" in httpx.get(f"{server.url}/metrics").text


def test_only_so_many_bodies_are_received_at_once(server: Running):
    begun = (b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; "
             b"boundary=x\r\nContent-Length: 5000\r\n\r\n--x\r\n")  # fmt: skip
    with contextlib.ExitStack() as stack:
        for _ in range(2 * 32):
            raw = stack.enter_context(socket.create_connection(server.address, timeout=10))
            raw.sendall(begun)
        busy = until(lambda: post(server.url, small(8)), 503)
        assert int(busy.headers["retry-after"]) >= 1 and "seats" in busy.json()["error"]
        assert alive(server)
    until(lambda: post(server.url, small(8)), 200)


def until(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    """Ask until the answer is of that status."""
    for _ in range(40):
        if (answer := ask()).status_code == status:
            return answer
        time.sleep(0.05)
    raise AssertionError(f"no answer was a {status}")


def test_sigterm_lets_a_request_finish():
    running = start()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        future = pool.submit(post, running.url, grown(100), realism="1")
        deadline = time.monotonic() + 20
        while "rcod_seats_taken 1" not in httpx.get(f"{running.url}/metrics").text:
            assert time.monotonic() < deadline and not future.done()
        code, errors = running.end()
        assert future.result().status_code == 200
        assert Image.open(io.BytesIO(future.result().content)).size == (400, 400)
    assert (code, errors) == (0, "")


def test_a_taken_port_is_one_sentence(server: Running):
    command = [sys.executable, "-m", "rcod", "serve", "--port", str(server.address[1])]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert done.returncode == 2 and "must be free to listen on" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_every_reference_of_the_description_leads_somewhere(server: Running):
    described = httpx.get(f"{server.url}/openapi.json").json()
    known = {f"#/components/schemas/{name}" for name in described["components"]["schemas"]}
    named = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(described)))
    assert named and named <= known
    for path in ("/healthz", "/v1/models", "/metrics"):
        assert {"403", "500"} <= set(described["paths"][path]["get"]["responses"])
    for methods in described["paths"].values():
        assert "head" not in methods
        for route in methods.values():
            errors = [told for at, told in route["responses"].items() if at != "200"]
            assert all(list(told["content"]) == ["application/json"] for told in errors)


def test_monitors_may_ask_for_the_head_alone(server: Running):
    for path in ("/", "/docs", "/healthz"):
        answer = httpx.head(f"{server.url}{path}")
        assert answer.status_code == 200 and answer.content == b""


def test_who_asks_for_a_part_of_a_file_gets_all_of_it(server: Running):
    for path in ("/", "/docs", "/page/page.js"):
        whole = httpx.get(f"{server.url}{path}").content
        for part in ("bytes=0-9", "bytes=999999-", "bytes=x", "lines=1"):
            answer = httpx.get(f"{server.url}{path}", headers={"range": part})
            assert (answer.status_code, answer.content) == (200, whole)


def test_a_photo_beyond_what_can_be_read_is_too_large_and_no_option_is_advised(server: Running):
    Image.new("1", (9500, 9000)).save(content := io.BytesIO(), "PNG")
    answer = post(server.url, content.getvalue())
    assert answer.status_code == 413 and "--max-megapixels" not in answer.json()["error"]
    Image.new("1", (30_000, 30_000)).save(content := io.BytesIO(), "PNG")  # Pillow's own limit
    answer = post(server.url, content.getvalue())
    assert answer.status_code == 413
    assert "at most 1 megapixels here, got many more; shrink" in answer.json()["error"]
