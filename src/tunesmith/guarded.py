"""The one way to a URL that a user gave: http and https only, to addresses that were judged, bounded in size and time.

For each new connection the name is resolved once, every address it has is judged, and the connection goes to exactly a
judged one: what the name resolves to a moment later does not matter. There are no proxies, cookies or credentials here.
What is sent, and how often it is tried again, is the caller's business.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import BinaryIO

import anyio
import anyio.to_thread
import httpcore
import httpx
import msgspec

from tunesmith.addresses import THIS_MACHINE, Address, Reach, reach
from tunesmith.errors import InvalidInput, MissingReference, OutOfSpace, TooLarge
from tunesmith.files import NO_ROOM, sync_folder

LONGEST_ANSWER = 64 * 1024
"""Bytes of an answer to a POST that are read; the rest is left unread."""

MOST_REDIRECTS = 5
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_CONNECT_SECONDS = 5.0
_VET_SECONDS = 5.0
_IDLE_SECONDS = 15.0
_MOST_IDLE = 32
_MOST_LOOKUPS = 64
_WRITE_BYTES = 1024 * 1024

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""From a host and a port to all addresses of the host; raises OSError when there are none."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back from a POST."""

    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    """At most ``LONGEST_ANSWER`` bytes."""


class Downloaded(msgspec.Struct, frozen=True, kw_only=True):
    """A file that is complete and durable."""

    path: Path
    bytes: int
    sha256: str


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
        self._gate = _Gate(allow_private, resolver or _Resolve(), network or httpcore.AnyIOBackend())
        self._tls = tls
        self._post_seconds = post_seconds
        self._download_seconds = download_seconds
        self._opened: httpcore.AsyncConnectionPool | None = None

    async def vet(self, url: str) -> None:
        """Refuse a URL when it is named, instead of when it is needed. One that does not resolve now may do so later.

        Raises:
            InvalidInput: it is no http(s) URL, or it leads where it must not.
        """
        target = _parse(url)
        with suppress(MissingReference), anyio.move_on_after(_VET_SECONDS):
            await self._gate.addresses(target.raw_host.decode(), _port(target))

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send ``body``; the time limit covers everything up to the last byte of the answer. Redirects are answers.

        Raises:
            InvalidInput: the URL is malformed, or leads where it must not.
            MissingReference: no whole answer came: not resolvable, refused, cut off, too slow.
        """
        target = _parse(url)
        async with self._request("POST", target, self._post_seconds, headers=headers, content=body) as response:
            content = await _read(response, LONGEST_ANSWER)
            return Answer(status=response.status, headers=_headers(response), body=content)

    async def download(self, url: str, into: Path, *, max_bytes: int, expect_sha256: str | None = None) -> Downloaded:
        """Fetch a file. ``into`` appears whole or not at all; up to five redirects are followed, each judged again.

        Raises:
            InvalidInput: a URL is malformed or leads where it must not, or the content has another hash.
            MissingReference: it could not be fetched whole.
            TooLarge: it is longer than ``max_bytes``.
            OutOfSpace: the disk is full.
        """
        target = _parse(url)
        with _deadline(self._download_seconds, target):
            for _ in range(MOST_REDIRECTS + 1):
                async with self._request("GET", target, None, headers={"accept-encoding": "identity"}) as response:
                    if response.status not in _REDIRECTS:
                        _expect_file(response, target, max_bytes)
                        return await _save(response, target, into, max_bytes, expect_sha256)
                    target = _next(target, response)
        raise InvalidInput(
            f"it redirects more than {MOST_REDIRECTS} times", where=_shown(_parse(url)), mend="name the last address"
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


class _Gate(httpcore.AsyncNetworkBackend):
    """Connects to what was judged, and to nothing else."""

    def __init__(self, allow_private: bool, resolver: Resolver, network: httpcore.AsyncNetworkBackend) -> None:  # noqa: FBT001  # private, and called once
        self._widest = Reach.PRIVATE if allow_private else Reach.PUBLIC
        self._resolver = resolver
        self._network = network

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        failure: Exception = httpcore.ConnectError("it has no address")
        for address in await self.addresses(host, port):
            try:
                return await self._network.connect_tcp(str(address), port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        del timeout, socket_options
        raise httpcore.ConnectError(f"{path} is not on the network")

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    async def addresses(self, host: str, port: int) -> list[Address]:
        """Resolve once. One bad address spoils the name: whoever answers for it mixes them on purpose.

        Raises:
            InvalidInput: an address must not be reached.
            MissingReference: there is none.
        """
        try:
            found = [ip_address(text) for text in await self._resolver(host, port)]
        except (OSError, ValueError) as error:
            raise MissingReference(f"its name does not resolve: {error}", where=host, mend="check the name") from error
        for address in found:
            if reach(address) > self._widest:
                raise _refused(host, address)
        # What connects to 0.0.0.0 is left to no kernel.
        return list(dict.fromkeys(THIS_MACHINE.get(address, address) for address in found))


class _Resolve:
    """What the system's resolver says.

    Threads of our own: uvloop's and asyncio's few would let one dead name server delay every other lookup.
    """

    def __init__(self) -> None:
        self._limiter: anyio.CapacityLimiter | None = None

    async def __call__(self, host: str, port: int) -> list[str]:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(_MOST_LOOKUPS)
        lookup = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        found = await anyio.to_thread.run_sync(lookup, abandon_on_cancel=True, limiter=self._limiter)
        return [str(address[0]) for *_, address in found]


def _refused(host: str, address: Address) -> InvalidInput:
    if reach(address) is Reach.NEVER:
        return InvalidInput(f"{address} must not be reached from here", where=host, mend="name a server of your own")
    return InvalidInput(
        f"{address} is a private or reserved address",
        where=host,
        mend="name a public server, or ask the operator to set allow_private_urls",
    )


def _parse(url: str) -> httpx.URL:
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
    if not target.host or not 0 < _port(target) < 65536:
        raise InvalidInput("the URL names no host, or no possible port", where="url", mend=mend)
    return target


def _port(target: httpx.URL) -> int:
    return target.port if target.port is not None else 443 if target.scheme == "https" else 80


def _shown(target: httpx.URL) -> str:
    """The URL without its query, which may hold a token."""
    return str(target.copy_with(query=None, fragment=None))[:200]


@contextmanager
def _deadline(seconds: float | None, target: httpx.URL) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError as error:
        raise _unreachable(target, f"it was not done within {seconds} seconds") from error


def _unreachable(target: httpx.URL, reason: str) -> MissingReference:
    return MissingReference(f"no whole answer came: {reason}", where=_shown(target), mend="check that it is up")


def _reason(error: BaseException) -> str:
    """What happened at the bottom, which the layers above have wrapped into their own errors."""
    cause = error.__cause__ or next((item for item in error.args if isinstance(item, BaseException)), None)
    return _reason(cause) if cause is not None else str(error) or type(error).__name__


def _headers(response: httpcore.Response) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}


async def _read(response: httpcore.Response, most: int) -> bytes:
    content = b""
    async for chunk in response.aiter_stream():
        content += chunk
        if len(content) >= most:
            break
    return content[:most]


def _next(target: httpx.URL, response: httpcore.Response) -> httpx.URL:
    location = _headers(response).get("location", "")
    try:
        return _parse(str(target.join(location)))
    except (httpx.InvalidURL, UnicodeError, ValueError) as error:
        raise InvalidInput(f"it redirects to what is not a URL: {error}", where=_shown(target)) from None


def _expect_file(response: httpcore.Response, target: httpx.URL, max_bytes: int) -> None:
    """Refuse by the head what need not be read."""
    headers = _headers(response)
    if response.status != 200:
        raise MissingReference(
            f"it was answered with {response.status} instead of a file", where=_shown(target), mend="check the address"
        )
    if headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise InvalidInput("it comes compressed, though that was not asked for", where=_shown(target))
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise _too_large(target, max_bytes)


def _too_large(target: httpx.URL, max_bytes: int) -> TooLarge:
    return TooLarge(f"it has more than {max_bytes} bytes", where=_shown(target), mend="offer a smaller file")


async def _save(
    response: httpcore.Response, target: httpx.URL, into: Path, max_bytes: int, expect_sha256: str | None
) -> Downloaded:
    part = into.with_name(f".{into.name}.{secrets.token_hex(4)}.part")
    try:
        file = await anyio.to_thread.run_sync(part.open, "wb", 0)
        try:
            size, digest = await _pour(response, target, file, max_bytes)
            if expect_sha256 is not None and digest != expect_sha256.strip().lower():
                raise InvalidInput(
                    f"its sha256 is {digest}, not {expect_sha256}", where=_shown(target), mend="check file and hash"
                )
        finally:
            file.close()
        await anyio.to_thread.run_sync(_settle, part, into)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OutOfSpace("no room for the download", where=str(into), mend="free space on that disk") from error
    finally:
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(partial(part.unlink, missing_ok=True))
    return Downloaded(path=into, bytes=size, sha256=digest)


async def _pour(response: httpcore.Response, target: httpx.URL, file: BinaryIO, max_bytes: int) -> tuple[int, str]:
    """From the network into the file; answers length and sha256."""
    hasher = hashlib.sha256()

    def write(content: bytes) -> None:
        hasher.update(content)
        view = memoryview(content)
        while view:
            view = view[file.write(view) :]

    size = 0
    waiting = bytearray()
    async for chunk in response.aiter_stream():
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(target, max_bytes)
        waiting += chunk
        if len(waiting) >= _WRITE_BYTES:
            await anyio.to_thread.run_sync(write, bytes(waiting))
            waiting.clear()
    await anyio.to_thread.run_sync(write, bytes(waiting))
    return size, hasher.hexdigest()


def _settle(part: Path, into: Path) -> None:
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(into)
    sync_folder(into.parent)
