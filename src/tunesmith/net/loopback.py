"""The way to engines on this machine: HTTP to 127.0.0.1 and nowhere else, with a deadline and a size for everything.

There are no proxies, redirects, cookies or credentials here. URLs of users go through ``guarded``, and never through this.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import httpx
import msgspec

from tunesmith.errors import InvalidInput, Unavailable

_HOST = "127.0.0.1"
_CONNECT_SECONDS = 3.0
_MOST_CONNECTIONS = 1000
_IDLE_CONNECTIONS = 64
_IDLE_SECONDS = 5.0
LONGEST_ANSWER = 64 * 1024
"""Bytes of the answer to a GET that are read; the rest is left unread."""
LONGEST_COMPLETION = 32 * 1024 * 1024
"""The same for a POST."""


class LoopbackAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine answered."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class LoopbackStream(msgspec.Struct, frozen=True, kw_only=True):
    """An answer whose body is read as it comes."""

    status: int
    content_type: str
    chunks: AsyncIterator[bytes]
    """Raises Unavailable when the engine says nothing for too long, or the connection breaks."""

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300


class LoopbackClient:
    """Keeps idle connections for a moment; close it with ``aclose``. To be used from one event loop."""

    def __init__(self) -> None:
        self._opened: httpx.AsyncClient | None = None

    async def get(self, port: int, path: str, *, seconds: float, most: int = LONGEST_ANSWER) -> LoopbackAnswer:
        """Ask over a connection of its own, so that the answer is of whoever listens now. The deadline covers all of it.

        Raises:
            Unavailable: no whole answer came.
        """
        return await self._whole(self._request("GET", port, path, headers={"connection": "close"}), seconds, most)

    async def post_json(
        self, port: int, path: str, content: Any, *, seconds: float, most: int = LONGEST_COMPLETION
    ) -> LoopbackAnswer:
        """Send ``content`` as JSON. The deadline covers everything up to the last byte of the answer.

        Raises:
            Unavailable: no whole answer came.
        """
        return await self._whole(self._posting(port, path, content), seconds, most)

    @asynccontextmanager
    async def stream(
        self, port: int, path: str, content: Any, *, seconds: float, idle_seconds: float
    ) -> AsyncIterator[LoopbackStream]:
        """Send ``content`` as JSON; the answer's body is read as it comes. Leaving closes the connection if there is more.

        Args:
            port: where the engine listens.
            path: what is asked.
            content: the body, or the bytes of one that is JSON already.
            seconds: how long the head of the answer may take.
            idle_seconds: how long the engine may be silent after that.

        Raises:
            Unavailable: no head of an answer came in time.
        """
        request = self._posting(port, path, content)
        request.extensions["timeout"] = httpx.Timeout(idle_seconds, connect=_CONNECT_SECONDS).as_dict()
        with _explained(port), anyio.fail_after(seconds):
            response = await self._client().send(request, stream=True)
        try:
            yield LoopbackStream(
                status=response.status_code,
                content_type=response.headers.get("content-type", ""),
                chunks=_chunks(response, port),
            )
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()

    async def aclose(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    def _client(self) -> httpx.AsyncClient:
        if self._opened is None:
            self._opened = httpx.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),  # each call has its own deadline
                limits=httpx.Limits(
                    max_connections=_MOST_CONNECTIONS,
                    max_keepalive_connections=_IDLE_CONNECTIONS,
                    keepalive_expiry=_IDLE_SECONDS,
                ),
            )
        return self._opened

    def _request(
        self, method: str, port: int, path: str, *, headers: Mapping[str, str], content: bytes | None = None
    ) -> httpx.Request:
        # The path is sent as it is: whatever stands in it, it names no other host.
        try:
            url = httpx.URL(scheme="http", host=_HOST, port=port, raw_path=path.encode())
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InvalidInput(f"is no path: {error}", where=f"port {port}", mend="begin it with /") from None
        return self._client().build_request(
            method, url, headers={**headers, "accept-encoding": "identity"}, content=content
        )

    def _posting(self, port: int, path: str, content: Any) -> httpx.Request:
        body = content if isinstance(content, bytes) else msgspec.json.encode(content)
        return self._request("POST", port, path, headers={"content-type": "application/json"}, content=body)

    async def _whole(self, request: httpx.Request, seconds: float, most: int) -> LoopbackAnswer:
        port = request.url.port or 0
        with _explained(port), anyio.fail_after(seconds):
            response = await self._client().send(request, stream=True)
            try:
                body = b""
                async for chunk in response.aiter_raw():
                    body += chunk
                    if len(body) > most:
                        break
            finally:
                with anyio.CancelScope(shield=True):
                    await response.aclose()
        return LoopbackAnswer(status=response.status_code, body=body[:most])


async def _chunks(response: httpx.Response, port: int) -> AsyncIterator[bytes]:
    with _explained(port):
        async for chunk in response.aiter_raw():
            yield chunk


@contextmanager
def _explained(port: int) -> Iterator[None]:
    try:
        yield
    except (TimeoutError, httpx.TimeoutException) as error:
        raise Unavailable("no answer in time", where=f"port {port}", mend="see the engine's log; try again") from error
    except httpx.ConnectError as error:
        raise Unavailable("nothing accepts connections", where=f"port {port}", mend="see the engine's log") from error
    except httpx.HTTPError as error:
        raise Unavailable(
            "the connection broke", where=f"port {port}", mend="see the engine's log; try again"
        ) from error
