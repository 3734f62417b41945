"""Uploads stream: memory stays flat, and nobody else waits."""

from __future__ import annotations

import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from dataset_parts import end, new_dataset, part, put_raw, resident_bytes

from support.server import ServerProcess

_UPLOADS = 8
_MEGABYTES = 20
_MOST_GROWTH = 30_000_000
_USUAL_WAIT = 1.0
"""Half of the answers come sooner; once in a while a busy machine lets anybody wait."""


def test_many_large_uploads_at_once_take_little_memory(tmp_path, recipes) -> None:
    """8 files of 20 MB come in side by side; the server grows by less than 30 MB and goes on answering."""
    megabyte = b"x" * 999_999 + b"\n"

    def body():
        yield part()
        for _ in range(_MEGABYTES):
            yield megabyte
        yield end()

    with ServerProcess.start(tmp_path / "state", recipes) as server, server.client() as client:
        dataset = new_dataset(client)
        before, largest, waits, over = resident_bytes(server.pid), 0, [], threading.Event()

        def watch() -> None:
            nonlocal largest
            with server.client() as other:
                while not over.is_set():
                    began = time.monotonic()
                    other.get("/healthz").raise_for_status()
                    waits.append(time.monotonic() - began)
                    largest = max(largest, resident_bytes(server.pid))

        with ThreadPoolExecutor(_UPLOADS + 1) as threads:
            watching = threads.submit(watch)
            answers = list(threads.map(lambda _: put_raw(client, dataset, body()), range(_UPLOADS)))
            over.set()
            watching.result()
        assert [answer.json().get("bytes") for answer in answers] == [_MEGABYTES * 1_000_000] * _UPLOADS
        assert len({answer.json()["sha256"] for answer in answers}) == 1
        shown = client.get(f"/api/v1/datasets/{dataset}").json()["metadata"]
        assert shown["total_bytes"] == _UPLOADS * _MEGABYTES * 1_000_000
        assert largest - before < _MOST_GROWTH
        assert statistics.median(waits) < _USUAL_WAIT
        assert client.delete(f"/api/v1/datasets/{dataset}").status_code == 200
