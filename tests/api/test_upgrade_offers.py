"""A client that offers another protocol is answered as if it had not: its body is read, and so is what it sends next.

``curl --http2`` and Java's HttpClient do so with every first request.
"""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest

from support.server import ServerProcess

OFFER = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
HOST = b"Host: 127.0.0.1\r\n"
HEALTH = b"GET /healthz HTTP/1.1\r\n" + HOST
ENDS = HEALTH + b"Connection: close\r\n\r\n"
WEBSOCKET = (
    b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13\r\n"
)


def creates(name: str, *, chunked: bool = False, offer: bytes = OFFER, padding: int = 0) -> bytes:
    body = b" " * padding + json.dumps({"name": name, "task_type": "sft"}).encode()
    head = b"POST /v1/experiments HTTP/1.1\r\n" + HOST + offer + b"Content-Type: application/json\r\n"
    if not chunked:
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def exchange(server: ServerProcess, *pieces: bytes) -> bytes:
    """All that comes back until the server closes; the pieces are sent one by one."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            if len(pieces) > 1:
                time.sleep(0.01)  # or the kernel hands them over as one
        return b"".join(iter(lambda: connection.recv(65536), b""))


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


def names(client: httpx.Client, name: str) -> list[str]:
    return [one["name"] for one in client.get("/v1/experiments", params={"name": name}).json()["experiments"]]


@pytest.mark.parametrize("offer", [OFFER, WEBSOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "chunked"])
def test_a_body_that_comes_with_an_offer_is_read(server, client, chunked, offer):
    """And so are the requests behind it on the same connection, those sent ahead of their answers too."""
    name = f"offered {chunked} {len(offer)}"
    request = creates(name, chunked=chunked, offer=offer)
    assert statuses(exchange(server, request + HEALTH + offer + b"\r\n" + request + ENDS)) == [201, 200, 201, 200]
    assert names(client, name) == [name] * 2


def test_however_the_bytes_arrive(server, client):
    """In two pieces, cut at every place of the request."""
    request = creates("cut")
    end = request.index(b"\r\n\r\n") + 4
    for cut in (1, 20, 60, *range(end - 5, end + 6), len(request) - 1, len(request)):
        assert statuses(exchange(server, request[:cut], request[cut:] + ENDS)) == [201, 200], cut
    one_by_one = [request[at : at + 1] for at in range(len(request))]
    assert statuses(exchange(server, *one_by_one, ENDS)) == [201, 200]


def test_a_large_body_with_an_offer_arrives_whole(server, client):
    """More than is parsed at a time."""
    assert statuses(exchange(server, creates("large", padding=300_000) + ENDS)) == [201, 200]
    assert names(client, "large") == ["large"]


def test_an_old_version_and_a_last_request_may_offer_too(server):
    """HTTP/1.0 knows no offers, and a connection may end with such a request."""
    old = HEALTH.replace(b"HTTP/1.1", b"HTTP/1.0") + OFFER + b"\r\n"
    assert exchange(server, old).partition(b"\r\n\r\n")[2].startswith(b'{"status":"ok"')
    last = HEALTH + b"Upgrade: h2c\r\nConnection: upgrade, close\r\n\r\n"
    answer = exchange(server, last + HEALTH + b"\r\n")
    assert statuses(answer) == [200]
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (HEALTH + OFFER + b"a:b\r\n" * 100 + b"\r\n", 431),
        (HEALTH + OFFER + b"Cookie: " + b"a" * 66_000 + b"\r\n\r\n", 431),
        (b"GET /" + b"a" * 66_000 + b" HTTP/1.1\r\n" + HOST + OFFER + b"\r\n", 414),
        (creates("twice", offer=OFFER + b"Content-Length: 3\r\n"), 400),
        (creates("both", chunked=True, offer=OFFER + b"Content-Length: 3\r\n"), 400),
        (creates("framing", chunked=True)[:-5] + b"1;" + b"a" * 200_000 + b"\r\n \r\n0\r\n\r\n", 431),
        (creates("trailers", chunked=True)[:-2] + b"a:b\r\n" * 200 + b"\r\n", 431),
        (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
        (b"CONNECT 127.0.0.1:80 HTTP/1.1\r\n" + HOST + OFFER + b"\r\n", 400),
    ],
    ids=["fields", "head", "address", "twice", "both", "framing", "trailers", "connect", "connect with an offer"],
)
def test_what_is_refused_without_an_offer_is_refused_with_one(server, request_bytes, status):
    answer = exchange(server, request_bytes)
    assert statuses(answer) == [status], answer[:500]
    assert b"connection: close" in answer


def test_no_more_requests_with_an_offer_wait_than_without(server):
    """Nine requests are one that is answered and eight that wait."""
    assert statuses(exchange(server, (HEALTH + OFFER + b"\r\n") * 30)) == [200] * 9


def test_a_request_with_an_offer_is_judged_by_its_other_fields(server):
    seen = b"Origin: http://elsewhere\r\n"
    assert statuses(exchange(server, creates("elsewhere", offer=OFFER + seen) + ENDS))[0] == 403
