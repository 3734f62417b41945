"""What the server is put under while it is killed, and what the client remembers of it.

Clients do one thing after the other, at random from a seed: experiments that must not be made twice, runs with callbacks,
uploads, marks, cancels. Whatever was acknowledged goes into the history; what was cut off by a death does not. The history
is what is compared with the server's records in the end; nothing here asks the server what it remembers.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from support.server import write_recipe

KEEPS_ITS_PLACE = 'echo "$TUNESMITH_RUN_ID" >>"$TUNESMITH_RUN_DIR/../../starts"\n'
CHECKPOINT = """
checkpoint() {
  folder="$TUNESMITH_RUN_DIR/checkpoints/checkpoint-$1"; mkdir -p "$folder"
  head -c 1000 /dev/zero >"$folder/weights"
  echo '{"step": '$1', "created_at": "2026-01-01T00:00:00Z", "files": [{"path": "weights", "bytes": 1000}]}' >"$folder/new"
  mv "$folder/new" "$folder/manifest.json"
  echo "{\\"tunesmith\\":\\"checkpoint\\",\\"path\\":\\"$folder\\",\\"step\\":$1}"
}
"""
METRIC = """echo '{"tunesmith":"metrics","step":1,"total_steps":1,"loss":0.5}'\n"""
READY_SECONDS = 10
"""Until a server is ready, by the clock."""
MOST_UNFINISHED = 4
MOST_UPLOADS = 900
"""A dataset may hold 1,000, and each client has one."""


def write_recipes(folder: Path) -> None:
    """``short`` writes three checkpoints and ends with 0, ``long`` writes one and waits to be cancelled."""
    some = "for step in 1 2 3; do checkpoint $step; done\n"
    write_recipe(folder, "short", KEEPS_ITS_PLACE + CHECKPOINT + some + METRIC)
    write_recipe(folder, "long", KEEPS_ITS_PLACE + CHECKPOINT + "checkpoint 1; exec sleep 3000\n")


class History(msgspec.Struct):
    """What the client was told: everything in it was acknowledged."""

    experiments: dict[str, str] = {}
    """Ids by idempotency key."""
    runs: dict[str, str] = {}
    """The recipe of each."""
    cancelled: set[str] = set()
    uploads: dict[str, str] = {}
    """The SHA-256 of each."""
    marks: dict[str, str] = {}
    """The checkpoint that each tag was put on."""
    surprises: list[str] = []
    """Answers that nobody should get."""


class Client:
    """One client. It goes on until it is told to stop; while the server is down it waits."""

    def __init__(self, number: int, history: History, seed: int, receiver: str) -> None:
        self._number = number
        self._receiver = receiver
        self._history = history
        self._random = random.Random(f"{seed}/{number}")
        self._count = 0
        self._experiment = ""
        self._dataset = ""
        self._key: str | None = None
        """Of an experiment whose answer has not come yet: it is asked for again until it does."""

    def work(self, url: Callable[[], str], stopped: threading.Event) -> None:
        deeds = (self._keyed_experiment, self._run, self._run, self._upload, self._mark, self._mark, self._cancel)
        while not stopped.is_set():
            try:
                with httpx.Client(base_url=url(), timeout=60, trust_env=False) as client:
                    self._prepare(client)
                    while not stopped.is_set():
                        self._random.choice(deeds)(client)
            except httpx.TransportError:
                stopped.wait(0.02)

    def _prepare(self, client: httpx.Client) -> None:
        if not self._experiment:
            answer = client.post("/v1/experiments", json={"name": f"of {self._number}", "task_type": "sft"})
            self._experiment = answer.json()["id"]
        if not self._dataset:
            answer = client.post("/api/v1/datasets", json={"name": f"{self._new_name()} of {self._number}"})
            self._dataset = answer.json()["id"]

    def _new_name(self) -> str:
        self._count += 1
        return f"{self._number}-{self._count}"

    def _keyed_experiment(self, client: httpx.Client) -> None:
        self._key = self._key or self._new_name()
        answer = client.post(
            "/v1/experiments", json={"name": self._key, "task_type": "sft"}, headers={"Idempotency-Key": self._key}
        )
        if self._expected(answer, 200, 201):
            self._history.experiments[self._key] = answer.json()["id"]
            self._key = None

    def _run(self, client: httpx.Client) -> None:
        runs = client.get("/v1/runs", params={"limit": 100}).json()["runs"]
        if sum(run["status"] in ("queued", "starting", "running", "stopping") for run in runs) >= MOST_UNFINISHED:
            return
        recipe = self._random.choice(("short", "short", "long"))
        request = {"recipe": recipe, "callback": {"url": self._receiver, "events": ["state", "final"]}}
        answer = client.post(f"/v1/experiments/{self._experiment}/runs", json=request)
        if self._expected(answer, 201):
            self._history.runs[answer.json()["run_id"]] = recipe

    def _upload(self, client: httpx.Client) -> None:
        if len(self._history.uploads) >= MOST_UPLOADS:
            return
        content = f'{{"messages": [], "of": "{self._new_name()}"}}\n'.encode() * self._random.randrange(1, 3000)
        answer = client.put(f"/api/v1/datasets/{self._dataset}/files", files={"file": ("rows.jsonl", content)})
        if self._expected(answer, 200, 201):
            self._history.uploads[answer.json()["upload_id"]] = hashlib.sha256(content).hexdigest()

    def _mark(self, client: httpx.Client) -> None:
        page = client.get(f"/v1/experiments/{self._experiment}/checkpoints", params={"limit": 20}).json()
        present = [one for one in page["checkpoints"] if one["complete"] and len(one["marks"]) < 3]
        # Most stay unmarked, so that there is something to prune.
        if not present or self._random.random() < 0.7:
            return
        chosen = self._random.choice(present)
        request = {"run_id": chosen["run_id"], "ckpt_path": chosen["path"], "tag_type": "release"}
        tag = f"tag-{self._new_name()}"
        answer = client.post(
            f"/v1/experiments/{self._experiment}/checkpoints/mark", json={**request, "release_tag": tag}
        )
        # 400: it was pruned between the two calls.
        if self._expected(answer, 201, 400) and answer.status_code == 201:
            self._history.marks[tag] = chosen["path"]

    def _cancel(self, client: httpx.Client) -> None:
        running = client.get("/v1/runs", params={"state": "running", "limit": 100}).json()["runs"]
        waiting = [run["run_id"] for run in running if run["recipe"] == "long"]
        if not waiting:
            return
        run_id = self._random.choice(waiting)
        answer = client.post(f"/v1/runs/{run_id}/cancel")
        # 409: another client was first, and it has ended.
        if self._expected(answer, 200, 409) and answer.status_code == 200:
            self._history.cancelled.add(run_id)

    def _expected(self, answer: httpx.Response, *statuses: int) -> bool:
        if answer.status_code in statuses:
            return True
        self._history.surprises.append(f"{answer.request.method} {answer.request.url}: {answer.text[:500]}")
        return False
