"""What is refused before any of it is believed."""

import asyncio

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rcod.doors.callers import has_token, host_of, is_foreign, is_loopback, is_own, resolve
from rcod.doors.guard import Guard, Limits, Refusal
from rcod.doors.meters import Meters
from rcod.doors.work_queue import WorkQueue
from rcod.errors import RcodError


@pytest.mark.parametrize(
    ("header", "name"),
    [("127.0.0.1:7860", "127.0.0.1"), ("LocalHost", "localhost"), ("[::1]:80", "[::1]"),
     ("evil.example:7860", "evil.example"), ("", "")],
)  # fmt: skip
def test_host_without_port(header: str, name: str):
    assert host_of(header) == name


@pytest.mark.parametrize(
    ("host", "local"),
    [("localhost", True), ("LOCALHOST", True), ("127.0.0.1", True), ("127.0.0.2", True),
     ("127.1", True), ("::1", True), ("0:0:0:0:0:0:0:1", True), ("::ffff:127.0.0.1", True),
     ("0.0.0.0", False), ("::", False), ("192.0.2.1", False)],
)  # fmt: skip
def test_loopback_is_known_in_every_spelling(host: str, local: bool):
    assert is_loopback(host) is local


@pytest.mark.parametrize("host", ["nosuch.invalid", "127.0..0.1", ""])
def test_a_host_that_leads_nowhere_is_one_sentence(host: str):
    with pytest.raises(RcodError, match=f"the host must be a name .*, got '{host}' .* --host"):
        resolve(host)


@pytest.mark.parametrize(
    ("header", "own", "right"),
    [
        ("127.0.0.1:7860", "LOCALHOST", True),
        ("localhost:7860", "127.0.0.2", True),
        ("127.0.0.2", "127.0.0.2", True),
        ("[::1]:80", "::1", True),
        ("My-Machine:80", "my-machine", True),  # what --host says may lead back by /etc/hosts
        ("evil.example:7860", "localhost", False),
        ("192.0.2.1:7860", "127.0.0.1", False),
        ("", "localhost", False),
    ],
)
def test_only_names_that_no_name_server_tells_are_ours(header: str, own: str, right: bool):
    assert is_own(header, own) is right


@pytest.mark.parametrize(
    ("headers", "foreign"),
    [
        ({}, False),  # a program
        ({"origin": "http://here:7860"}, False),
        ({"origin": "https://HERE:7860"}, False),  # behind a proxy that encrypts
        ({"origin": "http://evil.example"}, True),
        ({"origin": "http://here:3000"}, True),
        ({"origin": "http://evil.example/here:7860"}, True),
        ({"origin": "null"}, True),
        ({"origin": "null", "host": ""}, True),
        ({"origin": "http://here:3000", "sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "none"}, False),
        ({"origin": "https://photos.example", "sec-fetch-site": "same-origin"}, False),  # a proxy
    ],
)
def test_pages_of_other_sites_are_known(headers: dict[str, str], foreign: bool):
    assert is_foreign({"host": "here:7860", **headers}) is foreign


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT"])
def test_pages_of_other_sites_change_nothing(method: str):
    start, body, _ = sent(reader, Limits(), [], method, host="here", origin="http://evil.example")
    assert start["status"] == 403
    assert b"other sites' pages may not send requests here" in body["body"]


def test_token_is_shown_as_bearer_cookie_or_in_the_pages_address():
    token = "open-sesame"
    for scheme in ("Bearer", "bearer", "BEARER ", "bEARER"):
        assert has_token(token, {"authorization": f"{scheme} open-sesame"}, "")
    assert has_token(token, {"cookie": "a=b; rcod-token=open-sesame"}, "")
    assert has_token(token, {"cookie": 'prefs={"a":1}; [x]=1; rcod-token=open-sesame'}, "")
    assert has_token(token, {}, "token=open-sesame")
    assert has_token("one+one=2%", {}, "token=one+one%3D2%25")  # a plus is no space here
    for headers, query in (
        ({}, ""), ({"authorization": "Bearer open"}, "token="),
        ({"authorization": "open-sesame"}, ""), ({"authorization": "Basic open-sesame"}, ""),
        ({"cookie": "rcod-token=open-sesam\u00e9"}, ""),
    ):  # fmt: skip
        assert not has_token(token, headers, query)
    start, _, _ = sent(reader, Limits(token=token), [])
    assert start["status"] == 401 and (b"www-authenticate", b"Bearer") in start["headers"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seats": 0}, "seats must be above 0 and finite, got 0"),
        ({"seconds": float("inf")}, "seconds must be above 0 and finite, got inf"),
        ({"token": ""}, "a token must be 8 to 200 printable characters"),
        ({"token": "short"}, "a token must be 8 to 200 printable characters"),
        ({"token": "with a space"}, "a token must be 8 to 200 printable characters"),
    ],
)
def test_limits_make_sense(values: dict, words: str):
    with pytest.raises(RcodError, match=words):
        Limits(**values)


def sent(
    app: ASGIApp, limits: Limits, messages: list[Message], method: str = "POST", **headers: str
) -> list[Message]:
    """What a guarded app answers to these messages; then the client says nothing."""
    answers: list[Message] = []
    scope: Scope = {
        "type": "http", "method": method, "path": "/v1/upscale", "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip

    async def receive() -> Message:
        if messages:
            return messages.pop(0)
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: Message) -> None:
        answers.append(message)

    with WorkQueue() as engine:
        asyncio.run(Guard(app, limits, engine, Meters(), None)(scope, receive, send))
    return answers


async def reader(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that reads everything, and blames the form when that fails."""
    try:
        while (await receive()).get("more_body"):
            pass
    except Refusal:
        await send({"type": "http.response.start", "status": 400, "headers": []})
    raise RuntimeError("secret/path")


def piece(size: int) -> Message:
    return {"type": "http.request", "body": bytes(size), "more_body": True}


def test_a_slow_body_is_refused_in_time():
    start, body, *_ = sent(reader, Limits(upload=0.1), [piece(10)])
    assert start["status"] == 408 and (b"connection", b"close") in start["headers"]
    assert b"must have arrived within 0.1 s" in body["body"]


def test_a_body_is_refused_where_it_grows_too_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("rcod.doors.guard.LINGER", 0.05)
    messages = [piece(400), piece(400), piece(400)]
    start, body, *_ = sent(reader, Limits(body=1000), messages)
    assert start["status"] == 413 and b"at most 0.001 MB" in body["body"] and messages == []
    announced = [piece(1)]
    start, *_ = sent(reader, Limits(body=1000), announced, **{"content-length": "1001"})
    assert start["status"] == 413


def test_what_breaks_inside_is_a_sentence_outside(caplog: pytest.LogCaptureFixture):
    start, body, *_ = sent(reader, Limits(), [{"type": "http.request", "body": b""}])
    assert start["status"] == 500 and body["body"] == (
        b'{"error": "the server failed; its log says why"}'
    )
    assert "secret/path" in caplog.text


def test_an_answer_that_breaks_off_is_not_completed():
    async def breaking(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError

    with pytest.raises(RuntimeError):
        sent(breaking, Limits(), [])
