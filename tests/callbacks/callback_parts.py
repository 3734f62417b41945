"""A real HTTP server on loopback that answers as told, names that resolve as told, and a network that takes notes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpcore

from tunesmith.callbacks import CallbackService, DeliverySummary
from tunesmith.journal import LOCAL_DISK, Disk, Journal
from tunesmith.net.guarded import GuardedClient
from tunesmith.records import Callback, Delivery, utc_now

_CUT_OFF = (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.IncompleteRead)


@dataclass(frozen=True)
class Got:
    """A request as it arrived."""

    line: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]


Reply = bytes | Callable[[anyio.abc.SocketStream], Awaitable[None]]


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return once ``condition`` is true."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110  # other processes and files send no event
            await anyio.sleep(0.005)


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} As told", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Receiver:
    """What the server got, and what it will say: the replies in turn, the last one for ever."""

    replies: list[Reply]
    port: int = 0
    got: list[Got] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    async def until(self, count: int, seconds: float = 60.0) -> list[Got]:
        """The requests, once there are so many."""
        await until(lambda: len(self.got) >= count, seconds)
        return self.got

    async def handle(self, stream: anyio.abc.SocketStream) -> None:
        self.connections += 1
        with contextlib.suppress(*_CUT_OFF):
            async with stream:
                rest = b""
                while True:
                    rest = await self._one(stream, rest)

    async def _one(self, stream: anyio.abc.SocketStream, content: bytes) -> bytes:
        while b"\r\n\r\n" not in content:
            content += await stream.receive()
        head, _, content = content.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (item.partition(": ") for item in fields)}
        length = int(headers.get("content-length", "0"))
        while len(content) < length:
            content += await stream.receive()
        self.got.append(Got(line, headers, content[:length]))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, bytes):
            await stream.send(reply)
        else:
            await reply(stream)
            await stream.aclose()
        return content[length:]


@asynccontextmanager
async def receiving(*replies: Reply, port: int = 0) -> AsyncIterator[Receiver]:
    """A server that is up inside the block."""
    receiver = Receiver(list(replies) or [answer(200)])
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port)
    receiver.port = listener.extra(anyio.abc.SocketAttribute.local_port)
    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, receiver.handle)
        yield receiver
        tasks.cancel_scope.cancel()


@contextlib.contextmanager
def nobody_listening() -> Iterator[int]:
    """A port of ours that refuses connections; inside the block a server of ours may take it, and nobody else does."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def silence(_stream: anyio.abc.SocketStream) -> None:
    """Takes the request and never says a word."""
    await anyio.sleep_forever()


async def drip(stream: anyio.abc.SocketStream) -> None:
    """A byte every now and then: no single read is ever slow."""
    await stream.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
    while True:
        await stream.send(b".")
        await anyio.sleep(0.02)


class Names:
    """A resolver with answers by name; a name with several lists gives another one each time, the last for ever."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        del port
        self.asked.append(host)
        if host not in self._answers:
            raise OSError("Name or service not known")
        lists = self._answers[host]
        return lists.pop(0) if len(lists) > 1 else lists[0]


class NotedNetwork(httpcore.AnyIOBackend):
    """Notes where each connection was to go, and lets it end at a port of this machine."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.connected: list[str] = []

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):  # noqa: ASYNC109
        self.connected.append(f"{host}:{port}")
        return await super().connect_tcp("127.0.0.1", self._port, timeout, local_address, socket_options)


def opened(path: Path, disk: Disk = LOCAL_DISK) -> Journal[Delivery, DeliverySummary]:
    return Journal.open(path, Delivery, DeliverySummary, disk=disk)


@asynccontextmanager
async def sending(folder: Path, *, clock=utc_now, post_seconds: float = 60.0, disk=LOCAL_DISK, **options: Any):
    """A callback service with its sender running, on a journal in ``folder``."""
    journal = opened(folder / "deliveries.jsonl", disk)
    client = GuardedClient(allow_private=True, post_seconds=post_seconds)
    options.setdefault("schedule", (0, 0.05, 0.05, 0.05))
    service = CallbackService(
        journal=journal, client=client, secret_path=folder / "webhook_secret", clock=clock, **options
    )
    try:
        async with anyio.create_task_group() as tasks:
            await tasks.start(service.run)
            yield service
            tasks.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await client.aclose()
            await journal.close()


async def settled(service: CallbackService, run_id: str, *states: str, seconds: float = 60.0) -> list[Delivery]:
    """The run's deliveries in their order, once each is in one of these states."""

    def found() -> list[Delivery]:
        return service.page(run_id, limit=10_000).deliveries[::-1]

    await until(lambda: found() and all(delivery.state in states for delivery in found()), seconds)
    return found()


def to(receiver: Receiver | str, **options: Any) -> Callback:
    return Callback(url=receiver if isinstance(receiver, str) else receiver.url, **options)
