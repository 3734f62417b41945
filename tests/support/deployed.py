"""Looking at deployments over HTTP and at their processes, for tests of engines of any kind. Starts no engine."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from support.server import polled
from tunesmith.contract import environment


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
