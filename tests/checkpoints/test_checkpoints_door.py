"""Checkpoints, marks, going on, pausing and recovery, over real HTTP with a small trainer that really checkpoints."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe

# Counts steps; its whole state is the step. A checkpoint every 5 steps, and one when asked to stop. At the step `hold` it
# stands still until it is stopped or killed, and so it is certain that it has not ended; resumed, it does not.
TRAINER = """
exec "${TUNESMITH_PYTHON:-python}" -u -c '
import json, os, signal, sys, time
from datetime import UTC, datetime
from pathlib import Path
from tunesmith.contract.events import emit

run, stop = Path(os.environ["TUNESMITH_RUN_DIR"]), []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
step, last, pause, hold = 0, int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
if os.environ["TUNESMITH_RESUME_FROM"]:
    hold = 0
    step = int((Path(os.environ["TUNESMITH_RESUME_FROM"]) / "step").read_text())
print(f"begins after step {step}")

def save():
    folder = run / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(exist_ok=True)
    (folder / "step").write_text(str(step))
    (folder / "weights").write_bytes(bytes(1000))
    manifest = {"step": step, "created_at": datetime.now(UTC).isoformat(), "metrics": {"eval_loss": abs(step - 10)}}
    manifest["files"] = [{"path": "step", "bytes": len(str(step))}, {"path": "weights", "bytes": 1000}]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    emit("checkpoint", path=str(folder), step=step)

while step < last:
    step += 1
    emit("metrics", step=step, total_steps=last, loss=1 / step)
    if step % 5 == 0:
        save()
    while step == hold and not stop:
        time.sleep(0.01)
    if stop:
        save()
        sys.exit(143)
    time.sleep(pause)
' "$(grep max_steps "$1" | tr -dc 0-9)" "$(grep pause "$1" | sed 's/.*: //')" "$(grep hold "$1" | tr -dc 0-9)"
"""


# One checkpoint at once; resumed, it writes none.
HESITATES = """
folder="$TUNESMITH_RUN_DIR/checkpoints/checkpoint-5"
echo "begins after step ${TUNESMITH_RESUME_FROM##*-}"
if [[ -z "$TUNESMITH_RESUME_FROM" ]]; then
  mkdir "$folder"
  echo '{"step": 5, "created_at": "2026-01-01T00:00:00Z"}' >"$folder/manifest.json"
  echo "{\\"tunesmith\\": \\"checkpoint\\", \\"path\\": \\"$folder\\", \\"step\\": 5}"
fi
exec sleep 300
"""


@pytest.fixture(scope="module")
def recipes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("recipes")
    write_recipe(folder, "counts", TRAINER, {"training": {"max_steps": 20, "pause": 0.01, "hold": 0, "seed": 1}})
    write_recipe(folder, "forgets", "exec sleep 300")
    write_recipe(folder, "hesitates", HESITATES)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, recipes):
    state = tmp_path_factory.mktemp("checkpoints") / "state"
    with ServerProcess.start(state, recipes, {"TUNESMITH_MAX_CPU_RUNS": "4"}) as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def done(client) -> dict:
    """A run that ended, with checkpoints at 5, 10, 15 and 20."""
    return wait_for_run(client, start_run(client, "counts"))


def at_step(client, run_id: str, step: int) -> dict:
    return wait_for_run(client, run_id, lambda run: (run["current_step"] or 0) >= step)


def checkpoints_of(client, run_id: str) -> list[dict]:
    return client.get(f"/v1/runs/{run_id}/checkpoints").raise_for_status().json()["checkpoints"]


def log_of(client, run_id: str) -> list[str]:
    lines = client.get(f"/v1/runs/{run_id}/logs", params={"limit": 1000}).json()["lines"]
    return [line["text"] for line in lines if line["text"].startswith("begins")]


def steps_of(client, run_id: str) -> list[int]:
    return [point["step"] for point in client.get(f"/v1/runs/{run_id}/metrics").json()["metrics"]]


def test_every_complete_checkpoint_is_listed(client, done):
    """With step, size, metrics and path; newest first; in the experiment's list, too."""
    listed = checkpoints_of(client, done["run_id"])
    assert [one["step"] for one in listed] == [20, 15, 10, 5]
    assert all(one["complete"] and one["bytes"] >= 1001 for one in listed)
    assert listed[0]["metrics"] == {"eval_loss": 10}
    page = client.get(f"/v1/experiments/{done['experiment_id']}/checkpoints", params={"limit": 3}).json()
    assert [one["step"] for one in page["checkpoints"]] == [20, 15, 10]
    rest = client.get(f"/v1/experiments/{done['experiment_id']}/checkpoints", params={"cursor": page["cursor"]}).json()
    assert [one["step"] for one in rest["checkpoints"]] == [5]


def test_an_incomplete_checkpoint_is_never_offered(client, server):
    """Without a manifest, or with a file that is not whole, a folder is no checkpoint."""
    run_id = start_run(client, "counts", hyperparams={"max_steps": 40, "hold": 7})
    at_step(client, run_id, 7)
    folder = server.state_dir / "runs" / run_id / "checkpoints"
    (folder / "checkpoint-3").mkdir()
    (folder / "checkpoint-4").mkdir()
    (folder / "checkpoint-4" / "weights").write_bytes(b"half")
    cut = {"step": 4, "created_at": "2026-01-01T00:00:00Z", "files": [{"path": "weights", "bytes": 1000}]}
    (folder / "checkpoint-4" / "manifest.json").write_text(json.dumps(cut))
    client.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
    assert [one["step"] for one in checkpoints_of(client, run_id)] == [7, 5]


def test_a_mark_names_and_keeps_a_checkpoint(client, done):
    """The mark is in the lists, its tag is a model reference, and the trainer is told to keep the folder."""
    path = f"/v1/experiments/{done['experiment_id']}/checkpoints/mark"
    wanted = checkpoints_of(client, done["run_id"])[1]
    request = {
        "run_id": done["run_id"],
        "ckpt_path": wanted["path"],
        "tag_type": "release",
        "release_tag": "orders-v1",
        "metrics": {"exact_match": 0.98},
    }
    answer = client.post(path, json=request)
    assert answer.status_code == 201
    assert (answer.json()["step"], answer.json()["release_tag"]) == (15, "orders-v1")
    assert checkpoints_of(client, done["run_id"])[1]["marks"][0]["metrics"] == {"exact_match": 0.98}
    assert (Path(wanted["path"]) / "KEEP").exists()
    assert client.post(path, json={**request, "ckpt_path": "/nowhere"}).status_code == 400
    other = checkpoints_of(client, done["run_id"])[0]
    assert client.post(path, json={**request, "ckpt_path": other["path"]}).status_code == 422
    assert client.post(path, json={**request, "release_tag": " "}).status_code == 422
    foreign = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
    problem = client.post(f"/v1/experiments/{foreign}/checkpoints/mark", json=request)
    assert problem.status_code == 400


def test_a_mark_without_a_tag_is_in_the_experiments_history(client, done):
    """What it is on and as what; a tag that would mean something else besides is refused with the reason."""
    path = f"/v1/experiments/{done['experiment_id']}/checkpoints/mark"
    wanted = checkpoints_of(client, done["run_id"])[2]
    request = {"run_id": done["run_id"], "ckpt_path": wanted["path"], "tag_type": "candidate_base"}
    answer = client.post(path, json=request)
    assert (answer.status_code, answer.json()["release_tag"]) == (201, None)
    for tag in (done["run_id"], wanted["id"], "someone/some-model", "/etc"):
        problem = client.post(path, json={**request, "release_tag": tag})
        assert (problem.status_code, problem.json()["where"]) == (422, "release_tag"), problem.text
    assert client.post(path, json={**request, "metrics": {"a": "x" * 100_000}}).status_code == 413
    assert client.post(path, json={**request, "tag_type": "x" * 501}).status_code == 422
    history = client.get(f"/v1/experiments/{done['experiment_id']}/detail").json()["history"]
    [event] = [one for one in history if one["event"] == "checkpoint.marked" and one["tag_type"] == "candidate_base"]
    assert (event["checkpoint_id"], event["run_id"], event["release_tag"]) == (wanted["id"], done["run_id"], None)


def test_a_cancelled_run_is_gone_on_with_as_a_new_run(client):
    """Cancel answers with a checkpoint; resume makes a child that starts exactly there, with overrides."""
    run_id = start_run(client, "counts", hyperparams={"max_steps": 100_000})
    run = at_step(client, run_id, 7)
    base = f"/v1/experiments/{run['experiment_id']}/runs/{run_id}"
    assert client.post(f"{base}/resume", json={}).status_code == 409
    cancelled = client.post(f"{base}/cancel").json()
    step = checkpoints_of(client, run_id)[0]["step"]
    assert Path(cancelled["ckpt_path"]).name == f"checkpoint-{step}"
    resumed = client.post(f"{base}/resume", json={"override_hyperparams": {"max_steps": step + 3}, "notes": "on"})
    assert resumed.status_code == 201, resumed.text
    child = wait_for_run(client, resumed.json()["run_id"])
    assert (child["status"], child["parent_run_id"], child["notes"]) == ("succeeded", run_id, "on")
    assert child["resume_from"] == cancelled["ckpt_path"]
    assert log_of(client, child["run_id"]) == [f"begins after step {step}"]
    assert steps_of(client, child["run_id"]) == [step + 1, step + 2, step + 3]


def test_going_on_from_a_chosen_checkpoint(client, done):
    """By id or path; one of another run is refused, and so is an option that does not exist."""
    base = f"/v1/experiments/{done['experiment_id']}/runs/{done['run_id']}/resume"
    chosen = checkpoints_of(client, done["run_id"])[2]
    for how in ({"checkpoint_id": chosen["id"]}, {"ckpt_path": chosen["path"]}):
        child = client.post(base, json=how).json()
        wait_for_run(client, child["run_id"])
        assert log_of(client, child["run_id"]) == ["begins after step 10"]
    assert client.post(base, json={"checkpoint_id": "ckpt_unknown"}).status_code == 400
    assert client.post(base, json={"ckpt_path": "/etc"}).status_code == 400
    problem = client.post(base, json={"override_hyperparams": {"max_stps": 3}}).json()
    assert problem["status"] == 422
    assert "max_steps" in json.dumps(problem["errors"])


def test_without_a_checkpoint_there_is_nothing_to_go_on_from(client):
    """A run that never wrote one says so."""
    run_id = start_run(client, "forgets")
    run = wait_for_run(client, run_id, lambda run: run["status"] == "running")
    client.post(f"/v1/runs/{run_id}/cancel")
    problem = client.post(f"/v1/experiments/{run['experiment_id']}/runs/{run_id}/resume", json={})
    assert problem.status_code == 409
    assert "no complete checkpoint" in problem.json()["detail"]


def test_a_paused_run_goes_on_as_the_same_run(client, server):
    """Pause frees the slot; going on is a second attempt from the checkpoint, also after a restart of the server."""
    run_id = start_run(client, "counts", hyperparams={"max_steps": 40, "hold": 8})
    assert client.post(f"/v1/runs/{run_id}/resume").status_code == 409
    at_step(client, run_id, 6)
    paused = client.post(f"/v1/runs/{run_id}/pause").json()
    assert paused["status"] == "paused"
    assert client.post(f"/v1/runs/{run_id}/pause").json() == paused
    server.kill9()
    server.up()
    assert client.get(f"/v1/runs/{run_id}").json()["status"] == "paused"
    assert client.post(f"/v1/runs/{run_id}/resume").json()["status"] == "queued"
    run = wait_for_run(client, run_id)
    assert (run["status"], run["attempt"]) == ("succeeded", 2)
    assert steps_of(client, run_id) == list(range(1, 41))
    assert client.post(f"/v1/runs/{run_id}/pause").status_code == 409


def test_a_paused_run_can_be_cancelled(client):
    """It has no process to stop; its checkpoint stays."""
    run_id = start_run(client, "counts", hyperparams={"max_steps": 100_000})
    at_step(client, run_id, 3)
    client.post(f"/v1/runs/{run_id}/pause")
    cancelled = client.post(f"/v1/runs/{run_id}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert (Path(cancelled["ckpt_path"]) / "manifest.json").exists()


@pytest.mark.parametrize("victims", [["program"], ["program", "shim"]])
def test_a_run_that_died_with_the_machine_goes_on_by_itself(client, server, victims):
    """Killed as the kernel kills when memory runs out, or with everything: queued again from its newest checkpoint."""
    run_id = start_run(client, "counts", hyperparams={"max_steps": 30, "hold": 7})
    wait_for_run(client, run_id, lambda run: run["ckpt_path"] is not None)
    process = json.loads((server.state_dir / "runs" / run_id / "attempts" / "1" / "process.json").read_text())
    for victim in reversed(victims):
        os.kill(process[victim]["pid"], signal.SIGKILL)
    run = wait_for_run(client, run_id)
    assert (run["status"], run["attempt"], run["restarts"]) == ("succeeded", 2, 1)
    assert "checkpoint-" in run["resume_from"]
    assert steps_of(client, run_id)[-1] == 30


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_run_that_went_on_keeps_its_beginning_until_it_has_a_checkpoint_of_its_own(client, server, how):
    """Its next attempt starts from the same checkpoint of the other run, not from nothing."""
    parent = start_run(client, "hesitates")
    run = wait_for_run(client, parent, lambda run: run["ckpt_path"] is not None)
    client.post(f"/v1/runs/{parent}/cancel")
    child = client.post(f"/v1/experiments/{run['experiment_id']}/runs/{parent}/resume", json={}).json()["run_id"]
    for _ in polled(lambda: None):
        if log_of(client, child):
            break
    wait_for_run(client, child, lambda run: run["status"] == "running")
    if how == "paused":
        assert client.post(f"/v1/runs/{child}/pause").json()["ckpt_path"] is None
        assert client.post(f"/v1/runs/{child}/resume").json()["ckpt_path"] == run["ckpt_path"]
    else:
        process = json.loads((server.state_dir / "runs" / child / "attempts" / "1" / "process.json").read_text())
        os.kill(process["program"]["pid"], signal.SIGKILL)
    for _ in polled(lambda: None):
        if len(log_of(client, child)) == 2:
            break
    assert log_of(client, child) == ["begins after step 5"] * 2
    assert client.post(f"/v1/runs/{child}/cancel").json()["status"] == "cancelled"


def test_restarts_are_bounded(tmp_path, recipes):
    """With no restart allowed, a killed run fails as before."""
    with (
        ServerProcess.start(tmp_path / "state", recipes, {"TUNESMITH_MAX_RESTARTS": "0"}) as server,
        server.client() as client,
    ):
        run_id = start_run(client, "counts", hyperparams={"max_steps": 100_000})
        wait_for_run(client, run_id, lambda run: run["ckpt_path"] is not None)
        process = json.loads((server.state_dir / "runs" / run_id / "attempts" / "1" / "process.json").read_text())
        os.kill(process["program"]["pid"], signal.SIGKILL)
        run = wait_for_run(client, run_id)
        assert (run["status"], run["exit"]["signal"], run["restarts"]) == ("failed", signal.SIGKILL, 0)


def test_the_budget_removes_what_nobody_needs(tmp_path, recipes):
    """Oldest first; never a marked one, the best, the newest, or one in use; the records stay."""
    with (
        ServerProcess.start(
            tmp_path / "state", recipes, {"TUNESMITH_CHECKPOINT_BUDGET_BYTES": "5500", "TUNESMITH_MAX_CPU_RUNS": "2"}
        ) as server,
        server.client() as client,
    ):
        first = wait_for_run(client, start_run(client, "counts"))
        mark = {"run_id": first["run_id"], "tag_type": "candidate_base", "release_tag": "keep-me"}
        five = next(one for one in checkpoints_of(client, first["run_id"]) if one["step"] == 5)
        answer = client.post(
            f"/v1/experiments/{first['experiment_id']}/checkpoints/mark", json={**mark, "ckpt_path": five["path"]}
        )
        assert answer.status_code == 201
        second = wait_for_run(client, start_run(client, "counts"))
        for listed in polled(lambda: checkpoints_of(client, first["run_id"])):
            if not all(one["complete"] for one in listed):
                break
        present = {one["step"]: one["complete"] for one in checkpoints_of(client, first["run_id"])}
        assert present[5], "it is marked"
        assert present[10], "it is the best"
        assert present[20], "it is the newest"
        assert not present[15]
        assert checkpoints_of(client, second["run_id"])[0]["complete"]
        storage = client.get("/v1/storage").json()
        assert storage["checkpoint_bytes"] <= 5500 or storage["checkpoints"] >= 4
        for one in checkpoints_of(client, first["run_id"]):
            assert Path(one["path"]).exists() == one["complete"]
