"""The page, driven in a real browser, and the routes that only it uses."""

import hashlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import uvicorn
from browser import chromium, complaints, hosts, wait_for
from PIL import Image
from running import Running, own_signals, start
from selenium.common.exceptions import ElementClickInterceptedException
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from rcod.diffusion.grouping import LEVELS, timestep_of_realism
from rcod.doors import web
from rcod.doors.guard import Guard, Limits
from rcod.doors.open_photos import OpenPhotos
from rcod.doors.server import create_app
from rcod.doors.service import Service
from rcod.doors.work_queue import WorkQueue
from rcod.errors import RcodError
from rcod.pixels.extras import EXTRAS
from rcod.pixels.images import Photo, read, write
from rcod.pixels.metadata import GPS
from rcod.using.interpolation import NODES
from rcod.using.restore import Restorer

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "heron.jpg"


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    running = start()
    yield running
    code, errors = running.end()
    assert (code, errors) == (0, "")


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    return Restorer.load("tiny")


def canvas(page: Chrome) -> str:
    """A hash of the pixels that the page shows."""
    data = page.execute_script("return document.getElementById('after').toDataURL()")
    return hashlib.sha256(data.encode()).hexdigest()


def placed(page: Chrome) -> str:
    """Where in the view the picture lies."""
    return page.execute_script("return document.getElementById('stage').style.transform")


def choose(page: Chrome, path: Path) -> None:
    page.find_element(By.ID, "pick").send_keys(str(path))


def text(page: Chrome, name: str) -> str:
    return page.find_element(By.ID, name).text


def downloaded(folder: Path) -> Path:
    """Wait for the file."""
    for _ in range(1500):
        found = [path for path in folder.iterdir() if path.suffix in (".png", ".jpg", ".webp")]
        if found:
            return found[0]
        time.sleep(0.02)
    raise AssertionError("no file came")


@pytest.mark.parametrize(("width", "height", "dark"), [(1280, 800, False), (390, 844, True)])
def test_a_visit(
    server: Running, restorer: Restorer, tmp_path: Path, width: int, height: int, dark: bool
):
    with chromium(width, height, tmp_path, dark) as page:
        page.get(server.url)
        wait_for(page, "document.getElementById('limits').textContent.includes('megapixels')")
        choose(page, EXAMPLE)
        wait_for(page, "document.body.dataset.state === 'exact'")
        chosen = canvas(page)
        assert "Auto thinks the damage is" in text(page, "auto-text")
        wait_for(page, "document.body.dataset.ahead === 'true'")

        page.find_element(By.CSS_SELECTOR, "[data-zoom=in]").click()
        before = placed(page)
        dial = page.find_element(By.ID, "dial")
        dial.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * 37)
        wait_for(page, "document.body.dataset.shown === '0.37'")
        wait_for(page, "document.body.dataset.state === 'exact'")
        assert canvas(page) != chosen and placed(page) == before
        assert text(page, "dial-number") == "0.37"
        for kind, hidden in (("keydown", True), ("keyup", False)):  # space, with the dial in focus
            page.execute_script(
                "document.getElementById('dial').dispatchEvent("
                "new KeyboardEvent(arguments[0], {key: ' ', bubbles: true}))",
                kind,
            )
            assert page.find_element(By.ID, "split").get_property("hidden") is hidden

        page.find_element(By.ID, "map-button").click()
        wait_for(page, "document.getElementById('map').naturalWidth > 0")
        assert page.find_element(By.ID, "map").is_displayed()
        wait_for(page, r"/^[\d.]+ %$/.test(document.getElementById('share').value)")

        page.find_element(By.ID, "download").click()
        got = downloaded(tmp_path)
        write(tmp_path / "own.PNG", restorer(EXAMPLE, 0.37).photo)
        assert got.name == "heron-4x.png"
        assert got.read_bytes() == (tmp_path / "own.PNG").read_bytes()

        page.find_element(By.ID, "sheet-button").click()
        wait_for(page, "document.getElementById('sheet-image').naturalWidth > 0")
        page.find_element(By.ID, "sheet-close").click()

        (broken := tmp_path / "broken.jpg").write_bytes(EXAMPLE.read_bytes()[:900])
        choose(page, broken)
        wait_for(page, "!document.getElementById('alert').hidden")
        assert re.match(r"broken\.jpg: must be a whole picture", text(page, "alert-text"))
        assert page.find_element(By.ID, "work").is_displayed()  # the photo before is still there
        assert page.execute_script("""
            window.scrollTo(0, 9999);
            const box = document.getElementById("alert").getBoundingClientRect();
            return box.top >= 0 && box.bottom <= innerHeight""")  # wherever one has scrolled to

        page.find_element(By.TAG_NAME, "body").send_keys("1")
        wait_for(page, "document.body.dataset.shown === '0'")
        wait_for(page, "document.getElementById('share').value === '0.0 %'")
        wide = page.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width, "nothing hangs over the side"
        refused = [line for line in complaints(page) if "422" not in line]  # the broken file's own
        assert refused == []
        assert hosts(page) == {server.url.removeprefix("http://")}


def test_a_photo_may_be_dropped_or_pasted_and_given_up(server: Running, tmp_path: Path):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        for name, event in (
            ("otter", "new DragEvent('drop', { dataTransfer: files, bubbles: true })"),
            ("heron", "new ClipboardEvent('paste', { clipboardData: files, bubbles: true })"),
        ):
            page.execute_async_script(f"""
                const content = await (await fetch("/page/{name}.jpg")).blob();
                const files = new DataTransfer();
                files.items.add(new File([content], "{name}.jpg"));
                document.body.dispatchEvent({event});
                arguments[0]();""")
            wait_for(page, f"document.getElementById('file').textContent === '{name}.jpg'")
            wait_for(page, "document.body.dataset.state === 'exact'")
        Image.open(EXAMPLE).resize((500, 500)).save(tmp_path / "large.png")
        choose(page, tmp_path / "large.png")
        wait_for(page, "document.getElementById('wait-text').textContent === 'Restoring'")
        page.find_element(By.ID, "cancel").click()
        wait_for(page, "document.body.dataset.state === 'empty'", 5)
        for _ in range(400):
            if "rcod_seats_taken 0" in httpx.get(f"{server.url}/metrics").text:
                break
            time.sleep(0.05)
        else:
            raise AssertionError("the work was not given up")
        assert complaints(page) == []


def test_of_two_photos_at_once_the_latter_is_kept(server: Running, tmp_path: Path):
    noise = Image.effect_noise((2400, 2400), 90)
    noise.save(tmp_path / "large.png", compress_level=0)  # 6 MB
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        choose(page, tmp_path / "large.png")
        choose(page, EXAMPLE)
        wait_for(page, "document.body.dataset.state === 'exact'")
        time.sleep(1)  # the first one's upload would be done by now
        page.find_element(By.CSS_SELECTOR, "[data-level=fidelity]").click()
        wait_for(page, "document.body.dataset.state === 'exact'")
        assert page.find_element(By.ID, "file").text == EXAMPLE.name
        assert page.execute_script("return document.getElementById('after').width") == 640
        assert complaints(page) == []


WAYLAID = """
    const fetched = window.fetch;
    window.fetch = async (url, options) => {
        const waylaid = String(url).includes(window.waylay);
        if (waylaid) window.waylay = undefined;
        if (waylaid && options.method === "POST") await new Promise((go) => { window.go = go; });
        const answer = await fetched(url, options), read = answer.blob.bind(answer);
        window.asked = [...window.asked ?? [], String(url)];
        if (waylaid) answer.blob = async () => {
            const blob = await read();
            await new Promise((go) => { window.go = go; });
            return blob;
        };
        return answer;
    };"""  # holds back the next answer, or upload, whose address has `waylay` in it


def example(page: Chrome, name: str) -> None:
    page.execute_script(f"document.querySelector('[data-example={name}]').click()")


def level(page: Chrome, name: str) -> None:
    """Turn to a level, and wait for its number."""
    page.find_element(By.CSS_SELECTOR, f"[data-level={name}]").click()
    wait_for(page, f"document.body.dataset.shown === '{LEVELS[name]:g}'")
    wait_for(page, "document.getElementById('share').value !== '–'")


def rescale(page: Chrome, scale: int) -> None:
    page.execute_script(f"""
        document.getElementById("scale").value = "{scale}";
        document.getElementById("scale").dispatchEvent(new Event("change"));""")


def settled(name: str) -> str:
    """That all of an example which is fetched ahead is there."""
    file = f"document.getElementById('file').textContent === '{name}.jpg'"
    return f"{file} && document.body.dataset.ahead === 'true'"


def shown(page: Chrome) -> list[object]:
    """What stands on the page about the photo."""
    return page.execute_script("""
        const picture = document.createElement("canvas").getContext("2d");
        picture.drawImage(document.getElementById("before"), 0, 0, 9, 9);
        const texts = ["share", "share-text", "size"].map(id => document.getElementById(id).value
            ?? document.getElementById(id).textContent);
        return [...texts, picture.canvas.toDataURL(), document.getElementById("stage").style.width]
    """)


@pytest.mark.parametrize("late", ["/invention", "/before"])
def test_a_late_answer_about_the_photo_before_is_not_shown(
    server: Running, tmp_path: Path, late: str
):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        page.execute_script(WAYLAID)
        example(page, "otter")
        wait_for(page, settled("otter"))
        level(page, "realism")
        page.execute_script("document.body.dataset.ahead = ''; window.waylay = arguments[0]", late)
        rescale(page, 2)
        wait_for(page, "window.go")
        example(page, "heron")
        wait_for(page, settled("heron"))
        level(page, "realism")
        before = shown(page)
        page.execute_script("window.go()")
        time.sleep(0.5)
        level(page, "fidelity")
        level(page, "realism")
        assert shown(page) == before
        assert complaints(page) == []


def test_a_size_that_fails_leaves_the_picture_before(server: Running, tmp_path: Path):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        page.execute_script("""
            const fetched = window.fetch;
            window.fetch = (url, options) => /result.*scale=8/.test(url)
                ? Promise.resolve(new Response('{"error": "no room"}', { status: 507 }))
                : fetched(url, options);""")
        example(page, "otter")
        wait_for(page, settled("otter"))
        before, picture = shown(page), canvas(page)
        rescale(page, 8)
        wait_for(page, "!document.getElementById('alert').hidden")
        assert text(page, "alert-text") == "no room"
        wait_for(page, "document.body.dataset.state === 'exact'")
        assert shown(page)[2:] == before[2:] and canvas(page) == picture
        assert page.find_element(By.ID, "scale").get_property("value") == "4"


def test_a_bad_file_leaves_the_photo_that_was_under_way(server: Running, tmp_path: Path):
    (broken := tmp_path / "broken.jpg").write_bytes(EXAMPLE.read_bytes()[:900])
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        page.execute_script("""
            const fetched = window.fetch;
            window.hold = true;  // the first picture, until it is given up
            window.fetch = (url, options) => !(window.hold && /result/.test(url))
                ? fetched(url, options)
                : new Promise((_, refuse) => {
                    window.hold = options.signal;
                    options.signal.addEventListener("abort", () => {
                        window.hold = undefined;
                        refuse(options.signal.reason);
                    });
                });""")
        example(page, "otter")
        wait_for(page, "window.hold !== true")
        choose(page, broken)
        wait_for(page, "!document.getElementById('alert').hidden")
        wait_for(page, settled("otter"))
        assert page.execute_script("return document.getElementById('after').width") == 640


@pytest.mark.parametrize("first", [False, True])
def test_a_photo_may_be_given_up_before_it_is_shown(server: Running, tmp_path: Path, first: bool):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        if not first:
            example(page, "otter")
            wait_for(page, settled("otter"))
        page.execute_script("""
            const fetched = window.fetch;
            window.fetch = (url, options) => !/before/.test(url)
                ? fetched(url, options)
                : new Promise((_, refuse) => {
                    window.held = true;
                    options.signal.addEventListener("abort", () => refuse(options.signal.reason));
                });""")
        example(page, "heron")
        wait_for(page, "window.held")
        page.find_element(By.ID, "cancel").click()
        wait_for(page, "document.body.dataset.state === 'empty'" if first else settled("otter"), 5)
        assert page.find_element(By.ID, "empty").is_displayed() is first
        assert not page.find_element(By.ID, "wait").is_displayed()
        wide = page.execute_script("return document.getElementById('after').width")
        assert first or wide == 640


def test_a_server_that_is_gone_is_said_so(tmp_path: Path):
    running = start()
    with chromium(1280, 800, tmp_path) as page:
        page.get(running.url)
        wait_for(page, "document.getElementById('limits').textContent.includes('megapixels')")
        assert running.end() == (0, "")
        for ask in (lambda: example(page, "otter"), lambda: choose(page, EXAMPLE)):
            ask()
            wait_for(page, "!document.getElementById('alert').hidden")
            assert text(page, "alert-text").startswith("The server does not answer")
            page.find_element(By.ID, "alert-close").click()


def test_another_photo_closes_the_sheet_of_the_one_before(server: Running, tmp_path: Path):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        example(page, "otter")
        wait_for(page, settled("otter"))
        page.find_element(By.ID, "sheet-button").click()
        wait_for(page, "document.getElementById('sheet').open")
        example(page, "heron")
        wait_for(page, "document.getElementById('file').textContent === 'heron.jpg'")
        assert not page.execute_script("return document.getElementById('sheet').open")


def test_the_status_says_nothing_of_the_photo_before(server: Running, tmp_path: Path):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        page.execute_script(WAYLAID)
        example(page, "otter")
        wait_for(page, settled("otter"))
        assert "timestep" in text(page, "status")
        page.execute_script("window.waylay = '/result'")
        example(page, "heron")
        wait_for(page, "window.go && document.getElementById('file').textContent === 'heron.jpg'")
        assert text(page, "status") == ""
        page.execute_script("window.go()")
        wait_for(page, settled("heron"))


def test_space_is_a_tick_where_a_tick_is_in_focus(server: Running, tmp_path: Path):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        example(page, "otter")
        wait_for(page, settled("otter"))
        tick = page.find_element(By.ID, "strip")
        tick.send_keys(Keys.SPACE)
        assert tick.is_selected()
        assert not page.find_element(By.ID, "placed").is_displayed()  # what the file keeps


def test_an_alert_ends_with_its_cause_and_several_photos_are_told(server: Running, tmp_path: Path):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        page.execute_async_script("""
            const content = await (await fetch("/page/otter.jpg")).blob();
            const files = new DataTransfer();
            for (const name of ["one.jpg", "two.jpg"]) files.items.add(new File([content], name));
            document.body.dispatchEvent(
                new DragEvent('drop', { dataTransfer: files, bubbles: true }));
            arguments[0]();""")
        wait_for(page, settled("one"))
        assert text(page, "note").startswith("one.jpg was opened, the first of 2")
        page.execute_script("""
            window.fetched = window.fetch;
            window.fetch = async () => { throw new TypeError("no network"); };""")
        page.find_element(By.CSS_SELECTOR, "[data-level=fidelity]").click()
        wait_for(page, "!document.getElementById('alert').hidden")
        page.execute_script("window.fetch = window.fetched;")
        page.find_element(By.CSS_SELECTOR, "[data-level=realism]").click()
        wait_for(page, "document.getElementById('alert').hidden")
        assert complaints(page) == []


def test_scripts_are_asked_for_anew(server: Running):
    for name in ("", "docs", "page/page.js", "page/page.css"):
        assert httpx.get(f"{server.url}/{name}").headers["cache-control"] == "no-cache"


def test_the_dial_rests_while_a_photo_is_on_its_way(server: Running, tmp_path: Path):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        page.execute_script(WAYLAID)
        example(page, "otter")
        wait_for(page, settled("otter"))
        page.execute_script("window.waylay = '/page/photos'; window.asked = []")
        example(page, "heron")
        wait_for(page, "window.go")
        with pytest.raises(ElementClickInterceptedException):
            page.find_element(By.CSS_SELECTOR, "[data-level=realism]").click()
        page.find_element(By.TAG_NAME, "body").send_keys("1")
        page.execute_script("window.go()")
        wait_for(page, settled("heron"))
        wait_for(page, "document.body.dataset.state === 'exact'")
        asked = page.execute_script("return window.asked.filter(url => url.includes('undefined'))")
        assert asked == [] and not page.find_element(By.ID, "wait").is_displayed()
        level(page, "realism")
        assert complaints(page) == []


def test_a_file_is_named_by_its_own_size_and_may_leave_its_place_out(
    server: Running, tmp_path: Path
):
    (photos := tmp_path / "photos").mkdir()
    image, exif = Image.open(EXAMPLE), Image.Exif()
    exif.get_ifd(GPS)[1], exif[271] = "N", "A camera"
    image.save(photos / "a.tif", save_all=True, append_images=[image], exif=exif)
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        page.execute_script(WAYLAID)
        choose(page, photos / "a.tif")
        wait_for(page, "document.body.dataset.state === 'exact'")
        assert text(page, "note").startswith("The photo has more than one page; the first is")
        page.find_element(By.ID, "strip").click()
        page.execute_script("""
            window.waylay = "format=png";
            document.getElementById("download").click();""")
        wait_for(page, "window.go")
        rescale(page, 1)
        wait_for(page, "document.getElementById('size').textContent.includes('becomes 160 × 160')")
        page.execute_script("window.go()")
        got = downloaded(tmp_path)
        with Image.open(got) as picture:
            assert (got.name, picture.size) == ("a-4x.png", (640, 640))
            assert picture.getexif()[271] == "A camera" and GPS not in picture.getexif()
        assert text(page, "note").startswith("The photo has more than one page")


def test_everything_on_the_page_has_a_name(server: Running, tmp_path: Path):
    with chromium(1280, 800, tmp_path) as page:
        page.get(server.url)
        choose(page, EXAMPLE)
        wait_for(page, "document.body.dataset.state === 'exact'")
        unnamed = page.execute_script("""
            return [...document.querySelectorAll("button, a, select, input, output, progress")]
                .filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length
                    || e.getAttribute("aria-labelledby"))).map(e => e.outerHTML)""")
        assert unnamed == []
        page.get(f"{server.url}/docs")
        wait_for(page, "document.querySelectorAll('section').length === 5")
        assert "X-Rcod-Level" in page.page_source
        assert complaints(page) == [] and len(hosts(page)) == 1


def test_a_photo_that_was_put_away_is_said_so(server: Running):
    answer = httpx.get(f"{server.url}/page/photos/nobody/result")
    assert answer.status_code == 404 and "put away" in answer.json()["error"]


def test_routes_of_an_open_photo(server: Running, restorer: Restorer, tmp_path: Path):
    with httpx.Client(base_url=server.url, timeout=30) as client:
        small = Image.open(EXAMPLE).crop((40, 40, 70, 64)).convert("RGBA")
        small.putalpha(100)
        small.save(content := BytesIO(), "PNG")
        files = {"image": ("a.png", content.getvalue())}
        told = client.post("/page/photos", files=files).json()
        assert (told["width"], told["height"], told["alpha"]) == (30, 24, True)
        photo = f"/page/photos/{told['id']}"
        for node in NODES:
            assert client.get(f"{photo}/result?realism={node}").headers["x-rcod-told"] == "false"
        between = client.get(f"{photo}/result?realism=0.3")
        t = timestep_of_realism(0.3, restorer.system.groups)
        assert between.headers["x-rcod-timestep"] == str(t)
        assert (
            client.get(f"{photo}/result?realism=0.3&format=png").headers["x-rcod-told"] == "false"
        )
        shown = client.get(f"{photo}/result?realism=0.5")
        assert shown.headers["content-type"] == "image/png"
        assert shown.headers["x-rcod-level"] == "neutral"
        write(tmp_path / "a.webp", restorer(read_bytes(content, tmp_path), 0.5, 2).photo)
        saved = client.get(f"{photo}/result?realism=0.5&scale=2&format=webp")
        assert saved.content == (tmp_path / "a.webp").read_bytes()
        assert saved.headers.get("x-rcod-note") is None and told["note"] == ""
        assert client.get(f"{photo}/result?format=jpg").status_code == 422
        assert client.get(f"{photo}/result?realism=2").status_code == 422
        before = Image.open(BytesIO(client.get(f"{photo}/before?scale=3").content))
        assert before.size == (90, 72) and before.mode == "RGBA"
        map_ = client.get(f"{photo}/invention?realism=1")
        assert 0 < float(map_.headers["x-rcod-share"]) < 1
        assert float(map_.headers["x-rcod-mean"]) > 0
        assert client.get(f"{photo}/sheet?scale=1").headers["content-type"] == "image/png"
        assert client.get(f"{photo}/progress").json() == {"position": 0, "fraction": 0.0}
        assert client.delete(photo).status_code == 204
        assert client.get(f"{photo}/result").status_code == 404


def read_bytes(content: BytesIO, folder: Path) -> Photo:
    (path := folder / "in.png").write_bytes(content.getvalue())
    return read(path)


@contextmanager
def serving(app: ASGIApp, protocol: type[web.Impatient]) -> Iterator[tuple[str, int]]:
    """Where an app is served in another thread."""
    listener = web.listen("127.0.0.1", 0)
    config = uvicorn.Config(app, http=protocol, ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[:2]
    finally:
        server.should_exit = True
        thread.join(10)


def test_who_opens_a_connection_and_says_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch):
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    monkeypatch.setattr(web, "HEADERS", 0.2)
    with serving(app, web.Impatient) as address:
        for text in (b"", b"GET / HTTP/1.1\r\nHo"):
            with socket.create_connection(address, timeout=5) as raw:
                raw.sendall(text)
                assert raw.recv(100) == b""
        with socket.create_connection(address, timeout=5) as raw:
            raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 204")
            raw.sendall(b"GET /")  # and then nothing more
            assert raw.recv(100) == b""


def test_who_does_not_take_an_answer_is_hung_up_on():
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(30_000_000)})

    class Bounded(web.Impatient):
        seconds = 2.0

    with serving(app, Bounded) as address:
        for wait, whole in ((0.0, True), (4.0, False)):
            taken = 0
            with socket.create_connection(address, timeout=5) as raw:
                raw.sendall(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
                time.sleep(wait)
                with suppress(ConnectionResetError):
                    while piece := raw.recv(1_000_000):
                        taken += len(piece)
            assert (taken > 30_000_000) is whole, taken


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_as_the_address_appears_ends_the_server(
    restorer: Restorer, ending: signal.Signals
):
    rescue = threading.Timer(20, os.kill, (os.getpid(), ending))
    rescue.start()
    with own_signals():
        web.listen_and_serve(
            lambda: restorer, "127.0.0.1", 0, Limits(), lambda _: signal.raise_signal(ending)
        )
    assert rescue.is_alive(), "the first signal was enough"
    rescue.cancel()


@pytest.mark.parametrize("host", ["127.0..0.1", "nosuch.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_blamed_and_not_its_port(host: str):
    with pytest.raises(
        RcodError, match=f"the host must be .* of this machine, got '{host}'"
    ) as told:
        web.listen(host, 0)
    assert "port" not in str(told.value)


def test_other_photos_fields_are_refused(server: Running):
    image = {"image": ("a.png", b"")}
    answer = httpx.post(f"{server.url}/page/photos", files=image, data={"scale": "2"})
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("a field must be one of image, got 'scale'")


def test_examples_of_the_page_are_those_of_the_project():
    for path in sorted((ROOT / "examples").glob("*.jpg")):
        assert (web.PAGE / path.name).read_bytes() == path.read_bytes()


def test_the_page_names_formats_whose_extras_are_there(server: Running):
    told = httpx.get(f"{server.url}/page/about").json()["formats"]
    for kind, (_, module) in EXTRAS.items():
        assert (kind in told) == (find_spec(module) is not None)
    assert "TIFF" in told


def test_the_page_is_told_whether_there_is_a_dial(server: Running, restorer: Restorer):
    assert httpx.get(f"{server.url}/page/about").json()["dial"] is True
    fixed = restorer.system.model_copy(update={"timestep": 499})
    with WorkQueue() as engine:
        service = Service(Restorer(fixed, restorer.onestep, restorer.metric), engine)
        web.add_page(app := create_app(service), service, OpenPhotos())
        assert TestClient(app).get("/page/about").json()["dial"] is False


def test_a_plus_in_a_token_stands_for_itself(restorer: Restorer):
    with WorkQueue() as engine:
        service = Service(restorer, engine, Limits(token="open+sesame"))
        web.add_page(app := create_app(service), service, OpenPhotos())
        client = TestClient(app, follow_redirects=False)
        for query, right in (("open+sesame", True), ("open%2Bsesame", True), ("open%20sesame", 0)):
            answer = client.get(f"/?token={query}")
            assert answer.status_code == 303 and ("set-cookie" in answer.headers) == right


def test_a_link_elsewhere_may_show_the_token(restorer: Restorer, tmp_path: Path):
    limits = Limits(token="open-sesame")
    with WorkQueue() as engine, chromium(1280, 800, tmp_path) as page:
        service = Service(restorer, engine, limits)
        web.add_page(app := create_app(service), service, OpenPhotos())
        guard = Guard(app, limits, engine, service.meters, "127.0.0.1")
        with serving(guard, web.Impatient) as (host, port):
            link = f"<a href='http://{host}:{port}/?token=open-sesame'>rcod</a>"
            page.get(f"data:text/html,{link}")
            page.find_element(By.TAG_NAME, "a").click()
            wait_for(page, "document.getElementById('limits')?.textContent")


@pytest.mark.parametrize("token", [None, "open-sesame"])
def test_only_the_token_becomes_a_cookie(restorer: Restorer, token: str | None):
    with WorkQueue() as engine:
        service = Service(restorer, engine, Limits(token=token))
        web.add_page(app := create_app(service), service, OpenPhotos())
        client = TestClient(app, follow_redirects=False)
        for given in ("open-sesame", "open-sesamf", "\u20ac", "a;b", ""):
            answer = client.get("/", params={"token": given})
            assert (answer.status_code, answer.headers["location"]) == (303, "/")
            cookie = answer.headers.get("set-cookie", "")
            assert cookie.startswith("rcod-token=open-sesame;") == (given == token)
            assert bool(cookie) == (given == token)


def test_page_asks_no_other_host():
    for path in sorted(web.PAGE.iterdir()):
        if path.suffix in (".html", ".css", ".js"):
            source = path.read_text(encoding="utf-8")
            named = set(re.findall(r"(?:https?:)?//[\w-]+\.[\w.]+", source))
            assert named <= {"http://www.w3.org"}, path.name  # the name of SVG, never fetched
