"""Begins a task and shows its callbacks as they arrive: python receiver.py FOLDER_WITH_ROWS. Standard library only."""

from __future__ import annotations

import argparse
import json
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

seen: set[str] = set()
last = threading.Event()


class Callbacks(BaseHTTPRequestHandler):
    """Answers at once; a delivery can come twice, so the ids are remembered."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
        if self.headers["webhook-id"] not in seen:
            seen.add(self.headers["webhook-id"])
            show(body)

    def log_message(self, *_: object) -> None:
        """The callbacks themselves are shown."""


def show(body: dict[str, Any]) -> None:
    if body["status"] == "fail":
        print(f"{body['task_id']} failed: {body['error']}", flush=True)
    else:
        figure = body["fig_param"]
        accuracy = f"test accuracy {body['test_accuracy']:.4f}"
        print(f"{figure['x_label']} {body['idx']}: loss {figure['losses'][-1]:.4f}, {accuracy}", flush=True)
        if body["is_final"]:
            print(f"model: {body['output_model_path']}", flush=True)
    if body["status"] == "fail" or body["is_final"]:
        last.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--service", default="http://127.0.0.1:8001")
    options = parser.parse_args()
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), Callbacks)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    rows = options.rows.resolve()
    request = {
        "task_id": f"digits-{int(time.time())}",
        "call_back_api": f"http://127.0.0.1:{receiver.server_port}/",
        "input_content": {
            "customized_input": {
                f"{part}_dataset_path": str(rows / f"{part}.csv") for part in ("train", "valid", "test")
            }
        },
        "param_dict": {
            "finetune_mode": "full",
            "config_param": {"seed": 0},
            "show_frequecy": 5,
            "measurement": "epoch",
            "total_epoch_number": 20,
            "batch_size": 32,
            "lr": 0.002,
        },
    }
    post = urllib.request.Request(f"{options.service}/finetune", json.dumps(request).encode())  # noqa: S310  # the caller names it
    post.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(post) as answer:  # noqa: S310
            print(f"begun: {json.load(answer)['run_id']}", flush=True)
    except urllib.error.HTTPError as error:
        raise SystemExit(f"refused: {error.read().decode()}") from None
    last.wait()


if __name__ == "__main__":
    main()
