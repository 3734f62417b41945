"""The one way to a URL that a user gave: http and https only, to addresses that were judged, bounded in size and time.

For each new connection the name is resolved once, every address it has is judged, and the connection goes to exactly a
judged one: what the name resolves to a moment later does not matter. There are no proxies, cookies or credentials here.
What is sent, and how often it is tried again, is the caller's business.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import anyio
import anyio.to_thread
import httpcore
import httpx
import msgspec

from tunesmith.errors import InvalidInput, MissingReference
from tunesmith.net.download import Downloaded, expect_file, headers_of, save
from tunesmith.net.gate import Gate, Resolver, SystemResolver
from tunesmith.net.urls import parse, port_of, shown

LONGEST_ANSWER = 64 * 1024
"""Bytes of an answer to a POST that are read; the rest is left unread."""

MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECT_SECONDS = 5.0
_VET_SECONDS = 5.0
_IDLE_SECONDS = 15.0
_MOST_IDLE = 32


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from a POST."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """At most ``LONGEST_ANSWER`` bytes."""


class GuardedClient:
    """Keeps idle connections for a while; close it with ``aclose``. To be used from one event loop."""

    def __init__(
        self,
        *,
        allow_private: bool,
        resolver: Resolver | None = None,
        network: httpcore.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
        post_seconds: float = 15.0,
        download_seconds: float = 3600.0,
    ) -> None:
        self._gate = Gate(allow_private, resolver or SystemResolver(), network or httpcore.AnyIOBackend())
        self._tls = tls
        self._post_seconds = post_seconds
        self._download_seconds = download_seconds
        self._opened: httpcore.AsyncConnectionPool | None = None

    async def vet(self, url: str) -> None:
        """Refuse a URL when it is named, instead of when it is needed. One that does not resolve now may do so later.

        Raises:
            InvalidInput: it is no http(s) URL, or it leads where it must not.
        """
        target = parse(url)
        with suppress(MissingReference), anyio.move_on_after(_VET_SECONDS):
            await self._gate.addresses(target.raw_host.decode(), port_of(target))

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send ``body``; the time limit covers everything up to the last byte of the answer. Redirects are answers.

        Raises:
            InvalidInput: the URL is malformed, or leads where it must not.
            MissingReference: no whole answer came: not resolvable, refused, cut off, too slow.
        """
        target = parse(url)
        async with self._request("POST", target, self._post_seconds, headers=headers, content=body) as response:
            content = await _read(response, LONGEST_ANSWER)
            return Answer(status=response.status, headers=headers_of(response), body=content)

    async def download(self, url: str, into: Path, *, max_bytes: int, expect_sha256: str | None = None) -> Downloaded:
        """Fetch a file. ``into`` appears whole or not at all; up to five redirects are followed, each judged again.

        Raises:
            InvalidInput: a URL is malformed or leads where it must not, or the content has another hash.
            MissingReference: it could not be fetched whole.
            TooLarge: it is longer than ``max_bytes``.
            OutOfSpace: the disk is full.
        """
        target = parse(url)
        with _deadline(self._download_seconds, target):
            for _ in range(MOST_REDIRECTS + 1):
                async with self._request("GET", target, None, headers={"accept-encoding": "identity"}) as response:
                    if response.status not in _REDIRECTS:
                        expect_file(response, target, max_bytes)
                        return await save(response, target, into, max_bytes, expect_sha256)
                    target = _next(target, response)
        raise InvalidInput(
            f"it redirects more than {MOST_REDIRECTS} times", where=shown(parse(url)), mend="name the last address"
        )

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    @property
    def _pool(self) -> httpcore.AsyncConnectionPool:
        if self._opened is None:
            self._opened = httpcore.AsyncConnectionPool(
                # Reading the certificates takes 40 ms, so it waits until somebody has a URL.
                ssl_context=self._tls or httpx.create_ssl_context(),
                max_connections=None,
                max_keepalive_connections=_MOST_IDLE,
                keepalive_expiry=_IDLE_SECONDS,
                network_backend=self._gate,
            )
        return self._opened

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        target: httpx.URL,
        seconds: float | None,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
    ) -> AsyncIterator[httpcore.Response]:
        """An answer whose head was read; leaving lets go of the connection, or closes it if there is more to come."""
        url = httpcore.URL(
            scheme=target.raw_scheme, host=target.raw_host, port=target.port, target=target.raw_path or b"/"
        )
        fields: dict[bytes | str, bytes | str] = {
            "host": target.netloc.decode(),
            **{name.lower(): value for name, value in headers.items()},
        }
        try:
            with _deadline(seconds, target):
                async with self._pool.stream(
                    method, url, headers=fields, content=content, extensions={"timeout": {"connect": _CONNECT_SECONDS}}
                ) as response:
                    yield response
        except (httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError) as error:
            raise _unreachable(target, _reason(error)) from error


@contextmanager
def _deadline(seconds: float | None, target: httpx.URL) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise _unreachable(target, f"it was not done within {seconds} seconds") from error


def _unreachable(target: httpx.URL, reason: str) -> MissingReference:
    return MissingReference(f"no whole answer came: {reason}", where=shown(target), mend="check that it is up")


def _reason(error: BaseException) -> str:
    """What happened at the bottom, which the layers above have wrapped into their own errors."""
    cause = error.__cause__ or next((item for item in error.args if isinstance(item, BaseException)), None)
    return _reason(cause) if cause is not None else str(error) or type(error).__name__


async def _read(response: httpcore.Response, most: int) -> bytes:
    content = b""
    async for chunk in response.aiter_stream():
        content += chunk
        if len(content) >= most:
            break
    return content[:most]


def _next(target: httpx.URL, response: httpcore.Response) -> httpx.URL:
    location = headers_of(response).get("location", "")
    try:
        return parse(str(target.join(location)))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise InvalidInput(f"it redirects to what is not a URL: {error}", where=shown(target)) from None
