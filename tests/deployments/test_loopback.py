"""The client for engines: this machine only, a deadline and a size for everything, no redirects and no proxies."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from tunesmith.errors import Unavailable
from tunesmith.net.loopback import LoopbackClient


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path that is asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/long":
            self.answer(200, b"x" * 1_000_000)
        elif self.path == "/away":
            self.answer(302, b"", location="http://127.0.0.1:1/")
        elif self.path == "/never":
            self.server.waits.wait(60)
            self.answer(200, b"late")
        else:
            self.answer(200, self.path.encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for part in (body, b"second"):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            self.wfile.flush()
        if self.path == "/never":
            self.server.waits.wait(60)
        self.wfile.write(b"0\r\n\r\n")

    def answer(self, status, body, **headers):
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def port() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.waits = threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.server_address[1]
        server.waits.set()
        server.shutdown()
        thread.join()


@pytest.fixture
async def loopback():
    client = LoopbackClient()
    yield client
    await client.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/health", "//elsewhere/x", "/a?b=c", "/@127.0.0.2/", "/%2e%2e/x"])
async def test_a_path_is_asked_as_it_is(loopback, port, path):
    """Whatever stands in it, it names no other host."""
    answer = await loopback.get(port, path, seconds=10)
    assert (answer.status, answer.ok) == (200, True)
    assert answer.body == path.replace("//elsewhere", "/elsewhere").encode() or answer.body == path.encode()


@pytest.mark.anyio
async def test_no_redirect_is_followed_and_no_proxy_asked(loopback, port, monkeypatch):
    """What the engine says stays an answer; variables of the environment count for nothing."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    answer = await loopback.get(port, "/away", seconds=10)
    assert (answer.status, answer.ok) == (302, False)


@pytest.mark.anyio
async def test_an_answer_is_read_so_far(loopback, port):
    """The rest of a long one is left."""
    answer = await loopback.get(port, "/long", seconds=10, most=1000)
    assert answer.body == b"x" * 1000


@pytest.mark.anyio
async def test_nothing_is_waited_for_without_end(loopback, port):
    """Neither an answer, nor the head of a stream, nor its next part."""
    with pytest.raises(Unavailable, match="no answer in time"):
        await loopback.get(port, "/never", seconds=0.2)
    async with loopback.stream(port, "/never", {"a": 1}, seconds=10, idle_seconds=0.5) as stream:
        assert b"".join([await anext(stream.chunks), await anext(stream.chunks)]) == b'{"a":1}second'
        with pytest.raises(Unavailable, match="no answer in time"):
            await anext(stream.chunks)


@pytest.mark.anyio
async def test_where_nothing_listens(loopback, port):
    """It is said at once."""
    with pytest.raises(Unavailable, match="nothing accepts connections"):
        await loopback.get(1, "/", seconds=10)


@pytest.mark.anyio
async def test_a_stream_is_read_as_it_comes(loopback, port):
    """And JSON is posted, or bytes that are JSON already."""
    async with loopback.stream(port, "/", b'{"b": 2}', seconds=10, idle_seconds=10) as stream:
        assert (stream.ok, stream.content_type) == (True, "text/event-stream")
        assert b"".join([part async for part in stream.chunks]) == b'{"b": 2}second'
    answer = await loopback.post_json(port, "/", {"a": 1}, seconds=10)
    assert answer.body == b'{"a":1}second'
