"""An engine for the tests: a real process with a real port, started as vLLM would be, that behaves as a file says.

``behaviour`` is read at the start and for each request; ``go`` lets one listen that waits. Asserts nothing.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from support.server import ServerProcess, polled
from tunesmith.contract import environment

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
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
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


def once(client: httpx.Client, deployment_id: str, *statuses: str, seconds: float = 60.0) -> dict[str, Any]:
    """The deployment once it is in one of these states."""
    for found in polled(lambda: shown(client, deployment_id), seconds):
        if found["status"] in statuses:
            return found
    raise AssertionError(f"after {seconds} s the deployment is still {found}")


def shown(client: httpx.Client, deployment_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/api/v1/deployments/{deployment_id}").raise_for_status().json()
    return found


def processes_of(deployment_id: str) -> list[int]:
    """Every process that was started for a deployment: its shim, its engine, and whatever that has started."""
    marks = {f"{name}={deployment_id}".encode() for name in (environment.RUN_ID, environment.SHIM_OF)}
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if marks & set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
    return found


def remove_all(client: httpx.Client) -> None:
    for one in client.get("/api/v1/deployments", params={"limit": 1000}).json():
        client.delete(f"/api/v1/deployments/{one['deployment_id']}", params={"force": True})


class _Well(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # the library's name
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def listening(port: int) -> Iterator[None]:
    """A stranger on a port, which says that it is well."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), _Well) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield
        server.shutdown()
        thread.join()


def kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
