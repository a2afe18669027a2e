"""Whatever fits or breaks the interface's own description, the server answers and goes on."""

import io
import json
import random
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image
from running import Running, start

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "QUERY")
NASTY = (
    "", " ", "null", "-1", "0", "1e999", "NaN", "-0.0", "\u0663", "[]", "{}", "true", "a" * 5000,
    "%00", "../../etc/passwd", "\u202e", "4.0000000000000001", "0x10", "'; --", "\r\nX-A: b",
)  # fmt: skip
KINDS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "TGA")
ROUNDS = 250


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    running = start("--max-megapixels", "1", "--max-megabytes", "1")
    yield running
    code, errors = running.end()
    assert (code, errors) == (0, ""), "no request left a trace in the log"


def file_of(rng: random.Random) -> bytes:
    """A small picture of any kind, often damaged."""
    side = rng.randint(1, 12)
    image = Image.effect_noise((side, rng.randint(1, 12)), 90)
    mode = rng.choice(("L", "RGB", "1"))
    kind = rng.choice(KINDS)
    image.convert("RGB" if kind in ("WEBP", "JPEG") else mode).save(content := io.BytesIO(), kind)
    data = bytearray(content.getvalue())
    for _ in range(rng.choice((0, 0, 1, 5, 50))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data) + 1)))])


def value_of(field: dict, rng: random.Random) -> str:
    """A value that fits a field's description, or a nasty one."""
    fitting = [str(field.get("default", "")), *map(str, field.get("enum", ()))]
    if "minimum" in field:
        fitting += [str(rng.uniform(field["minimum"], field["maximum"])), str(field["maximum"] + 1)]
    return rng.choice([*fitting, *fitting, *fitting, *NASTY])


def request_of(description: dict, rng: random.Random) -> dict:
    """One request around the description: method, path, fields, body."""
    path = rng.choice([*description["paths"], *description["paths"], "/", "/page/photos", "/x"])
    operation = description["paths"].get(path, {}).get("post")
    method = rng.choice(["POST" if operation else "GET"] * 20 + list(METHODS))
    request: dict = {
        "method": method,
        "url": path,
        "params": rng.choice(({}, {"token": "a", "": "b"})),
    }
    if operation is None or rng.random() < 0.1:
        request["content"] = rng.choice((b"", b"{}", rng.randbytes(300)))
        kinds = ("multipart/form-data", "multipart/form-data; boundary=", "application/json", "x")
        request["headers"] = {"content-type": rng.choice(kinds)}
        return request
    schema = operation["requestBody"]["content"]["multipart/form-data"]["schema"]
    fields = description["components"]["schemas"][schema["$ref"].split("/")[-1]]["properties"]
    request["data"] = {name: value_of(field, rng) for name, field in fields.items()
                       if name != "image" and rng.random() < 0.5}  # fmt: skip
    name = "image" if rng.random() < 0.95 else "photo"
    request["files"] = {name: (rng.choice(("a.png", "", *NASTY[13:16])), file_of(rng))}
    return request


def test_no_answer_is_a_failure_of_the_server(server: Running):
    rng = random.Random(0)
    statuses: set[int] = set()
    with httpx.Client(base_url=server.url, timeout=30) as client:
        description = client.get("/openapi.json").json()
        for number in range(ROUNDS):
            request = request_of(description, rng)
            answer = client.request(**request)
            statuses.add(answer.status_code)
            assert answer.status_code < 500, (number, request, answer.text)
            if answer.status_code >= 400 and request["method"] != "HEAD":
                assert set(json.loads(answer.text)) == {"error"}, (request, answer.text)
            assert "Traceback" not in answer.text and str(Path.cwd()) not in answer.text
        assert client.get("/healthz").status_code == 200
    assert {200, 404, 405, 422} <= statuses
