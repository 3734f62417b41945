"""A callback receiver on loopback that keeps what it is sent. Asserts nothing."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Receiver:
    """Keeps what it is sent; can be told to refuse."""

    def __init__(self) -> None:
        self.got: list[tuple[dict[str, str], bytes]] = []
        self.status = 200
        self.refused = 0
        """How often it answered with another status than 200."""
        self.url = ""

    @property
    def events(self) -> list[dict]:
        """Each delivery once, in order of first arrival."""
        seen: dict[str, dict] = {}
        for headers, body in self.got:
            seen.setdefault(headers["webhook-id"], json.loads(body))
        return list(seen.values())


@contextmanager
def receiving(port: int = 0, receiver: Receiver | None = None) -> Iterator[Receiver]:
    receiver = receiver or Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length)
            if len(body) < length:
                self.close_connection = True
                return  # the sender died in the middle of it
            status = receiver.status  # looked at once: what is answered is what was noted
            if status == 200:
                receiver.got.append(({k.lower(): v for k, v in self.headers.items()}, body))
            else:
                receiver.refused += 1
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler) as listening:
        receiver.url = f"http://127.0.0.1:{listening.server_port}/hook"
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield receiver
        listening.shutdown()
