"""HTTP connections that must get on with it: a deadline for the head of a request, and for progress of its body.

uvicorn waits for ever for whoever connects and is slow on purpose; some hundreds of them take all descriptors. How long
the answer takes, and how fast it is read, is nobody's concern here: event streams stay open for days.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0
"""From the first byte of a request, or from the connection, to the end of its head."""
BODY_SECONDS = 10.0
"""In every such stretch at least LEAST_BODY_BYTES of a body arrive, or the rest of it."""
LEAST_BODY_BYTES = 1024


class PunctualProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with these deadlines. Between two requests its own one for idle connections holds."""

    _deadline: asyncio.TimerHandle | None = None
    _body_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        self._set(HEAD_SECONDS, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        head_was_awaited = self._awaits_head()
        super().data_received(data)
        if self._awaits_head():
            # Not set again by more bytes of the same head, nor by those of a body that was refused unread.
            if not head_was_awaited or self._deadline is None:
                self._set(HEAD_SECONDS, self._end)
        elif not self.cycle.more_body:
            self._unset()
        elif head_was_awaited or self._deadline is None:
            self._body_bytes = 0
            self._set(BODY_SECONDS, self._look_at_body)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        self._unset()
        super().on_response_complete()

    def _awaits_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _look_at_body(self) -> None:
        # Nobody is late who was told to wait: the disk is slow, or it was not asked to go on yet.
        excused = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if not excused and self._body_bytes < LEAST_BODY_BYTES:
            self._end()
            return
        self._body_bytes = 0
        self._set(BODY_SECONDS, self._look_at_body)

    def _end(self) -> None:
        self._deadline = None
        if not self.transport.is_closing():
            self.transport.close()

    def _set(self, seconds: float, then: Callable[[], None]) -> None:
        self._unset()
        self._deadline = self.loop.call_later(seconds, then)

    def _unset(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
