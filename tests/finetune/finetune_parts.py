"""A service around a training function as its owner would write it, and the requests that it gets."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.receiver import Receiver
from support.server import ServerProcess, polled
from tunesmith.runner import LogReader
from tunesmith.runs.fold import read_event

# What it does is told by config_param, so that one server serves all tests.
SERVICE = """
import sys, time
from pathlib import Path
from tunesmith import FinetuneAPI

HERE = Path(__file__).parent
(HERE / "imported").open("a").write(__name__ + "\\n")


def train(train_dataset_path, param_dict, model_path, output_model_path, output_log_path, resume_from):
    told = param_dict["config_param"]
    data = Path(train_dataset_path)
    print("reading", data if data.is_dir() else data.read_text().strip(), flush=True)
    kind = param_dict["measurement"]
    last = told.get("steps", param_dict["total_epoch_number"])
    done = int(Path(resume_from).read_text()) if resume_from else 0
    print("after", done, flush=True) if resume_from else None
    xs = list(range(1, done + 1))
    for idx in range(done + 1, last + 1):
        while told.get("wait_for") and idx >= told.get("wait_at", 2) and not (HERE / told["wait_for"]).exists():
            time.sleep(0.02)
        if idx == told.get("raise_at"):
            raise RuntimeError("the loss is not a number")
        xs.append(idx)
        (Path(output_model_path) / f"best_model_{kind}.pth").write_bytes(b"weights")
        saved = Path(output_model_path) / "saved"
        saved.write_text(str(idx))
        yield told.get("instead") or {
            **({"checkpoint": saved} if told.get("checkpoints") else {}),
            "is_final": idx == last,
            "idx": idx,
            "fig_param": {
                "x_axis": list(xs), "x_label": kind, "losses": [1 / x for x in xs], "accuracies": [1 - 1 / x for x in xs],
                "valid_losses": [2 / x for x in xs], "valid_accuracies": [0.5 for x in xs],
            },
            "test_accuracy": 0.75,
            "output_model_path": output_model_path,
            "output_log_path": output_log_path,
        }
    print("from", model_path, file=sys.stderr)


if __name__ == "__main__":
    FinetuneAPI("digits", train, HERE / "base.pth", HERE / "data").start(port=int(sys.argv[1]))
"""


class FunctionServer(ServerProcess):
    """The script above, started as its owner would."""

    def _command(self) -> list[str]:
        script = self.state_dir.parents[1] / "service.py"
        return [sys.executable, str(script), str(self._port)]


def function_server(place: Path) -> FunctionServer:
    (place / "service.py").write_text(SERVICE)
    (place / "data").mkdir()
    (place / "data/rows.csv").write_text("rows\n")
    env = {"TUNESMITH_ALLOW_PRIVATE_URLS": "true", "TUNESMITH_MAX_CPU_RUNS": "4"}
    return FunctionServer.start(place / "data/state", place, env)


def request_for(receiver: Receiver | str, data: Path | str, task_id: str = "task-1", **params: Any) -> dict[str, Any]:
    """A whole request; ``params`` go into its param_dict."""
    return {
        "task_id": task_id,
        "call_back_api": receiver if isinstance(receiver, str) else receiver.url,
        "input_content": {
            "customized_input": {f"{split}_dataset_path": str(data) for split in ("train", "valid", "test")}
        },
        "param_dict": {
            "finetune_mode": "full",
            "config_param": {},
            "show_frequecy": 2,
            "measurement": "epoch",
            "total_epoch_number": 5,
            "batch_size": 8,
            "lr": 0.001,
            **params,
        },
    }


def wait_for_end(receiver: Receiver, seconds: float = 90.0) -> list[dict[str, Any]]:
    """All bodies, once the last one has come."""
    for events in polled(lambda: receiver.events, seconds):
        if any(event["status"] == "fail" or event["is_final"] for event in events):
            return events
    raise AssertionError(f"no last callback among {receiver.events}")


@contextmanager
def file_server(content: bytes = b"rows from afar\n") -> Iterator[str]:
    """Serves ``/rows.csv``; ``/metadata`` leads to a cloud's credentials, and ``/huge`` announces ten gigabytes."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response({"/rows.csv": 200, "/huge": 200, "/metadata": 302}.get(self.path, 404))
            if self.path == "/metadata":
                self.send_header("location", "http://169.254.169.254/latest/meta-data")
            length = 10 * 10**9 if self.path == "/huge" else len(content) if self.path == "/rows.csv" else 0
            self.send_header("content-length", str(length))
            self.end_headers()
            if self.path == "/rows.csv":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def metrics_of(log: Path) -> Path:
    """What is kept beside a log of what was measured in it."""
    metrics = log.with_suffix(".jsonl")
    events = [read_event(line) for line in LogReader(log).read(at_end=True)]
    measured = [{**event.fields, "log_offset": event.end} for event in events if event.kind == "metrics"]
    metrics.write_text("".join(json.dumps(one) + "\n" for one in measured))
    return metrics
