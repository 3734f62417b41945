"""An engine for the tests: started as vLLM would be, it answers completions as the last message tells it to."""

from __future__ import annotations

import textwrap
from pathlib import Path

ENGINE = r"""
import http.server, json, os, sys

port = int(sys.argv[sys.argv.index("--port") + 1])
name = sys.argv[sys.argv.index("--served-model-name") + 1]

def chunk(text):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return b"data: " + json.dumps({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": name,
        "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer(200, {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        told = body["messages"][-1]["content"]
        if told.startswith("refuse "):
            _, status, text = told.split(" ", 2)
            return self.answer(int(status), json.loads(text))
        if body.get("stream"):
            self.send_response(200)
            self.send_header("content-type", "text/event-stream")
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            for text in ("a", 'says "model":"%s"' % name):
                for byte in chunk(text):
                    self.wfile.write(b"1\r\n" + bytes([byte]) + b"\r\n")
                self.wfile.flush()
            if told == "die":
                os._exit(1)
            if told == "fail":
                last = b'data: {"error":{"message":"out of cheese","type":"server_error","param":null,"code":null}}\n\n'
            else:
                last = b"data: [DONE]\n\n"
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(last), last))
            return
        choice = {"index": 0, "message": {"role": "assistant", "content": json.dumps(body)}, "finish_reason": "stop"}
        self.answer(200, {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": name, "choices": [choice]})

    def answer(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True

Server(("127.0.0.1", port), Handler).serve_forever()
"""


def write_engine(folder: Path) -> Path:
    path = folder / "told_engine_program.py"
    path.write_text(textwrap.dedent(ENGINE))
    return path
