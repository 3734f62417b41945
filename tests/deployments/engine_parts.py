"""An engine for the tests: a real process with a real port, started as vLLM would be, that behaves as a file says.

``behaviour`` is read at the start and for each request; ``go`` lets one listen that waits. Asserts nothing.
"""

from __future__ import annotations

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx

from support.server import ServerProcess

ENGINE = """
import http.server, json, os, pathlib, signal, sys, threading, time

place = pathlib.Path(sys.argv[1])

def behaviour():
    path = place / "behaviour"
    return path.read_text() if path.exists() else ""

port = int(sys.argv[sys.argv.index("--port") + 1])
(place / f"argv-{port}.json").write_text(json.dumps(sys.argv[2:]))
print(f"engine {os.getpid()} on {port}", flush=True)
if "exits" in behaviour():
    print("out of cheese", flush=True)
    sys.exit(3)
if "ignores" in behaviour():
    signal.signal(signal.SIGTERM, lambda *_: print("not now", flush=True))
while "waits" in behaviour() and not (place / "go").exists():
    time.sleep(0.02)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        while "hangs" in behaviour():
            time.sleep(0.02)
        self.answer(503 if "sick" in behaviour() else 200, b"{}")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        with (place / "asked.jsonl").open("ab") as asked:
            asked.write(json.dumps({"path": self.path, "body": json.loads(body), "port": port}).encode() + b"\\n")
        self.answer(400 if "refuses" in behaviour() else 200, b"{}")

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

Server(("127.0.0.1", port), Handler).serve_forever()
"""


class Engines:
    """The folder by which the engines of one server are told how to behave."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)
        (place / "engine.py").write_text(textwrap.dedent(ENGINE))

    @property
    def command(self) -> str:
        return f"{sys.executable} {self.place / 'engine.py'} {self.place}"

    def behave(self, *how: str) -> None:
        path = self.place / "behaviour"
        path.with_suffix(".new").write_text(" ".join(how))
        path.with_suffix(".new").replace(path)

    def go(self) -> None:
        (self.place / "go").touch()

    def argv(self, port: int) -> list[str]:
        words: list[str] = json.loads((self.place / f"argv-{port}.json").read_text())
        return words

    @property
    def asked(self) -> list[dict[str, Any]]:
        path = self.place / "asked.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def whole_model(folder: Path) -> Path:
    """What looks like a model to whoever only looks at names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def adapter(folder: Path, base: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": base, "r": 8, "rank_pattern": {"q_proj": 24}})
    )
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


def prepared(place: Path) -> Engines:
    (place / "recipes").mkdir(parents=True)
    whole_model(place / "state/models/small")
    adapter(place / "adapter", "small")
    return Engines(place / "engines")


def started(place: Path, engines: Engines, **settings: str) -> ServerProcess:
    env = {"TUNESMITH_VLLM_COMMAND": engines.command, "TUNESMITH_STOP_GRACE_SECONDS": "2", **settings}
    return ServerProcess.start(place / "state", place / "recipes", env)


def deploy(client: httpx.Client, model: str = "small", **fields: Any) -> dict[str, Any]:
    answer = client.post("/api/v1/deployments", json={"model_path": model, "engine": "vllm", **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made
