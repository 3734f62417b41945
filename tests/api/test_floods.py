"""Clients that send without end: they are stopped, cost the server next to no memory, and keep nobody else waiting."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from support.floods import ENOUGH_BYTES, FLOODS, flood, forget_peak, resident_peak
from support.server import ServerProcess, polled, start_run, wait_for_run

MOST_RESIDENT_BYTES = 200_000_000
HEALTH_SECONDS = 2.0
"""On a machine that has nothing else to do it takes a few milliseconds."""
ANSWERS = {
    "an endless address": {414},
    "pipelined requests": {200, 401},
    "pipelined requests with bodies": {400, 401},
    "an endless body of a refused request": {404},
    "an endless body of a health check": {200},
}
TOO_MUCH_HEAD = {431, 401}
HEAD = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.fixture(scope="module", params=["without keys", "with keys"])
def flooded(request, tmp_path_factory) -> Iterator[ServerProcess]:
    place = tmp_path_factory.mktemp("flooded")
    (place / "recipes").mkdir()
    with ServerProcess.start(place / "state", place / "recipes") as server:
        if request.param == "with keys":
            with server.client() as client:
                client.post("/v1/keys", json={"name": "only", "scope": "admin"}).raise_for_status()
        yield server


def address(server: ServerProcess) -> tuple[str, int]:
    host, port = server.url.removeprefix("http://").split(":")
    return host, int(port)


@contextmanager
def health_is_asked(server: ServerProcess) -> Iterator[list[float]]:
    """How long each answer took, while the block runs."""
    waits: list[float] = []
    enough = threading.Event()

    def ask() -> None:
        while not enough.is_set():
            began = time.monotonic()
            httpx.get(f"{server.url}/healthz", trust_env=False, timeout=60).raise_for_status()
            waits.append(time.monotonic() - began)
            enough.wait(0.02)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield waits
    finally:
        enough.set()
        asking.join()


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_stopped_and_costs_no_memory(flooded, name):
    """From one connection and from fifty, with the answers read and not: closed early, below 200 MB, health as usual."""
    forget_peak(flooded.pid)
    with health_is_asked(flooded) as waits:
        for connections in (1, 50):
            for reads in (True, False):
                outcomes = flood(address(flooded), FLOODS[name], connections=connections, reads=reads)
                assert all(outcome.ended and outcome.sent < ENOUGH_BYTES for outcome in outcomes), (connections, reads)
                told = {int(outcome.answer[9:12]) for outcome in outcomes if outcome.answer}
                assert told <= ANSWERS.get(name, TOO_MUCH_HEAD)
                assert told or not reads
    assert resident_peak(flooded.pid) < MOST_RESIDENT_BYTES
    assert statistics.median(waits) < HEALTH_SECONDS
    assert "Traceback" not in flooded.output


def exchange(server: ServerProcess, request: bytes) -> bytes:
    """All that comes back until the server closes."""
    with socket.create_connection(address(server), timeout=60) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (HEAD + b"a:b\r\n" * 90 + b"Connection: close\r\n\r\n", 200),
        (HEAD + b"a:b\r\n" * 100 + b"Connection: close\r\n\r\n", 431),
        (HEAD + b"Cookie: " + b"a" * 60_000 + b"\r\nConnection: close\r\n\r\n", 200),
        (HEAD + b"Cookie: " + b"a" * 66_000 + b"\r\nConnection: close\r\n\r\n", 431),
        (b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 404),
        (b"GET /" + b"a" * 66_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n", 414),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ],
)
def test_a_head_may_have_64_kib_and_100_fields(server, head, status):
    """What is more is refused with a problem document; whoever sends it reads why."""
    answer = exchange(server, head)
    assert int(answer[9:12]) == status, answer[:500]
    if status in (400, 414, 431):
        assert b"content-type: application/problem+json" in answer
        assert b"connection: close" in answer


def test_what_was_asked_before_too_much_is_answered(server):
    """Nine requests are one that is answered and eight that wait: all have their answers, then the connection ends."""
    answer = exchange(server, (HEAD + b"\r\n") * 30)
    assert answer.count(b"HTTP/1.1 200") == 9
    assert answer.count(b"HTTP/1.1") == 9


def test_what_is_wrong_after_a_request_does_not_cut_into_its_answer(server):
    answer = exchange(server, HEAD + b"\r\n" + HEAD + b"a:b\r\n" * 200)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.partition(b"\r\n\r\n")[2].startswith(b'{"status":"ok"')


def test_trailers_are_no_headers(server):
    """A request is judged by its head: what comes after the body cannot add to it."""
    begins = b"POST /v1/experiments HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n"
    body = b'{"name": "chunked", "task_type": "sft"}'
    sent = begins + b"\r\n%x\r\n%b\r\n0\r\nOrigin: http://elsewhere\r\n\r\n" % (len(body), body)
    assert exchange(server, sent).startswith(b"HTTP/1.1 201")
    refused = begins + b"Origin: http://elsewhere\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert exchange(server, refused).startswith(b"HTTP/1.1 403")


def test_a_follower_that_leaves_is_forgotten_whatever_it_asked_for_next(server, client):
    """The run's events are being sent, another request waits behind them, and then the connection is lost."""
    run_id = start_run(client, "waits")
    wait_for_run(client, run_id, lambda run: run["status"] == "running")
    log = server.state_dir / "runs" / run_id / "run.log"
    assert any(polled(lambda: log.read_bytes() == b"ready\n"))
    before = _clients(client)
    with socket.create_connection(address(server), timeout=60) as connection:
        follow = b"GET /v1/runs/%b/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" % run_id.encode()
        connection.sendall(follow + HEAD + b"\r\n")
        received = b""
        while b'"ready"' not in received:
            received += connection.recv(65536)
        assert _clients(client) == before + 1
    assert any(polled(lambda: _clients(client) == before))
    (server.state_dir / "runs" / run_id / "go").touch()
    wait_for_run(client, run_id)


def _clients(client: httpx.Client) -> int:
    """How many requests the server is busy with, this one among them."""
    text = client.get("/metrics").text
    return int(float(next(line.split()[1] for line in text.splitlines() if line.startswith("tunesmith_requests_now"))))
