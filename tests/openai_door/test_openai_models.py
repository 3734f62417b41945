"""``/v1/models``: every name under which a model can be asked, and removing what was trained."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest

from support.openai_door import is_error
from support.server import start_run, wait_for_run


@pytest.fixture
def trained(client: httpx.Client) -> str:
    """A run that made a model; its own for each test."""
    run_id = start_run(client, "makes")
    run = wait_for_run(client, run_id)
    assert run["status"] == "succeeded", run["error"]
    return run_id


def fine_tuned(run_id: str) -> str:
    return f"ft:makes:tunesmith::{run_id.removeprefix('run_')}"


def listed(client: httpx.Client) -> dict[str, dict]:
    page = client.get("/v1/models").raise_for_status().json()
    assert page["object"] == "list"
    return {one["id"]: one for one in page["data"]}


def ask(client: httpx.Client, model: str) -> httpx.Response:
    messages = [{"role": "user", "content": "the colour of grass?"}]
    return client.post("/v1/chat/completions", json={"model": model, "messages": messages, "max_tokens": 3})


def test_the_list_has_what_can_be_asked(client, trained):
    """Fine-tuned models, pulled ones, aliases whose model is here, OpenAI's names for which one is here; nothing else."""
    found = listed(client)
    assert {"small", "Qwen2.5-7B-Instruct", "team/best", "gpt-4o-mini", "gpt-3.5-turbo"} <= set(found)
    assert not {"gone", "gpt-4o", "gpt-4.1-nano"} & set(found)
    made = found[fine_tuned(trained)]
    assert (made["object"], made["owned_by"]) == ("model", "tunesmith")
    assert found["small"]["owned_by"] == found["gpt-4o-mini"]["owned_by"] == "system"
    assert all(isinstance(one["created"], int) and one["created"] > 0 for one in found.values())


def test_a_fine_tuned_model_goes_by_many_names(client, trained):
    """Its own, its checkpoint's, its run's; each is shown as it was asked for."""
    own = fine_tuned(trained)
    for name in (own, f"{own}:ckpt-step-3", trained, f"ft:anything:org:{trained.removeprefix('run_')}"):
        shown = client.get(f"/v1/models/{name}").raise_for_status().json()
        assert (shown["id"], shown["owned_by"]) == (name, "tunesmith")
    missing = client.get(f"/v1/models/{own}:ckpt-step-4")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["team/best", "Qwen/Qwen2.5-7B-Instruct", "gpt-4o-mini-2024-07-18", "small"])
def test_a_name_may_hold_slashes(client, name):
    """Raw, as majors 1 and 2 of the SDK send them, and as %2F, as major 3 does."""
    shown = client.get(f"/v1/models/{name}").raise_for_status().json()
    assert shown["id"] == name
    assert client.get(f"/v1/models/{quote(name, safe='')}").json() == shown


@pytest.mark.parametrize(
    "name", ["nowhere", "ft:gpt-4o:org::01k9zkq8c5e2v7m4w3x6y8z0ab", "some/model", "modelscope:x", "gone", "%00", "%ff"]
)
def test_a_model_that_is_not_here_is_404(client, name):
    """With the code that clients look for; names of a hub, too, whose model was not pulled."""
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"/v1/models/{name}")
        assert answer.status_code == 404, answer.text
        assert is_error(answer)
        assert answer.json()["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("name", ["%2fetc%2fpasswd", "//etc/passwd", "..%2f..%2f..%2fetc", "~%2fx", "a/b/c"])
def test_a_path_outside_of_the_allowed_roots_is_not_looked_at(client, name):
    """403 or 404 whether or not there is anything."""
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"/v1/models/{name}")
        assert answer.status_code in (403, 404), answer.text
        assert is_error(answer)


def test_an_unknown_model_is_told_what_there_is(client):
    """In the message, which is all that a client shows."""
    message = client.get("/v1/models/smal").json()["error"]["message"]
    assert "did you mean small" in message
    assert "Qwen2.5-7B-Instruct" in message


@pytest.mark.parametrize("sent", [lambda name: name, lambda name: quote(name, safe="")], ids=["raw", "as %2F"])
def test_a_fine_tuned_model_of_a_hub_s_has_a_slash_in_its_name(client, sent):
    """It is shown and deleted by that."""
    run_id = start_run(client, "makes", model="Qwen/Qwen2.5-7B-Instruct")
    wait_for_run(client, run_id)
    name = f"ft:Qwen/Qwen2.5-7B-Instruct:tunesmith::{run_id.removeprefix('run_')}"
    assert name in listed(client)
    assert client.get(f"/v1/models/{sent(name)}").raise_for_status().json()["id"] == name
    assert client.delete(f"/v1/models/{sent(name)}").raise_for_status().json()["id"] == name
    assert name not in listed(client)


def test_a_deleted_model_is_gone(client, trained):
    """From the list, for chat, and from the disk; its run and its checkpoints stay."""
    own = fine_tuned(trained)
    assert ask(client, own).raise_for_status().json()["model"] == own
    gone = client.delete(f"/v1/models/{own}")
    assert (gone.status_code, gone.json()) == (200, {"id": own, "object": "model", "deleted": True})
    assert own not in listed(client)
    answer = ask(client, own)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
    assert client.get(f"/v1/models/{own}").status_code == 404
    assert client.delete(f"/v1/models/{own}").status_code == 404
    assert client.get(f"/v1/runs/{trained}").json()["status"] == "succeeded"
    assert client.get(f"/v1/models/{own}:ckpt-step-3").status_code == 200


@pytest.mark.parametrize("name", ["small", "team/best", "gpt-4o-mini", "Qwen2.5-7B-Instruct"])
def test_what_was_not_trained_here_cannot_be_deleted(client, name):
    """Pulled models and names for them: 403, and they stay."""
    answer = client.delete(f"/v1/models/{name}")
    assert answer.status_code == 403
    assert answer.json()["error"]["type"] == "permission_error"
    assert name in listed(client)


def test_a_checkpoint_is_not_deleted_as_a_model(client, trained):
    """It may be what a run resumes from."""
    name = f"{fine_tuned(trained)}:ckpt-step-3"
    assert client.delete(f"/v1/models/{name}").status_code == 403
    assert client.get(f"/v1/models/{name}").status_code == 200


def test_a_model_that_a_run_uses_stays(client, trained):
    """400 that names the run; when that is over, the model can go."""
    rows = b'{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}\n'
    file = client.post("/v1/files", files={"file": ("a.jsonl", rows)}, data={"purpose": "fine-tune"}).json()
    run_id = start_run(client, "waits", model=fine_tuned(trained), dataset={"name": file["id"]})
    answer = client.delete(f"/v1/models/{fine_tuned(trained)}")
    assert answer.status_code == 400
    assert run_id in answer.json()["error"]["message"]
    client.post(f"/v1/runs/{run_id}/cancel").raise_for_status()
    wait_for_run(client, run_id)
    client.delete(f"/v1/models/{fine_tuned(trained)}").raise_for_status()


def test_a_model_that_is_deployed_stays(client, trained):
    """400 that names the deployment; a deployment's own name is listed, and cannot be deleted here."""
    own = fine_tuned(trained)
    made = client.post("/api/v1/deployments", json={"model_path": own, "name": "kept", "engine": "vllm"})
    deployment = made.raise_for_status().json()["deployment_id"]
    assert listed(client)["kept"]["owned_by"] == "tunesmith"
    answer = client.delete(f"/v1/models/{own}")
    assert answer.status_code == 400
    assert deployment in answer.json()["error"]["message"]
    assert client.delete("/v1/models/kept").status_code == 403
    client.delete(f"/api/v1/deployments/{deployment}", params={"force": True}).raise_for_status()
    client.delete(f"/v1/models/{own}").raise_for_status()
    assert "kept" not in listed(client)
