"""HTTP connections that must get on with it: a deadline for the head of a request, for progress of its body, and for a client
that does not read its answer.

uvicorn waits for ever for whoever connects and is slow on purpose; some hundreds of them take all descriptors. How long
the answer takes is nobody's concern here: event streams stay open for days. How much is held is decided in ``bounds``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunesmith.server.bounds import BoundedProtocol

LEAST_BODY_BYTES = 1024


class PunctualProtocol(BoundedProtocol):
    """The protocol with these deadlines. Between two requests uvicorn's own one for idle connections holds."""

    head_seconds = 10.0
    """From the first byte of a request, or from the connection, to the end of its head."""
    body_seconds = 10.0
    """In every such stretch at least LEAST_BODY_BYTES of a body arrive, or the rest of it."""
    unread_seconds = 30.0
    """In every such stretch a client takes in some of what waits to be sent to it."""

    _deadline: asyncio.TimerHandle | None = None
    _body_bytes = 0
    _unread_deadline: asyncio.TimerHandle | None = None
    _unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        if not self.refused:
            self._set(self.head_seconds, self._end)

    def connection_lost(self, exc: Exception | None) -> None:
        self._unset()
        self._unset_unread()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        head_was_awaited = self._awaits_head()
        super().data_received(data)
        if self.refused:
            self._unset()  # its end is on its way
        elif self._awaits_head():
            # Not set again by more bytes of the same head, nor by those of a body that was refused unread.
            if not head_was_awaited or self._deadline is None:
                self._set(self.head_seconds, self._end)
        elif not self.cycle.more_body:
            self._unset()
        elif head_was_awaited or self._deadline is None:
            self._body_bytes = 0
            self._set(self.body_seconds, self._look_at_body)

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_response_complete(self) -> None:
        self._unset()
        super().on_response_complete()
        self._expect_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._expect_reader()

    def _awaits_head(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _look_at_body(self) -> None:
        # Nobody is late who was told to wait: the disk is slow, or it was not asked to go on yet.
        excused = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if not excused and self._body_bytes < LEAST_BODY_BYTES:
            self._end()
            return
        self._body_bytes = 0
        self._set(self.body_seconds, self._look_at_body)

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

    def _expect_reader(self) -> None:
        """From now on, as long as something waits to be sent, also while the connection is being closed.

        Nothing is added to what waits while the transport is full, nor after an answer's end: it can only become less.
        """
        self._unset_unread()
        self._unread_bytes = self.transport.get_write_buffer_size()
        if self._unread_bytes:
            self._unread_deadline = self.loop.call_later(self.unread_seconds, self._look_at_reader)

    def _look_at_reader(self) -> None:
        if self.transport.get_write_buffer_size() >= self._unread_bytes:
            self.transport.abort()
        else:
            self._expect_reader()

    def _unset_unread(self) -> None:
        if self._unread_deadline is not None:
            self._unread_deadline.cancel()
            self._unread_deadline = None
