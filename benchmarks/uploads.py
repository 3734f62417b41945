"""Many large uploads at once into a real server: how much its memory grows, how fast it is, and how long others wait.

By hand: python benchmarks/uploads.py [--uploads 20] [--megabytes 100]. The bar is less than 50 MB of growth.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.server import ServerProcess

_BOUNDARY = "a-boundary"
_BLOCK = os.urandom(1024 * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uploads", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TUNESMITH_BENCH_DIR")) as folder:
        place = Path(folder)
        with ServerProcess.start(place / "state", place / "recipes") as server:
            measure(server, given.uploads, given.megabytes)


def measure(server: ServerProcess, uploads: int, megabytes: int) -> None:
    with server.client() as client:
        dataset = client.post("/api/v1/datasets", json={"name": "benchmark"}).json()["id"]
        before = resident(server.pid)
        largest, waits, over = before, [], threading.Event()

        def watch() -> None:
            nonlocal largest
            with server.client() as other:
                while not over.wait(0.02):
                    began = time.monotonic()
                    other.get("/healthz")
                    waits.append(time.monotonic() - began)
                    largest = max(largest, resident(server.pid))

        watching = threading.Thread(target=watch)
        watching.start()
        began = time.monotonic()
        with ThreadPoolExecutor(uploads) as threads:
            answers = list(threads.map(lambda _: upload(server, dataset, megabytes), range(uploads)))
        seconds = time.monotonic() - began
        over.set()
        watching.join()
        total = client.get(f"/api/v1/datasets/{dataset}").json()["metadata"]["total_bytes"]
    expected = hashlib.sha256(_BLOCK * megabytes).hexdigest()
    assert all(answer.json()["sha256"] == expected for answer in answers)
    assert total == uploads * megabytes * len(_BLOCK)
    print(f"{uploads} uploads of {megabytes} MiB at once: {seconds:.1f} s, {total / seconds / 1e6:.0f} MB/s")
    print(
        f"memory: {before / 1e6:.1f} MB before, {largest / 1e6:.1f} MB at most: grew by {(largest - before) / 1e6:.1f} MB"
    )
    print(f"/healthz meanwhile: {len(waits)} calls, longest {max(waits) * 1000:.0f} ms")


def upload(server: ServerProcess, dataset: str, megabytes: int) -> httpx.Response:
    def body():
        head = 'Content-Disposition: form-data; name="file"; filename="train.jsonl"'
        yield f"--{_BOUNDARY}\r\n{head}\r\n\r\n".encode()
        for _ in range(megabytes):
            yield _BLOCK
        yield f"\r\n--{_BOUNDARY}--\r\n".encode()

    with server.client() as client:
        client.timeout = httpx.Timeout(300)
        return client.put(
            f"/api/v1/datasets/{dataset}/files",
            content=body(),
            headers={"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"},
        ).raise_for_status()


def resident(pid: int) -> int:
    fields = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(fields.partition("VmRSS:")[2].split()[0]) * 1024


if __name__ == "__main__":
    main()
