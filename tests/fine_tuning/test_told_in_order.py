"""Whoever is told that a job has succeeded finds all that belongs to it; events keep their order when the clock is set back."""

from __future__ import annotations

import http.server
import json
import sys
import threading
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from fine_tuning.conftest import ENVIRONMENT
from fine_tuning.job_parts import JOBS, created, once, rows, uploaded
from support.server import ServerProcess, polled, write_recipe
from support.tiny_model import save_tiny_model, tiny_tokenizer
from tunesmith.openai.job_events import newest_events
from tunesmith.records import Run, RunKind, RunState

T0 = datetime(2026, 12, 1, 12, tzinfo=UTC)


@pytest.fixture
def many(tmp_path):
    """A recipe that measures so much that its result file takes a while."""
    script = (
        'mkdir -p "$TUNESMITH_OUTPUT_DIR"\n'
        f'exec {sys.executable} -c "\n'
        'for n in range(1, 40001): print(\'{\\"tunesmith\\":\\"metrics\\",\\"step\\":%d,\\"loss\\":1.0}\' % n)\n'
        'print(\'{\\"tunesmith\\":\\"result\\",\\"model\\":\\"$TUNESMITH_OUTPUT_DIR\\"}\')"\n'
    )
    config = {"model": {"base": "tiny"}, "data": {"train_file": ""}}
    write_recipe(tmp_path / "recipes", "many", script, config, data=["messages"])
    save_tiny_model(tmp_path / "state" / "models" / "tiny", tiny_tokenizer())
    return tmp_path


def test_whoever_is_told_that_a_job_has_succeeded_finds_its_model_and_its_results(many):
    """OpenAI's guide asks for the job in the handler of its webhook."""
    found: list[dict] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found.append(httpx.get(f"{server.url}{JOBS}/{event['data']['id']}").json())
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{listening.server_port}/"
        told = {"TUNESMITH_WEBHOOK_URL": address, "TUNESMITH_ALLOW_PRIVATE_URLS": "true"}
        with (
            ServerProcess.start(many / "state", many / "recipes", {**ENVIRONMENT, **told}) as server,
            server.client() as client,
        ):
            job = created(client, training_file=uploaded(client, rows(6)), recipe="many")
            once(client, job["id"], "succeeded")
            for _ in polled(lambda: found, 30):
                if found:
                    break
        listening.shutdown()
    assert [(one["status"], bool(one["fine_tuned_model"]), len(one["result_files"])) for one in found] == [
        ("succeeded", True, 1)
    ]


def run_in(state: RunState) -> Run:
    return Run(id="run_" + "0" * 26, kind=RunKind.TRAIN, recipe="lora", state=state, created_at=T0, command=("x",))


def test_pages_hold_every_event_once_also_when_the_clock_was_set_back(tmp_path):
    states = [RunState.VALIDATING, RunState.QUEUED, RunState.RUNNING, RunState.SUCCEEDED]
    changes = [(T0 + timedelta(minutes=at), run_in(state)) for at, state in zip([0, 1, -60, -50], states, strict=True)]
    metrics = tmp_path / "metrics.jsonl"
    measured = [(T0 + timedelta(minutes=at)).timestamp() for at in (-70, 5, -55)]
    metrics.write_text(
        "".join(
            json.dumps({"at": at, "log_offset": place, "step": place}) + "\n" for place, at in enumerate(measured, 1)
        )
    )
    whole = [event.id for event in newest_events(changes[-1][1], changes, (), metrics, after=None)]
    assert len(set(whole)) == 7
    assert [one[-2:] for one in whole if "-s" in one] == ["s3", "s2", "s1", "s0"]
    assert [one[-2:] for one in whole if "-m" in one] == ["m3", "m2", "m1"]
    turned, after = [], None
    while (event := next(newest_events(changes[-1][1], changes, (), metrics, after=after), None)) is not None:
        turned.append(after := event.id)
    assert turned == whole
