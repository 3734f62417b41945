"""Clients that do not read what they asked for: they are let go of in time, and slow ones are not."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from support.server import polled
from tunesmith.server.deadlines import PunctualProtocol

ANSWER_BYTES = 64 * 1024 * 1024
"""More than the buffers of two sockets hold."""
UNREAD_SECONDS = 1.0


class Impatient(PunctualProtocol):
    """With a deadline that a test can wait for."""

    unread_seconds = UNREAD_SECONDS


async def large_answers(scope, receive, send) -> None:
    """In pieces, as a download; and as one, which is handed over before its client has read any of it."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % ANSWER_BYTES)]})
    piece = bytes(ANSWER_BYTES if scope["path"] == "/one" else 65536)
    for sent in range(0, ANSWER_BYTES, len(piece)):
        more = sent + len(piece) < ANSWER_BYTES
        await send({"type": "http.response.body", "body": piece, "more_body": more})


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[uvicorn.Server, tuple[str, int]]]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(large_answers, http=Impatient, loop="uvloop", ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    address = listener.getsockname()
    thread.start()
    yield server, address
    server.should_exit = True
    thread.join()


def ask(address: tuple[str, int], path: str, *, then: str = "keep-alive") -> socket.socket:
    connection = socket.create_connection(address, timeout=60)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: {then}\r\n\r\n".encode())
    return connection


@pytest.mark.parametrize("then", ["keep-alive", "close"])
@pytest.mark.parametrize("path", ["/pieces", "/one"])
def test_a_client_that_does_not_read_is_let_go_of(server, path, then):
    """Whether its answer is still being made or only waits to be sent: the connection is gone after the deadline."""
    running, address = server
    with ask(address, path, then=then):
        assert any(polled(lambda: running.server_state.connections))
        assert any(polled(lambda: not running.server_state.connections and not running.server_state.tasks))


def test_a_slow_reader_has_its_whole_answer(server):
    """It takes in some every now and then, and is not done after several deadlines."""
    _, address = server
    received, began = 0, time.monotonic()
    with ask(address, "/pieces", then="close") as connection:
        while piece := connection.recv(1024 * 1024):
            received += len(piece)
            if time.monotonic() - began < 3 * UNREAD_SECONDS:
                time.sleep(0.1)
    assert received > ANSWER_BYTES
