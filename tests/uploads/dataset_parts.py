"""Small steps for the tests of datasets: new datasets, raw uploads that stop half-way. Asserts nothing about the service."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx

from support.server import ServerProcess, polled

ROW = b'{"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"hi"}]}\n'
BOUNDARY = "a-boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
LIMIT = 300_000
"""max_upload_bytes of the shared server."""
CONFIG_LIMIT = 20_000
"""Its max_train_config_bytes."""
_numbers = itertools.count()


def new_dataset(client: httpx.Client, name: str | None = None, **fields: Any) -> str:
    body = {"name": name or f"dataset {next(_numbers)}", **fields}
    answer = client.post("/api/v1/datasets", json=body)
    assert answer.status_code == 201, answer.text
    dataset_id: str = answer.json()["id"]
    return dataset_id


def put_file(
    client: httpx.Client, dataset_id: str, name: str, content: Any = ROW, key: str | None = None
) -> dict[str, Any]:
    answer = put_keyed(client, dataset_id, name, content, key)
    assert answer.status_code == 200, answer.text
    received: dict[str, Any] = answer.json()
    return received


def put_keyed(
    client: httpx.Client, dataset_id: str, name: str, content: Any = ROW, key: str | None = None
) -> httpx.Response:
    headers = {"Idempotency-Key": key} if key is not None else {}
    return client.put(f"/api/v1/datasets/{dataset_id}/files", files={"file": (name, content)}, headers=headers)


def part(name: bytes = b"train.jsonl", field: bytes = b"file", more: bytes = b"") -> bytes:
    """The head of one part of a multipart body."""
    disposition = b'Content-Disposition: form-data; name="' + field + b'"; filename="' + name + b'"'
    return b"--" + BOUNDARY.encode() + b"\r\n" + disposition + b"\r\n" + more + b"\r\n"


def end() -> bytes:
    return b"\r\n--" + BOUNDARY.encode() + b"--\r\n"


def whole(content: bytes = ROW, **head: bytes) -> bytes:
    return part(**head) + content + end()


def in_pieces(body: bytes, size: int = 1000) -> Iterator[bytes]:
    """A body of unknown length, so that it is sent chunked."""
    for start in range(0, len(body), size):
        yield body[start : start + size]


def put_raw(client: httpx.Client, dataset_id: str, body: Any, content_type: str = MULTIPART) -> httpx.Response:
    return client.put(f"/api/v1/datasets/{dataset_id}/files", content=body, headers={"Content-Type": content_type})


class HalfUpload:
    """An upload over a socket of its own that goes on only when told to."""

    def __init__(
        self, server: ServerProcess, dataset_id: str, name: bytes = b"train.jsonl", key: str | None = None
    ) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        keyed = f"Idempotency-Key: {key}\r\n" if key is not None else ""
        self._socket.sendall(
            f"PUT /api/v1/datasets/{dataset_id}/files HTTP/1.1\r\nHost: {host}\r\nContent-Type: {MULTIPART}\r\n"
            f"{keyed}Transfer-Encoding: chunked\r\n\r\n".encode()
        )
        self.send(part(name))

    def send(self, content: bytes) -> Self:
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(content), content))
        return self

    def finish(self) -> str:
        self.send(end())
        self._socket.sendall(b"0\r\n\r\n")
        return self.answer()

    def answer(self) -> str:
        """The head and the beginning of the body of what the service says."""
        return self._socket.recv(65536).decode()

    def leave(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()


def in_flight(client: httpx.Client, dataset_id: str, at_least: int = 1) -> list[dict[str, Any]]:
    """What is coming in, once that many bytes are there."""
    for shown in polled(lambda: client.get(f"/api/v1/datasets/{dataset_id}").json()["upload_progress"]["in_flight"]):
        if shown and all(one["bytes"] >= at_least for one in shown):
            return list(shown)
    raise AssertionError("nothing is coming in")


def folders(server: ServerProcess) -> set[str]:
    """Everything below state/uploads, files and folders."""
    root = server.state_dir / "uploads"
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.parent.is_symlink()}


def wait_until_nothing_comes_in(client: httpx.Client, dataset_id: str) -> None:
    """A client that left is noticed a moment later; what it sent is off the disk before it is off the list."""
    for shown in polled(lambda: client.get(f"/api/v1/datasets/{dataset_id}").json()["upload_progress"]["in_flight"]):
        if not shown:
            return
    raise AssertionError("an upload whose client left is still listed")


def resident_bytes(pid: int) -> int:
    fields = Path(f"/proc/{pid}/status").read_text()
    return int(fields.partition("VmRSS:")[2].split()[0]) * 1024
