"""Servers that end in the middle: while files are validated, and before the result file is written."""

from __future__ import annotations

import pytest

from fine_tuning.conftest import ENVIRONMENT, RECIPES
from fine_tuning.job_parts import JOBS, created, once, rows, shown, uploaded
from support.server import ServerProcess
from support.tiny_model import save_tiny_model, tiny_tokenizer


@pytest.fixture
def server(tmp_path):
    save_tiny_model(tmp_path / "state" / "models" / "tiny", tiny_tokenizer())
    with ServerProcess.start(tmp_path / "state", RECIPES, ENVIRONMENT) as server:
        yield server


def test_a_job_whose_server_is_killed_while_it_validates_is_validated_by_the_next(server):
    with server.client() as client:
        large = rows(1) * 300_000
        job = created(client, training_file=uploaded(client, large), hyperparameters={"n_epochs": 1, "batch_size": 64})
        assert shown(client, job["id"])["status"] == "validating_files"
    server.kill9()
    server.up()
    with server.client() as client:
        once(client, job["id"], "queued", "running", seconds=120)
        events = client.get(f"{JOBS}/{job['id']}/events", params={"limit": 100}).json()["data"]
        assert sum("validated" in event["message"] for event in events) == 1
        assert client.post(f"{JOBS}/{job['id']}/cancel").json()["status"] == "cancelled"


@pytest.mark.parametrize("place", ["file.before_write#3", "file.after_rename#3", "file.after_rename#4"])
def test_numbers_are_chosen_as_asked_whenever_the_server_is_killed_while_it_writes_them_down(tmp_path, place):
    """The two files before are those of the job when it was created."""
    save_tiny_model(tmp_path / "state" / "models" / "tiny", tiny_tokenizer())
    method = {"type": "supervised", "supervised": {"hyperparameters": {"learning_rate_multiplier": 2}}}
    armed = {**ENVIRONMENT, "TUNESMITH_FAILPOINT": place}
    with ServerProcess.start(tmp_path / "state", RECIPES, armed) as server:
        with server.client() as client:
            job = created(client, training_file=uploaded(client, rows(60)), method=method)
        server.wait()
    with ServerProcess.start(tmp_path / "state", RECIPES, ENVIRONMENT) as server, server.client() as client:
        waits = once(client, job["id"], "queued", "running")
        assert waits["hyperparameters"] == {"n_epochs": 3, "batch_size": 2, "learning_rate_multiplier": 2.0}
        client.post(f"{JOBS}/{job['id']}/cancel")


def test_a_job_that_waits_for_its_validation_can_be_cancelled(server):
    with server.client() as client:
        job = created(client, training_file=uploaded(client, rows(1) * 300_000))
        assert client.post(f"{JOBS}/{job['id']}/cancel").json()["status"] == "cancelled"
        assert shown(client, job["id"])["status"] == "cancelled"


def test_the_result_file_is_written_by_the_next_server_once(server):
    with server.client() as client:
        job = created(client, training_file=uploaded(client, rows(30)), hyperparameters={"n_epochs": 1})
        once(client, job["id"], "running")
    server.kill9()  # the training goes on, and ends while nobody looks
    server.up()
    with server.client() as client:
        done = once(client, job["id"], "succeeded")
        assert len(done["result_files"]) == 1
    server.kill9()
    server.up()
    with server.client() as client:
        results = client.get("/v1/files", params={"purpose": "fine-tune-results"}).json()["data"]
        assert [file["id"] for file in results] == done["result_files"]
        client.delete(f"/v1/files/{done['result_files'][0]}").raise_for_status()
    server.kill9()
    server.up()
    with server.client() as client:
        assert shown(client, job["id"])["result_files"] == []  # whoever deletes it does not get it back
