"""The native view of runs: lists, logs, metrics, for any run whichever door created it."""

from __future__ import annotations

from datetime import datetime

import httpx
import pytest

from support.server import start_run, wait_for_run


@pytest.fixture(scope="module")
def quick(client: httpx.Client) -> str:
    """A run that is over."""
    run_id = start_run(client, "quick")
    assert wait_for_run(client, run_id)["status"] == "succeeded"
    return run_id


def pages(client: httpx.Client, path: str, **params):
    cursor = None
    while True:
        page = client.get(path, params={**params, **({"cursor": cursor} if cursor else {})}).raise_for_status().json()
        yield page
        cursor = page["cursor"]
        if cursor is None:
            return


def test_a_run_shows_everything_about_itself(client, server, quick):
    """What was asked, what was started, how it ended, and where its files are."""
    run = client.get(f"/v1/runs/{quick}").json()
    assert (run["run_id"], run["recipe"], run["kind"], run["attempt"]) == (quick, "quick", "train", 1)
    assert (run["status"], run["exit"]["code"], run["progress"], run["error"]) == ("succeeded", 0, 1.0, None)
    created, started, finished = (
        datetime.fromisoformat(run[f"{what}_at"]) for what in ("created", "started", "finished")
    )
    assert created <= started <= finished
    assert run["run_dir"] == str(server.state_dir / "runs" / quick)
    assert run["ckpt_path"] == "/somewhere/checkpoint-5"


def test_runs_are_listed_newest_first_with_filters(client):
    """By state, recipe and experiment; the cursor gives each run once."""
    made = [start_run(client, "sft") for _ in range(5)]
    for run_id in made:
        wait_for_run(client, run_id)
    listed = [run["run_id"] for page in pages(client, "/v1/runs", recipe="sft", limit=2) for run in page["runs"]]
    assert len(set(listed)) == len(listed)
    assert listed[:5] == made[::-1]
    experiment = client.get(f"/v1/runs/{made[0]}").json()["experiment_id"]
    of_one = client.get("/v1/runs", params={"experiment_id": experiment}).json()
    assert [run["run_id"] for run in of_one["runs"]] == [made[0]]
    for state in ("succeeded", "queued"):
        page = client.get("/v1/runs", params={"state": state, "recipe": "sft"}).json()
        assert {run["status"] for run in page["runs"]} <= {state}
    assert client.get("/v1/runs", params={"recipe": "nothing"}).json() == {"runs": [], "cursor": None}


def test_the_log_by_offset_and_by_line_is_the_same(client, quick):
    """One line at a time either way: the same lines with the same numbers, and then it is complete."""
    whole = client.get(f"/v1/runs/{quick}/logs").json()
    assert whole["complete"]
    assert [line["number"] for line in whole["lines"]] == list(range(1, len(whole["lines"]) + 1))
    assert whole["lines"][0]["text"] == "a first line"
    assert whole["lines"][1]["text"] == "no end: \ufffd\ufffd event: state"
    assert whole["lines"][-1]["text"] == "a last line without an end"
    by_offset, by_line, offset, after = [], [], 0, 0
    for _ in whole["lines"]:
        one = client.get(f"/v1/runs/{quick}/logs", params={"offset": offset, "limit": 1}).json()
        by_offset += one["lines"]
        offset = one["next_offset"]
        one = client.get(f"/v1/runs/{quick}/logs", params={"after_line": after, "limit": 1}).json()
        by_line += one["lines"]
        after = one["lines"][-1]["number"]
    assert by_offset == by_line == whole["lines"]
    assert offset == whole["size"]


def test_a_log_can_be_read_while_it_is_written(client, server):
    """next_offset is where to go on; complete only when nothing more can come."""
    run_id = start_run(client, "waits")
    wait_for_run(client, run_id, lambda run: run["status"] == "running")
    page = {"lines": []}
    while not page["lines"]:
        page = client.get(f"/v1/runs/{run_id}/logs").json()
    assert [line["text"] for line in page["lines"]] == ["ready"]
    assert not page["complete"]
    (server.state_dir / "runs" / run_id / "go").touch()
    wait_for_run(client, run_id)
    rest = client.get(f"/v1/runs/{run_id}/logs", params={"offset": page["next_offset"]}).json()
    assert [(line["number"], line["text"]) for line in rest["lines"]] == [(2, "gone")]
    assert rest["complete"]


def test_the_history_of_metrics_is_whole(client, quick):
    """Every point in order, with its step, also page by page."""
    whole = client.get(f"/v1/runs/{quick}/metrics").json()
    assert [(point["step"], point["loss"]) for point in whole["metrics"]] == [(step, 1 / step) for step in range(1, 6)]
    assert whole["cursor"] is None
    paged = [point for page in pages(client, f"/v1/runs/{quick}/metrics", limit=2) for point in page["metrics"]]
    assert paged == whole["metrics"]


@pytest.mark.parametrize("cursor", ["1", "50", "9999999", "9" * 40])
def test_a_made_up_cursor_is_no_error_of_ours(client, quick, cursor):
    """Whole points or nothing."""
    answer = client.get(f"/v1/runs/{quick}/metrics", params={"cursor": cursor})
    assert answer.status_code == 200
    assert [point["step"] for point in answer.json()["metrics"]] in ([], [2, 3, 4, 5])


@pytest.mark.parametrize("path", ["", "/status", "/logs", "/metrics", "/events"])
def test_an_unknown_run_is_not_found(client, path):
    """404 with a way to find the right one."""
    answer = client.get(f"/v1/runs/run_nothing{path}")
    assert answer.status_code == 404
    assert "GET /v1/runs" in answer.json()["mend"]


def test_recipes_are_listed_with_what_is_wrong(client):
    """A broken recipe is shown with its faults, and breaks no other; one that is not there is not found."""
    listed = {recipe["name"]: recipe for recipe in client.get("/v1/recipes").json()["recipes"]}
    assert listed["trains"]["ok"]
    assert listed["trains"]["aliases"]["lr"] == "training.learning_rate"
    assert not listed["broken"]["ok"]
    assert listed["broken"]["faults"][0]["where"] == "recipe.yaml: kind"
    assert client.get("/v1/recipes/trains").json() == listed["trains"]
    assert client.get("/v1/recipes/broken").json() == listed["broken"]
    assert client.get("/v1/recipes/nothing").status_code == 404


def test_the_service_tells_what_it_is(client):
    """Name and addresses, health with the time, and counters for a scraper."""
    about = client.get("/").json()
    assert (about["name"], about["docs"], about["openapi"]) == ("tunesmith", "/docs", "/openapi.json")
    for path in ("/healthz", "/health"):
        health = client.get(path).json()
        assert health["status"] == "ok"
        assert isinstance(health["time"], float)
    metrics = client.get("/metrics")
    assert metrics.headers["content-type"].startswith("text/plain")
    for name in (
        'tunesmith_runs{state="succeeded"}',
        "tunesmith_queue_length",
        'tunesmith_slots{kind="cpu",use="free"}',
    ):
        assert name in metrics.text
