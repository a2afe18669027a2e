"""What is refused before any of it is believed."""

import pytest

from rcod.errors import RcodError
from rcod.guard import Limits, Refusal, check_token, host_of


@pytest.mark.parametrize(
    ("header", "name"),
    [("127.0.0.1:7860", "127.0.0.1"), ("LocalHost", "localhost"), ("[::1]:80", "[::1]"),
     ("evil.example:7860", "evil.example"), ("", "")],
)  # fmt: skip
def test_host_without_port(header: str, name: str):
    assert host_of(header) == name


def test_token_is_shown_as_bearer_cookie_or_in_the_pages_address():
    token = "open-sesame"
    check_token(token, {"authorization": "Bearer open-sesame"}, "")
    check_token(token, {"cookie": "a=b; rcod-token=open-sesame"}, "")
    check_token(token, {}, "token=open-sesame")
    for headers, query in (({}, ""), ({"authorization": "Bearer open"}, "token="),
                           ({"cookie": "rcod-token=open-sesam\u00e9"}, "")):  # fmt: skip
        with pytest.raises(Refusal) as refusal:
            check_token(token, headers, query)
        assert refusal.value.status == 401 and "www-authenticate" in refusal.value.headers


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seats": 0}, "seats must be above 0, got 0"),
        ({"token": "short"}, "a token must be 8 to 200 printable characters"),
        ({"token": "with a space"}, "a token must be 8 to 200 printable characters"),
    ],
)
def test_limits_make_sense(values: dict, words: str):
    with pytest.raises(RcodError, match=words):
        Limits(**values)
