"""A tiny real model, served by the built-in engine that nobody deployed, answers a batch as it answers alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from batch_parts import URL, files_of, once, request, started

from support.deployed import remove_all
from support.server import ServerProcess
from support.tiny_model import save_tiny_model, tiny_tokenizer

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[httpx.Client]:
    save_tiny_model(tmp_path / "state/models/tiny", tiny_tokenizer())
    env = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with ServerProcess.start(tmp_path / "state", RECIPES, env) as server, server.client() as client:
        yield client
        remove_all(client)


def test_twenty_requests_are_answered_as_they_would_be_alone(client):
    good = [request(f"r{n}", f"number {n}", "tiny", max_tokens=4 + n, temperature=0) for n in range(16)]
    bad = [request(f"t{n}", "hot", "tiny", temperature=9) for n in range(2)]
    bad += [request("long", "long " * 2000, "tiny"), request("text", "x", "tiny", max_tokens="many")]
    batch = once(client, started(client, good + bad), seconds=100)
    assert batch["request_counts"] == {"total": 20, "completed": 16, "failed": 4}
    output, errors = files_of(client, batch)
    assert set(errors) == {"t0", "t1", "long", "text"}
    for line in errors.values():
        assert line["response"]["status_code"] == 400
        assert line["response"]["body"]["error"]["message"]
    for one in (good[0], good[7], good[15]):
        alone = client.post(URL, json=one["body"]).raise_for_status().json()
        body = output[one["custom_id"]]["response"]["body"]
        assert body["choices"] == alone["choices"]
        assert body["usage"]["total_tokens"] == alone["usage"]["total_tokens"]
        assert body["model"] == "tiny"
    used = sum(line["response"]["body"]["usage"]["total_tokens"] for line in output.values())
    assert batch["usage"]["total_tokens"] == used
