"""Batches over HTTP, and an engine for them: a real process that answers at once, when a file says so, or never. Asserts nothing.

What an engine does with a request is in its last message: ``refuse``, ``busy`` (the first time), ``hold`` (until the file ``go``
is there). Anything else is answered with ``you said: ...``.
"""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx

from support.server import ServerProcess, polled

URL = "/v1/chat/completions"
OVER = frozenset({"failed", "completed", "expired", "cancelled"})
ENGINE = """
import http.server, json, pathlib, sys, threading, time

place = pathlib.Path(sys.argv[1])
port = int(sys.argv[sys.argv.index("--port") + 1])
writing = threading.Lock()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(200, {"data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        said = body["messages"][-1]["content"]
        with writing:
            asked = place / "asked"
            before = asked.read_text().splitlines() if asked.exists() else []
            with asked.open("a") as file:
                file.write(said + "\\n")
        while "hold" in said and not (place / "go").exists():
            time.sleep(0.01)
        if "refuse" in said:
            self.answer(400, {"error": {"message": "no", "type": "invalid_request_error", "param": None, "code": None}})
        elif "busy" in said and said not in before:
            self.answer(429, {"error": {"message": "later"}})
        else:
            self.answer(200, {
                "id": "c", "object": "chat.completion", "created": 1, "model": body["model"],
                "choices": [{"index": 0, "message": {"role": "assistant", "content": "you said: " + said}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            })

    def answer(self, status, body):
        content = json.dumps(body, indent=1).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    request_queue_size = 128
    daemon_threads = True

Server(("127.0.0.1", port), Handler).serve_forever()
"""


class Engine:
    """The folder by which the engines of one server are told what to do."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True)
        (place / "engine.py").write_text(textwrap.dedent(ENGINE))

    @property
    def command(self) -> str:
        return f"{sys.executable} {self.place / 'engine.py'} {self.place}"

    def go(self) -> None:
        """Let it answer what it holds."""
        (self.place / "go").touch()

    @property
    def asked(self) -> list[str]:
        """What was said to it, each time."""
        path = self.place / "asked"
        return path.read_text().splitlines() if path.exists() else []


def start_server(place: Path, engine: Engine, **settings: str) -> ServerProcess:
    """With a deployment named ``served``."""
    (place / "recipes").mkdir(parents=True, exist_ok=True)
    folder = place / "state/models/small"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    server = again(place, engine, **settings)
    with server.client() as client:
        wanted = {"model_path": "small", "engine": "vllm", "name": "served"}
        client.post("/api/v1/deployments", json=wanted).raise_for_status()
    return server


def again(place: Path, engine: Engine, **settings: str) -> ServerProcess:
    """Another server on the same folder."""
    env = {"TUNESMITH_VLLM_COMMAND": engine.command, **settings}
    return ServerProcess.start(place / "state", place / "recipes", env)


def request(custom_id: Any, said: str = "hello", model: str = "served", **body: Any) -> dict[str, Any]:
    """One line of an input file."""
    messages = [{"role": "user", "content": said}]
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": URL,
        "body": {"model": model, "messages": messages, **body},
    }


def lines_of(requests: Iterable[Any]) -> bytes:
    return b"".join(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n" for one in requests)


def upload(client: httpx.Client, content: bytes, purpose: str = "batch") -> str:
    files = {"file": ("requests.jsonl", content)}
    answer = client.post("/v1/files", files=files, data={"purpose": purpose})
    made: str = answer.raise_for_status().json()["id"]
    return made


def create(client: httpx.Client, file_id: str, **fields: Any) -> httpx.Response:
    body = {"input_file_id": file_id, "endpoint": URL, "completion_window": "24h", **fields}
    return client.post("/v1/batches", json=body)


def started(client: httpx.Client, requests: Iterable[Any], **fields: Any) -> str:
    """The id of a batch of these lines."""
    answer = create(client, upload(client, lines_of(requests)), **fields)
    made: str = answer.raise_for_status().json()["id"]
    return made


def shown(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/batches/{batch_id}").raise_for_status().json()
    return found


def once(client: httpx.Client, batch_id: str, *statuses: str, seconds: float = 60.0) -> dict[str, Any]:
    """The batch once it is in one of these states; by default, over."""
    for found in polled(lambda: shown(client, batch_id), seconds):
        if found["status"] in (statuses or OVER):
            return found
    raise AssertionError(f"after {seconds} s the batch is still {found}")


def content_of(client: httpx.Client, file_id: str) -> list[dict[str, Any]]:
    text = client.get(f"/v1/files/{file_id}/content").raise_for_status().text
    return [json.loads(line) for line in text.splitlines()]


def files_of(client: httpx.Client, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The lines of its output and of its error file, by custom id; a file that is not there has none."""
    found = []
    for name in ("output_file_id", "error_file_id"):
        lines = content_of(client, batch[name]) if batch[name] else []
        assert len({line["custom_id"] for line in lines}) == len(lines)
        found.append({line["custom_id"]: line for line in lines})
    return found[0], found[1]
