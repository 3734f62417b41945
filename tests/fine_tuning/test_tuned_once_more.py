"""A model that was fine-tuned is fine-tuned once more, as OpenAI's users do it: by its name."""

from __future__ import annotations

import pytest

from fine_tuning.job_parts import JOBS, MODEL, created, once, refusal, rows, uploaded
from support.server import polled

QUICK = {"n_epochs": 1, "batch_size": 6}


@pytest.fixture(scope="module")
def first(jobs_server):
    with jobs_server.client() as client:
        job = created(client, training_file=uploaded(client, rows(12)), suffix="first", hyperparameters=QUICK)
        return once(client, job["id"], "succeeded")


def run_of(job):
    return job["id"].replace("ftjob-", "run_")


def loss_of(client, job):
    """Of the first step, and of the last."""
    events = client.get(f"{JOBS}/{job['id']}/events", params={"limit": 1000}).json()["data"]
    losses = [event["data"]["train_loss"] for event in events if "train_loss" in (event["data"] or {})]
    return losses[-1], losses[0]


def test_its_name_keeps_the_base_and_it_answers(first, client):
    """`ft:<base>:...`, however often; the adapter is one for the base, and the size of the base decides the learning rate."""
    training = uploaded(client, rows(12))
    job = created(client, model=first["fine_tuned_model"], training_file=training, suffix="second")
    assert job["model"] == first["fine_tuned_model"]
    second = once(client, job["id"], "succeeded")
    name = second["fine_tuned_model"]
    assert name == f"ft:{MODEL}:tunesmith:second:{second['id'].removeprefix('ftjob-')}"
    one, other = (
        client.get("/v1/models/resolve", params={"ref": each["fine_tuned_model"]}).json() for each in (first, second)
    )
    assert other["adapter"] is True
    assert other["base"] == one["base"]
    assert loss_of(client, second)[0] < loss_of(client, first)[0]
    config = client.get(f"/v1/runs/{run_of(second)}/config").json()["config"]
    assert config["model"] == {**config["model"], "base": one["path"], "adapter_base": one["base"]}
    used = second["hyperparameters"]["learning_rate_multiplier"]
    assert config["training"]["learning_rate"] == pytest.approx(0.0002 * 5 * used)
    body = {"model": name, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 3}
    answer = client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["model"] == name


def test_another_shape_is_refused_by_its_name(first, client):
    body = {"model": first["fine_tuned_model"], "training_file": uploaded(client, rows(12))}
    error = refusal(client.post(JOBS, json={**body, "hyperparams": {"lora_r": 3}}))
    assert "asks for 3, and the adapter has 16" in error["message"]


def test_what_a_job_goes_on_from_stays_and_so_does_the_base_below(client):
    """A whole model, an adapter on it, and a training from that: none of the first two can be deleted meanwhile."""
    training = uploaded(client, rows(12))
    whole = created(client, training_file=training, recipe="sft", hyperparameters=QUICK)
    base = once(client, whole["id"], "succeeded")["fine_tuned_model"]
    tuned = created(client, model=base, training_file=training, hyperparameters=QUICK)
    adapter = once(client, tuned["id"], "succeeded")["fine_tuned_model"]
    # Several epochs of it, so that it is unfinished when it is asked for.
    going_on = created(
        client, model=adapter, training_file=uploaded(client, rows(200)), hyperparameters={"n_epochs": 50}
    )
    for model in (adapter, base):
        assert run_of(going_on) in refusal(client.delete(f"/v1/models/{model}"))["message"]
    client.post(f"{JOBS}/{going_on['id']}/cancel").raise_for_status()
    for run in polled(lambda: client.get(f"/v1/runs/{run_of(going_on)}").json(), 60):
        if run["status"] == "cancelled":
            break
    for model in (adapter, base):
        assert client.delete(f"/v1/models/{model}").json()["deleted"] is True
