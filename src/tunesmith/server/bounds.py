"""HTTP connections that cannot make the server hold much: limits for heads, trailers, what lies between chunks, requests
sent ahead of their answers, and connections.

uvicorn keeps whatever arrives until the application has it, and of a head, a trailer or a queue of requests the application
sees nothing before it is whole. What is refused here never reaches it. How long anything may take is decided in
``deadlines``; how large a body may be, by the application.
"""

from __future__ import annotations

import asyncio
import resource
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tunesmith.api.openai.request_ids import NAME, new_request_id
from tunesmith.api.problems import Problem

MOST_HEAD_BYTES = 64 * 1024
"""Of the address, the header fields and the trailers of a request together."""
MOST_FIELDS = 100
"""Header fields and trailers of a request."""
MOST_QUEUED = 8
"""Requests that wait for the answers of those before them on the same connection."""
MOST_CONNECTIONS = 4096
MOST_RESERVED_DESCRIPTORS = 256
"""Descriptors that no connection may have, for files, processes and connections of our own; or half, if there are few."""

_PIECE = 64 * 1024
"""So much is parsed at a time: what the parser has taken in and not handed out yet is never much more."""
_FRAMING_FOR_A_BYTE = 8
"""A body in chunks of a single byte has five bytes of framing for each."""
_MOST_UNWANTED_BYTES = 256 * 1024
"""Of a body whose request was answered without it."""
_LINGER_SECONDS = 2.0
_MOST_DROPPED_BYTES = 256 * 1024
"""What is still read of a connection that was refused, so that its client comes to read why."""
_MOST_LINGERING = 64


class OverLimit(Exception):
    """Why no more of a connection is parsed."""

    def __init__(self, status: HTTPStatus, detail: str, mend: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.mend = mend


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with these limits."""

    refused = False
    """Whether the connection only waits for its end: what still arrives is dropped."""
    _over: OverLimit | None = None
    _fields = 0
    _head_bytes = 0
    _framing_bytes = 0
    """What has arrived of the request and is not its body."""
    _body_bytes_taken = 0
    _unwanted_bytes = 0
    _dropped_bytes = 0
    _messages = 0
    _lingers: asyncio.TimerHandle | None = None
    _running: RequestResponseCycle | None = None
    """The request that is being answered; ``cycle`` is the newest one, which may be waiting behind it."""
    _arriving: RequestResponseCycle | None = None
    """The request whose head was taken in, and whose end was not."""
    _offers_upgrade = False
    """Whether the head that was just parsed offers another protocol: it is parsed again without its offer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        beyond = _beyond_capacity(transport, len(self.connections))
        if beyond >= _MOST_LINGERING:
            self.refused = True
            transport.abort()
        elif beyond >= 0:
            busy = OverLimit(HTTPStatus.SERVICE_UNAVAILABLE, "there are too many connections", "try again in a moment")
            self._refuse(busy)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lingers is not None:
            self._lingers.cancel()
        # uvicorn tells only the newest request; one that is being answered before it would wait for ever.
        running, queued = self._running, [cycle for cycle, _ in self.pipeline]
        self.pipeline.clear()
        for cycle in [*queued, *([running] if running is not None else [])]:
            cycle.disconnected = not cycle.response_complete
            cycle.message_event.set()
            cycle.body.clear()
        for cycle in queued:
            cycle.on_response = _nothing  # it refers to this object as that does to it, and would stay for long
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        view = memoryview(data)
        while view and not self.refused:
            view = view[self._take(view[:_PIECE]) :]
        if self.refused:
            self._drop(len(view))

    def _take(self, piece: memoryview) -> int:
        """Parse it, or its beginning. Returns of how many bytes."""
        try:
            self._parse(piece)
        except httptools.HttpParserUpgrade as upgrade:
            if self._offers_upgrade:
                self._parse_without_offer()
                return cast(int, upgrade.args[0])
        return len(piece)

    def _parse(self, piece: bytes | memoryview) -> None:
        """Raises HttpParserUpgrade where the parser takes what follows for another protocol."""
        messages, body_before = self._messages, self._body_bytes_taken
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserError:
            self._refuse(self._over or OverLimit(HTTPStatus.BAD_REQUEST, "this is not HTTP"))
            return
        if self._messages != messages:
            return  # how much of the piece was another request's cannot be known
        self._framing_bytes += len(piece) - (self._body_bytes_taken - body_before)
        if self._framing_bytes > MOST_HEAD_BYTES + _FRAMING_FOR_A_BYTE * self._body_bytes_taken:
            self._refuse(_too_much_head())

    def _parse_without_offer(self) -> None:
        """Take in once more the head that was just parsed, without the field that offers another protocol.

        There is none to change to, so the offer is to be ignored (RFC 9110, 7.8). But the parser takes the end of such a
        head for the end of HTTP, skips the body, and cannot be told otherwise.
        """
        line = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        fields = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        framing_bytes = self._framing_bytes
        self._offers_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        self._parse(b"\r\n".join([line, *fields, b"", b""]))
        self._framing_bytes = framing_bytes

    def on_message_begin(self) -> None:
        self._messages += 1
        self._fields = self._head_bytes = self._framing_bytes = self._body_bytes_taken = self._unwanted_bytes = 0
        self._arriving = None
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._head_bytes += len(url)
        if self._head_bytes > MOST_HEAD_BYTES:
            self._stop_parsing(
                OverLimit(HTTPStatus.REQUEST_URI_TOO_LONG, f"the address is longer than {MOST_HEAD_BYTES} bytes")
            )
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields += 1
        self._head_bytes += len(name) + len(value) + len(b": \r\n")
        if self._fields > MOST_FIELDS or self._head_bytes > MOST_HEAD_BYTES:
            self._stop_parsing(_too_much_head())
        if self._arriving is None:  # a trailer comes after everything that may be decided by it, so nobody is told
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._offers_upgrade = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._offers_upgrade:
            return
        if len(self.pipeline) >= MOST_QUEUED:
            self._stop_parsing(OverLimit(HTTPStatus.TOO_MANY_REQUESTS, "too many requests wait for their answers"))
        super().on_headers_complete()
        self._arriving = self.cycle

    def on_body(self, body: bytes) -> None:
        self._body_bytes_taken += len(body)
        if self.cycle.response_complete:
            self._unwanted_bytes += len(body)
            if self._unwanted_bytes > _MOST_UNWANTED_BYTES:
                self._stop_parsing(OverLimit(HTTPStatus.BAD_REQUEST, "the request was answered without its body"))
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._offers_upgrade:
            return
        self._arriving = None
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self._running is not None:
            self._running.body.clear()  # what the application did not want; errors keep their request alive for long
        super().on_response_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle

        async def told_when_it_ends(scope: Any, receive: Any, send: Any) -> None:
            async def telling(message: Any) -> None:
                if message["type"] == "http.response.start" and self._leaves_much_unread(cycle):
                    # Or its next request would be sent into a connection that is about to be closed.
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
                    cycle.transport = cast(asyncio.Transport, _Ending(self))
                await send(message)

            # As a rule the whole request is here by now, and nothing can be left of it.
            await app(scope, receive, telling if cycle.more_body else send)

        super()._start_asgi_task(cycle, told_when_it_ends)

    def _leaves_much_unread(self, cycle: RequestResponseCycle) -> bool:
        """Whether more of the request's body is on its way than is read of a body that nobody wants."""
        if not cycle.more_body or cycle is not self._arriving:
            return False
        length = next((value for name, value in cycle.scope["headers"] if name == b"content-length"), None)
        return length is None or int(length) - self._body_bytes_taken > _MOST_UNWANTED_BYTES

    def end_after_answer(self) -> None:
        """Read no more requests; the client gets what was written, and then the end of the connection."""
        self.refused = True
        self._close_gently()

    def _stop_parsing(self, over: OverLimit) -> None:
        """Leaves the parser, which does not go on after it."""
        self._over = over
        raise over

    def _refuse(self, over: OverLimit) -> None:
        """Take in nothing more. What was taken in before is still answered; then the refusal is, if nothing else was."""
        self.refused = True
        # What was taken in of a request that nobody will see is let go of at once, not with the connection.
        self.parser, self.url, self.headers, self.scope = None, b"", [], {}  # type: ignore[assignment,typeddict-item]
        broken = self._arriving
        if broken is not None and not broken.response_complete:
            broken.disconnected = True
            broken.message_event.set()
            if self.pipeline and self.pipeline[0][0] is broken:
                self.pipeline.popleft()
        if self._running not in (None, broken) and not self._running.response_complete:
            last = self.pipeline[0][0] if self.pipeline else self._running
            last.keep_alive = False
            return
        if broken is None or not broken.response_started:
            self.transport.write(_answer(over))
        self._close_gently()

    def _close_gently(self) -> None:
        # Closing while bytes arrive resets the connection, and the client may lose the answer before it has read it.
        if not self.transport.is_closing():
            self.transport.write_eof()
            self._lingers = self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    def _drop(self, size: int) -> None:
        self._dropped_bytes += size
        if self._dropped_bytes > _MOST_DROPPED_BYTES:
            self.transport.abort()


class _Ending:
    """The transport of the last answer on a connection: closed so that the client comes to read it."""

    def __init__(self, protocol: BoundedProtocol) -> None:
        self.write = protocol.transport.write
        self.close = protocol.end_after_answer


def _nothing() -> None:
    return


def _beyond_capacity(transport: asyncio.Transport, connections: int) -> int:
    """By how much this connection is one too many; negative while there is room.

    A new descriptor gets the lowest free number, so the number of the newest tells how many there are of all kinds.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = soft - min(MOST_RESERVED_DESCRIPTORS, soft // 2)
    newest = cast(int, transport.get_extra_info("socket").fileno())
    return max(newest - most, connections - MOST_CONNECTIONS - 1)


def _too_much_head() -> OverLimit:
    return OverLimit(
        HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
        f"header fields and trailers may be {MOST_FIELDS} with {MOST_HEAD_BYTES} bytes together",
        "send less in the head, and large content in the body",
    )


def _answer(over: OverLimit) -> bytes:
    problem = Problem(title=over.status.phrase, status=over.status, detail=over.detail, mend=over.mend)
    body = msgspec.json.encode(problem)
    head = [
        f"HTTP/1.1 {over.status.value} {over.status.phrase}",
        "content-type: application/problem+json",
        f"content-length: {len(body)}",
        "connection: close",
        f"{NAME}: {new_request_id()}",
    ]
    if over.status is HTTPStatus.SERVICE_UNAVAILABLE:
        head.append("retry-after: 2")
    return "\r\n".join([*head, "", ""]).encode() + body
