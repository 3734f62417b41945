"""A body that is answered before it has arrived: the client reads the answer, and its next request works."""

from __future__ import annotations

import httpx
import pytest

from support.server import ServerProcess, write_recipe

TOO_LARGE = b'{"name": "' + b"x" * (8 * 1024 * 1024) + b'"}'
SMALL = {"name": "x", "task_type": "sft"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bodies")
    write_recipe(folder / "recipes", "quick", "true")
    with ServerProcess.start(folder / "state", folder / "recipes") as running:
        yield running


def in_pieces(content: bytes):
    """As a client sends it that does not announce how long it is."""
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "chunked"])
def test_the_next_request_after_a_refused_body_works(server, announced):
    """413 says that the connection ends, so that no client sends its next request into it."""
    headers = {"Content-Type": "application/json"}
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        for _ in range(20):
            content = TOO_LARGE if announced else in_pieces(TOO_LARGE)
            refused = client.post("/v1/experiments", content=content, headers=headers)
            assert refused.status_code == 413, refused.text
            if announced:
                assert refused.headers["connection"] == "close"
            assert client.post("/v1/experiments", json=SMALL).status_code == 201


def test_an_ordinary_request_keeps_its_connection(server):
    """Also a refused one, as long as its body is small: nothing says that the connection ends."""
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as client:
        for body in (SMALL, {"name": 1}, {"name": "x" * 200_000}):
            assert "connection" not in client.post("/v1/experiments", json=body).headers
