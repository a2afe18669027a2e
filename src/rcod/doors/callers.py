"""Who asks? Somebody on this machine, a page of another site, or who has the token.

A browser asks for whatever any page tells it to, but it says under which name, and for whose
page. A name that needs a name server is never believed to be this machine's: it may lead here
today only.

    --host -> resolve -> is_loopback     Host -> is_own     Origin, Sec-Fetch-Site -> is_foreign
    Authorization, cookie, the page's address -> has_token
"""

import errno
import hmac
import re
import socket
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import parse_qs

from starlette.requests import cookie_parser

from rcod.errors import RcodError

COOKIE = "rcod-token"


def resolve(host: str) -> tuple[socket.AddressFamily, str]:
    """The family and the address of a name or address to listen on, however it is spelled."""
    try:
        family, *_, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host
        raise no_host(host, error) from None
    return family, str(address[0])


def no_place(host: str, port: int, error: Exception) -> RcodError:
    """What there is to say of a place that can't be listened on: host or port is to blame."""
    if getattr(error, "errno", None) == errno.EADDRNOTAVAIL:
        return no_host(host, error)
    reason = getattr(error, "strerror", None) or str(error)
    return RcodError(
        f"port {port} of {host} must be free to listen on, got: {reason}; choose another --port"
    )


def no_host(host: str, error: Exception) -> RcodError:
    """What there is to say of a host that this machine doesn't have."""
    reason = getattr(error, "strerror", None) or str(error)
    return RcodError(
        f"the host must be a name or an address of this machine, got '{host}' ({reason}); "
        "choose another --host, as 127.0.0.1"
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    return _is_loopback_address(resolve(host)[1])


def is_own(header: str, own: str) -> bool:
    """Whether a Host header names this machine by itself, or as `own`, which is listened on."""
    name = host_of(header)
    try:
        return _is_loopback_address(name.strip("[]"))
    except ValueError:
        return name in ("localhost", own.lower())


def _is_loopback_address(text: str) -> bool:
    """Whether an address, which is no name, leads nowhere but back."""
    address = ip_address(text)
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def host_of(header: str) -> str:
    """The name in a Host header, without the port."""
    return re.sub(r":\d*$", "", header).lower()


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether another site's page sent this; a program says nothing of either.

    The browser's own word counts first: a proxy may have changed the host that was asked.
    """
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    origin, host = headers.get("origin"), headers.get("host", "")
    return origin is not None and origin.partition(":")[2].lower() != f"//{host.lower()}"


def has_token(token: str, headers: Mapping[str, str], query: str) -> bool:
    """Whether the token is shown as a bearer's, or in the page's cookie or address."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    shown = [credentials.strip()] if scheme.lower() == "bearer" else []
    shown += tokens_in(query)
    shown.append(cookie_parser(headers.get("cookie", "")).get(COOKIE, ""))
    return any(hmac.compare_digest(text.encode(), token.encode()) for text in shown)


def tokens_in(query: str) -> list[str]:
    """The tokens in the page's address, where a plus stands for itself and not for a space."""
    plain = query.replace("+", "%2B")
    return parse_qs(plain, keep_blank_values=True).get("token", [])
