"""Small steps for the tests of the OpenAI-shaped door: requests as its clients send them. Asserts nothing about the service."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import httpx

from support.server import polled

MARV = (
    b'{"messages": [{"role": "system", "content": "Marv is a factual chatbot that is also sarcastic."}, '
    b'{"role": "user", "content": "What\'s the capital of France?"}, '
    b'{"role": "assistant", "content": "Paris, as if everyone doesn\'t know that already."}]}\n'
)
"""A row as OpenAI's guide to fine-tuning has it."""
BOUNDARY = "------------------------d74496d66958873e"
_numbers = itertools.count()

Part = tuple[str, str | None, bytes]
"""Name of the field, name of the file if it is one, content."""


def new_rows(count: int = 1) -> bytes:
    """Rows that no other test has sent."""
    return MARV.replace(b"France", b"number %d" % next(_numbers)) * count


def form(*parts: Part) -> bytes:
    """A multipart body as curl writes it, in this order."""
    body = b""
    for field, filename, content in parts:
        head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"'
        if filename is not None:
            head += f'; filename="{filename}"\r\nContent-Type: application/octet-stream'
        body += head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + f"--{BOUNDARY}--\r\n".encode()


def file_part(content: bytes, name: str = "mydata.jsonl") -> Part:
    return ("file", name, content)


def purpose_part(purpose: str = "fine-tune") -> Part:
    return ("purpose", None, purpose.encode())


def post_form(client: httpx.Client, *parts: Part, path: str = "/v1/files") -> httpx.Response:
    headers = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    return client.post(path, content=form(*parts), headers=headers)


def new_file(
    client: httpx.Client, content: bytes | None = None, name: str = "mydata.jsonl", purpose: str = "fine-tune"
) -> dict[str, Any]:
    """A file as the Python SDK sends one: its purpose first."""
    answer = post_form(client, purpose_part(purpose), file_part(new_rows() if content is None else content, name))
    made: dict[str, Any] = answer.raise_for_status().json()
    return made


def processed(client: httpx.Client, file_id: str) -> dict[str, Any]:
    """The file once it was looked at, as ``files.wait_for_processing`` waits for it."""
    for shown in polled(lambda: client.get(f"/v1/files/{file_id}").raise_for_status().json()):
        if shown["status"] in ("processed", "error"):
            found: dict[str, Any] = shown
            return found
    raise AssertionError(f"{file_id} is not looked at")


def pages(client: httpx.Client, path: str, **query: Any) -> Iterable[Sequence[str]]:
    """The ids of each page, turned as the SDKs do: the last id is ``after``, while there are more."""
    after: dict[str, str] = {}
    while True:
        page = client.get(path, params={**query, **after}).raise_for_status().json()
        yield [one["id"] for one in page["data"]]
        if not page["has_more"]:
            return
        after = {"after": page["data"][-1]["id"]}
