"""An account that does not behave, or has what no door of ours makes: downloads that stand still or break off, lists without an
end, jobs of other methods. A real HTTP server.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from import_parts import OLD_MODEL

SIZE = 1000


@dataclass
class IllAccount:
    """What it shall do, and what it saw."""

    ids: list[str]
    """Of its jobs, newest first."""
    breaks: bool = False
    """Downloads end early; else they stand still in the middle until ``released`` is set."""
    endless: bool = False
    """Whatever page is asked for is the first, and says that there are more."""
    content: bytes = b""
    """Of every file, which then comes whole."""
    more: dict = field(default_factory=dict)
    """What else is told of every job."""
    url: str = ""
    keys: set[str] = field(default_factory=set)
    begun: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def job(self, job_id: str) -> dict:
        file = f"file-{job_id}"
        told = {"object": "fine_tuning.job", "status": "succeeded", "created_at": 1, "hyperparameters": {}}
        return {
            **told,
            "id": job_id,
            "model": OLD_MODEL,
            "training_file": file,
            "seed": 1,
            "result_files": [],
            **self.more,
        }

    def answer(self, path: str) -> dict:
        if path.startswith("/v1/files/"):
            name = path.rpartition("/")[2]
            about = {"id": name, "object": "file", "purpose": "fine-tune", "status": "processed", "created_at": 1}
            return {**about, "filename": "rows.jsonl", "bytes": len(self.content) or SIZE}
        return {"object": "list", "data": [self.job(one) for one in self.ids], "has_more": self.endless}


@contextlib.contextmanager
def ill_account(account: IllAccount) -> Iterator[IllAccount]:
    """Listening, inside the block."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # the library's name
            account.keys.add(self.headers["authorization"])
            path = self.path.partition("?")[0]
            if not path.endswith("/content"):
                self._send(json.dumps(account.answer(path)).encode(), "application/json")
                return
            self._send(account.content or b"x" * (SIZE // 2), "application/octet-stream", len(account.content) or SIZE)
            account.begun.set()
            if not account.breaks and not account.content:
                account.released.wait(60)

        def _send(self, body: bytes, kind: str, length: int | None = None):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(length or len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        account.url = f"http://127.0.0.1:{server.server_port}/v1"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield account
        finally:
            account.released.set()
            server.shutdown()
            thread.join()
