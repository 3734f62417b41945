"""Clients that are slow on purpose: their connections end in time, and nobody else notices them."""

from __future__ import annotations

import contextlib
import resource
import select
import socket
import statistics
import time

import pytest

from support.server import ServerProcess

CONNECTIONS = 500
BAR_SECONDS = 15.0
HEAD = b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\n"
# What each of them has sent at once, and what it adds from time to time to look alive.
KINDS = {
    "silent": (b"", b""),
    "half a head": (HEAD + b"X-A: ", b"a"),
    "no end of the head": (HEAD, b"X-A: b\r\n"),
    "half a body": (HEAD + b"Content-Length: 1000000\r\n\r\n{", b" "),
    "half a chunk": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n{", b" "),
    "refused and going on": (HEAD + b"Content-Length: 10000000000\r\n\r\n", b" " * 1000),
    "second request": (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", b"\r\n"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    place = tmp_path_factory.mktemp("slow")
    (place / "recipes").mkdir()
    with ServerProcess.start(place / "state", place / "recipes") as server:
        yield server


@pytest.fixture
def address(server) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


@pytest.fixture
def many_descriptors():
    """Room for as many connections as the test opens."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 4 * CONNECTIONS)), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_500_slow_connections_are_closed_within_15_seconds(server, address, many_descriptors):
    """Silent ones, and those that add a byte now and then; health answers within a second, and a slow line is served.

    The slow line sends some ten kilobytes of its body in the time in which the others are given up. Of health the usual
    answer counts, not the slowest: once in a while a busy machine lets anybody wait.
    """
    body = b" " * 300_000 + b'{"name": "slow line", "task_type": "sft"}'
    with contextlib.ExitStack() as stack, server.client() as client:
        slow_line = stack.enter_context(socket.create_connection(address, timeout=60))
        slow_line.sendall(HEAD + b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body))
        drips: dict[socket.socket, bytes] = {}
        for number in range(CONNECTIONS):
            begins, drip = list(KINDS.values())[number % len(KINDS)]
            connection = stack.enter_context(socket.create_connection(address, timeout=60))
            connection.sendall(begins)
            connection.setblocking(False)
            drips[connection] = drip
        opened = time.monotonic()
        waits = []
        while drips and time.monotonic() < opened + BAR_SECONDS:
            began = time.monotonic()
            assert client.get("/healthz").status_code == 200
            waits.append(time.monotonic() - began)
            for connection in _readable(list(drips), 0.5):
                if _has_ended(connection):
                    del drips[connection]
            for connection, drip in drips.items():
                with contextlib.suppress(OSError):
                    connection.send(drip)
            slow_line.sendall(body[:500])
            body = body[500:]
        assert not drips, f"{len(drips)} connections are still open after {BAR_SECONDS} s"
        assert statistics.median(waits) < 1.0
        slow_line.sendall(body)
        assert slow_line.recv(100).startswith(b"HTTP/1.1 201")
    assert "Traceback" not in server.output


def _readable(connections: list[socket.socket], seconds: float) -> list[socket.socket]:
    poll = select.poll()
    by_number = {connection.fileno(): connection for connection in connections}
    for number in by_number:
        poll.register(number, select.POLLIN)
    return [by_number[number] for number, _ in poll.poll(seconds * 1000)]


def _has_ended(connection: socket.socket) -> bool:
    """Reads what there is: an answer, or the end."""
    try:
        return connection.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
