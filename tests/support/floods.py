"""Clients that send without end, over raw sockets: what they send, and for how long a server lets them. Asserts nothing."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

ENOUGH_BYTES = 16 * 1024 * 1024
"""What one connection sends at most, if nobody stops it: many times what a server may keep of it."""
_PIECE = 256 * 1024


class Flood(NamedTuple):
    """What is sent once, and what is sent again and again after it."""

    begins: bytes
    goes_on: bytes


class Outcome(NamedTuple):
    """What came of one connection."""

    sent: int
    answer: bytes
    """The first bytes that came back, if they were read."""
    ended: bool
    """Whether the server closed the connection."""


def _request(line: str, *more: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "Host: 127.0.0.1", *more, ""]).encode()


_CHUNKED = _request("POST /v1/experiments", "Content-Type: application/json", "Transfer-Encoding: chunked", "")
_GET = _request("GET /openapi.json", "")

FLOODS: Mapping[str, Flood] = {
    "many headers": Flood(_request("GET /healthz"), b"a:b\r\n"),
    "an endless header": Flood(_request("GET /healthz") + b"X-A: ", b"a"),
    "an endless name of a header": Flood(_request("GET /healthz"), b"a"),
    "an endless address": Flood(b"GET /", b"a"),
    "many trailers": Flood(_CHUNKED + b"2\r\n{}\r\n0\r\n", b"a:b\r\n"),
    "an endless trailer": Flood(_CHUNKED + b"2\r\n{}\r\n0\r\nX-A: ", b"a"),
    "an endless extension of a chunk": Flood(_CHUNKED + b"1;", b"a"),
    "many extensions of chunks": Flood(_CHUNKED, b"1;" + b"a" * 1000 + b"\r\n \r\n"),
    "pipelined requests": Flood(b"", _GET),
    "pipelined requests with bodies": Flood(
        b"", _request("POST /v1/keys", "Content-Type: application/json", "Content-Length: 60000", "") + b" " * 60000
    ),
    "an endless body of a refused request": Flood(_request("POST /nowhere", "Content-Length: 99999999999", ""), b" "),
    "an endless body of a health check": Flood(_request("GET /healthz", "Content-Length: 99999999999", ""), b" "),
    "nothing but line ends": Flood(b"", b"\r\n"),
}


class _Sender:
    def __init__(self, address: tuple[str, int], flood: Flood, *, reads: bool) -> None:
        self.socket = socket.create_connection(address, timeout=60)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)  # what counts is what the server takes in
        self.socket.setblocking(False)
        self._rest = memoryview(flood.begins)
        self._goes_on = memoryview(flood.goes_on * (_PIECE // len(flood.goes_on) + 1))
        self._reads = reads
        self.sent = 0
        self.answer = b""
        self.ended = False

    @property
    def done(self) -> bool:
        return self.ended or self.sent >= ENOUGH_BYTES

    def step(self) -> None:
        try:
            if self._reads:
                self._read()
            if not self.ended:
                sent = self.socket.send(self._rest or self._goes_on)
                self.sent += sent
                # A part of what goes on was sent: the rest of it comes next, so that the stream is what it should be.
                self._rest = (self._rest or self._goes_on)[sent:]
        except BlockingIOError:
            return
        except OSError:
            self.ended = True
            if self._reads:  # what came before the connection was reset can still be read
                with contextlib.suppress(OSError):
                    self._read()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            content = self.socket.recv(65536)
            self.answer = (self.answer + content)[:65536]
            self.ended = self.ended or not content


def flood(
    address: tuple[str, int], what: Flood, *, connections: int, reads: bool, seconds: float = 60.0
) -> list[Outcome]:
    """Send on so many connections at once until the server has ended all of them, each has sent enough, or time is up."""
    senders = [_Sender(address, what, reads=reads) for _ in range(connections)]
    until = time.monotonic() + seconds
    try:
        while going := [one for one in senders if not one.done]:
            remaining = until - time.monotonic()
            if remaining <= 0:
                break
            poll = select.poll()
            by_number = {one.socket.fileno(): one for one in going}
            for number, one in by_number.items():
                poll.register(number, select.POLLOUT | (select.POLLIN if one._reads else 0))
            for number, _ in poll.poll(min(remaining, 1.0) * 1000):
                by_number[number].step()
        return [Outcome(one.sent, one.answer, one.ended) for one in senders]
    finally:
        for one in senders:
            one.socket.close()


def resident_peak(pid: int) -> int:
    """The most bytes of memory that the process has ever had since ``forget_peak``."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
