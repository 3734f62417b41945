"""A state folder that lacks records is not started on, and nothing in it is deleted: not by a missing journal, an emptied
one, or an older copy of one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from support.commands import Cli
from support.refusal import refusal
from support.server import ServerProcess, polled, start_run, wait_for_run, write_recipe
from tunesmith.errors import StateFolderIncomplete
from tunesmith.paths import StatePaths
from tunesmith.records import utc_now
from tunesmith.state_folder import refuse_incomplete

ROW = b'{"messages":[{"role":"user","content":"hello"},{"role":"assistant","content":"hi"}]}\n'
WRITES = """
cd "$TUNESMITH_RUN_DIR"
mkdir -p checkpoints/checkpoint-2
printf '{"step": 2, "created_at": "2026-01-01T00:00:00Z"}' > checkpoints/checkpoint-2/manifest.json
echo '{"tunesmith":"checkpoint","path":"'"$PWD"'/checkpoints/checkpoint-2","step":2}'
echo hello > output/report.txt
"""
JOURNALS = [path.name for path in StatePaths(Path()).journals]


class Used(NamedTuple):
    """A state folder that a server has used, with every journal as it was half-way."""

    state: Path
    older: Path
    recipes: Path
    run_id: str
    """On record in what was there later only."""
    upload_id: str


def use(client: httpx.Client, number: int) -> tuple[str, str]:
    """Something new for every journal but that of the keys."""
    run_id = start_run(client, "writes", callback=f"http://127.0.0.1:9/{number}")
    wait_for_run(client, run_id)
    artifacts = client.get(f"/v1/runs/{run_id}/artifacts").json()["artifacts"]
    tags = f"/v1/runs/{run_id}/artifacts/{artifacts[0]['artifact_id']}/tags"
    client.post(tags, json={"tags": ["reviewed"]}).raise_for_status()
    dataset = client.post("/api/v1/datasets", json={"name": f"d{number}"}).raise_for_status().json()["id"]
    upload = client.put(f"/api/v1/datasets/{dataset}/files", files={"file": ("a.jsonl", ROW)}).raise_for_status()
    deployment = client.post("/deployments", json={"model_path": "small", "engine": "vllm"}).raise_for_status().json()
    client.delete(f"/deployments/{deployment['deployment_id']}").raise_for_status()
    announced = {"bytes": 5, "filename": "a.jsonl", "mime_type": "text/jsonl", "purpose": "fine-tune"}
    client.post("/v1/uploads", json=announced).raise_for_status()
    wanted = {
        "input_file_id": upload.json()["upload_id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    client.post("/v1/batches", json=wanted).raise_for_status()
    config = {"file": ("c.yaml", b"job: {type: writes}\n")}
    client.put(f"/api/v1/datasets/{dataset}/train-config", files=config).raise_for_status()
    return run_id, upload.json()["upload_id"]


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Used:
    place = tmp_path_factory.mktemp("whole")
    write_recipe(place / "recipes", "writes", WRITES)
    state, older = place / "state", place / "older"
    older.mkdir()
    (state / "models/small").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (state / "models/small" / name).write_text("{}")
    settings = {"TUNESMITH_ALLOW_PRIVATE_URLS": "true", "TUNESMITH_VLLM_COMMAND": "/bin/sleep 600"}
    with ServerProcess.start(state, place / "recipes", settings) as server:
        with server.client() as client:
            use(client, 1)
            token = client.post("/v1/keys", json={"name": "a", "scope": "admin"}).raise_for_status().json()["token"]
            client.headers["Authorization"] = f"Bearer {token}"
            for journal in state.glob("*.jsonl"):
                shutil.copy(journal, older)
            run_id, upload_id = use(client, 2)
            client.post("/v1/keys", json={"name": "b", "scope": "admin"}).raise_for_status()
        server.stop()
    return Used(state, older, place / "recipes", run_id, upload_id)


@pytest.fixture
def state(used: Used, tmp_path: Path) -> Path:
    """A copy of the used folder that may be harmed."""
    return Path(shutil.copytree(used.state, tmp_path / "state"))


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def harm(state: Path, used: Used, name: str, how: str) -> None:
    journal = state / name
    if how == "missing":
        journal.unlink()
    elif how == "emptied":
        journal.write_bytes(b"")
    else:
        assert (used.older / name).stat().st_size < journal.stat().st_size, "every journal has grown in between"
        shutil.copy(used.older / name, journal)


def refused(state: Path) -> str:
    """What a server says that does not start."""
    done = Cli(state.parent)("serve", "--port", 0, "--state-dir", state)
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("how", ["missing", "emptied", "older"])
@pytest.mark.parametrize("name", JOURNALS)
def test_each_journal_is_missed(used: Used, state: Path, name: str, how: str) -> None:
    """Every journal, in every way: refused before anything is opened, with its name and what to do."""
    harm(state, used, name, how)
    before = content(state)
    with pytest.raises(StateFolderIncomplete) as refused:
        refuse_incomplete(StatePaths(state), utc_now)
    (fault,) = refused.value.faults
    assert fault.where == str(state / name)
    assert {"missing": "missing", "emptied": "emptied or older", "older": "emptied or older"}[how] in fault.message
    assert f"tunesmith state accept {name}" in (fault.mend or "")
    assert content(state) == before


def test_the_server_does_not_start(used: Used, state: Path) -> None:
    """It ends at once and names everything that is amiss; every file is as it was."""
    for name, how in (("uploads.jsonl", "missing"), ("keys.jsonl", "emptied"), ("runs.jsonl", "older")):
        harm(state, used, name, how)
    before = content(state)
    said = refusal(state)
    for name in ("uploads.jsonl", "keys.jsonl", "runs.jsonl"):
        assert f"state accept {name}" in said
    assert content(state) == before


def test_another_journal_of_the_same_length_is_not_taken_for_it(used: Used, state: Path) -> None:
    """As when a folder went on from a restored backup, and is then given the journal from before."""
    noted = state / "journals.json"
    other = json.loads(noted.read_text())
    assert other["journals"]["experiments.jsonl"]["crc"]
    other["journals"]["experiments.jsonl"]["crc"] = "00000000"
    noted.write_text(json.dumps(other))
    with pytest.raises(StateFolderIncomplete, match="not the one that was written to last"):
        refuse_incomplete(StatePaths(state), utc_now)


def test_what_was_done_just_before_a_kill_is_noted(tmp_path: Path, recipes: Path) -> None:
    """The note of what there should be follows the journals within moments, not only at a clean end."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            client.post("/v1/keys", json={"name": "a", "scope": "admin"}).raise_for_status()
        noted = server.state_dir / "journals.json"
        assert any(polled(lambda: json.loads(noted.read_text())["journals"]["keys.jsonl"]["seq"] == 1))
        server.kill9()
        (server.state_dir / "keys.jsonl").write_bytes(b"")
        assert "keys.jsonl" in refused(server.state_dir)


def test_an_older_journal_of_runs_is_noticed_without_the_note(used: Used, state: Path) -> None:
    """Also in a folder of a version that noted nothing: a run that was started had a record."""
    harm(state, used, "runs.jsonl", "older")
    (state / "journals.json").unlink()
    before = content(state)
    said = refused(state)
    assert used.run_id in said
    assert "state accept runs.jsonl" in said
    assert content(state) == before


@pytest.mark.parametrize("name", ["keys.jsonl", "experiments.jsonl", "runs.jsonl", "datasets.jsonl", "uploads.jsonl"])
def test_a_missing_journal_is_noticed_without_the_note(used: Used, state: Path, name: str) -> None:
    """The other files show that there was one."""
    (state / "journals.json").unlink()
    (state / name).unlink()
    with pytest.raises(StateFolderIncomplete, match=name):
        refuse_incomplete(StatePaths(state), utc_now)


def test_a_folder_of_the_version_before_starts(used: Used, state: Path) -> None:
    """It has no note, and lacks journals that came later."""
    (state / "journals.json").unlink()
    (state / "artifacts.jsonl").unlink()
    with ServerProcess.start(state, used.recipes) as server:
        server.stop()
    assert set(json.loads((state / "journals.json").read_text())["journals"]) == set(JOURNALS)


def test_a_journal_that_came_with_a_later_version_may_be_absent(used: Used, state: Path) -> None:
    """What is not noted is not missed."""
    notes = json.loads((state / "journals.json").read_text())
    del notes["journals"]["artifacts.jsonl"]
    (state / "journals.json").write_text(json.dumps(notes))
    (state / "artifacts.jsonl").unlink()
    refuse_incomplete(StatePaths(state), utc_now)


def test_a_loss_that_a_person_accepts_deletes_nothing(used: Used, state: Path) -> None:
    """`state accept` lets the server start; folders of runs and uploads that nobody knows of any more are set aside."""
    cli = Cli(state.parent)
    for name in ("runs.jsonl", "uploads.jsonl", "train_configs.jsonl"):
        harm(state, used, name, "older")
    before = sorted(content(state / "uploads").values())
    assert cli("state", "verify").returncode == 1
    partly = cli("state", "accept", "uploads.jsonl", "train_configs.jsonl")
    assert partly.returncode == 0, partly.stderr
    assert "runs.jsonl" in refused(state)
    accepted = cli("state", "accept", "runs.jsonl")
    assert used.run_id in accepted.stdout
    assert cli("state", "verify").returncode == 0
    with ServerProcess.start(state, used.recipes) as server:
        server.stop()
        assert used.upload_id in server.output
    aside = state / "set-aside"
    assert (aside / "uploads" / used.upload_id / "data.jsonl").read_bytes() == ROW
    assert (aside / "runs" / used.run_id / "output" / "report.txt").exists()
    assert len(list((aside / "train_configs").iterdir())) == 1
    assert sorted([*content(state / "uploads").values(), *content(aside / "uploads").values()]) == before


def test_losing_the_keys_is_said(used: Used, state: Path) -> None:
    """Who accepts that learns what it means."""
    cli = Cli(state.parent)
    harm(state, used, "keys.jsonl", "missing")
    made = cli("keys", "create", "c")
    assert made.returncode == 1, "a new first key would hide that the others are gone"
    accepted = cli("state", "accept", "keys.jsonl")
    assert "everybody on this machine may call the service" in accepted.stderr
    assert cli("keys", "create", "c").returncode == 0
    harm(state, used, "keys.jsonl", "emptied")
    assert "keys.jsonl" in refused(state)


def test_a_note_that_cannot_be_read_stops_the_start(used: Used, state: Path) -> None:
    """It is kept aside when a person goes on without it."""
    (state / "journals.json").write_text("{")
    assert "state accept journals.json" in refused(state)
    assert Cli(state.parent)("state", "accept", "journals.json").returncode == 0
    assert (state / "set-aside" / "state" / "journals.json").read_text() == "{"
    refuse_incomplete(StatePaths(state), utc_now)


def test_only_journals_can_be_accepted(used: Used, state: Path) -> None:
    """A wrong name is refused with the right ones."""
    answer = Cli(state.parent)("state", "accept", "webhook_secret")
    assert answer.returncode == 1
    assert "runs.jsonl" in answer.stderr


def test_a_repair_does_not_hide_that_a_journal_is_older(used: Used, state: Path) -> None:
    """Lines lost to damage are accepted by mending it; lines that an older copy never had are not."""
    cli = Cli(state.parent)
    damaged = state / "experiments.jsonl"
    damaged.write_bytes(damaged.read_bytes()[:-20] + b"x" * 19 + b"\n")
    older = state / "runs.jsonl"
    harm(state, used, older.name, "older")
    older.write_bytes(older.read_bytes() + b'{"seq":')
    repaired = cli("state", "repair")
    assert repaired.returncode == 1
    assert f"{damaged.name}: mended" in repaired.stdout
    assert f"{older.name}: missing or older than it was" in repaired.stdout
    with pytest.raises(StateFolderIncomplete) as excused:
        refuse_incomplete(StatePaths(state), utc_now)
    assert [fault.where for fault in excused.value.faults] == [str(older)]
