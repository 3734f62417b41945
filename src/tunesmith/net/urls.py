"""What a URL that a user gave must look like, and how it is shown. Resolves nothing; see ``gate``."""

from __future__ import annotations

import httpx

from tunesmith.errors import InvalidInput


def parse(url: str) -> httpx.URL:
    """Raises InvalidInput."""
    mend = "name a full address such as https://example.org/path"
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, UnicodeError, ValueError, TypeError) as error:
        raise InvalidInput(f"this is not a URL: {error}", where="url", mend=mend) from None
    if target.scheme not in ("http", "https"):
        raise InvalidInput(f"only http and https are possible, not {target.scheme[:20]!r}", where="url", mend=mend)
    if target.userinfo:
        raise InvalidInput(
            "a URL must not carry a user name or password", where="url", mend="leave out what is before @"
        )
    if not target.host or not 0 < port_of(target) < 65536:
        raise InvalidInput("the URL names no host, or no possible port", where="url", mend=mend)
    return target


def port_of(target: httpx.URL) -> int:
    return target.port if target.port is not None else 443 if target.scheme == "https" else 80


def shown(target: httpx.URL) -> str:
    """The URL without its query, which may hold a token."""
    return str(target.copy_with(query=None, fragment=None))[:200]
