"""POST /finetune answered by built-in recipes on the real model: what is called back, and what lies where it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from e2e_parts import ROOT, write_orders
from standardwebhooks import Webhook

from support.receiver import Receiver, receiving
from support.server import ServerProcess, polled, wait_for_run

pytestmark = [pytest.mark.e2e, pytest.mark.training, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def server(home, real_model):
    env = {"TUNESMITH_ALLOW_PRIVATE_URLS": "true", "TUNESMITH_DEFAULT_MODEL": real_model.name}
    with ServerProcess.start(home / "state", ROOT / "recipes", env) as server:
        yield server


def test_lora_on_the_real_model_is_told_by_epochs(server, home):
    """Frequency 2 of 3 epochs: told at 2 and 3, with curves of these two points that fall, a measured test accuracy, and the model in place."""
    files = write_orders(home / "finetune", {"train": 24, "valid": 8, "test": 8})
    with receiving() as receiver, server.client() as client:
        request = {
            "task_id": "orders-1",
            "call_back_api": receiver.url,
            "input_content": {"customized_input": {f"{name}_dataset_path": str(file) for name, file in files.items()}},
            "param_dict": {
                "finetune_mode": "lora",
                "config_param": {"lora": {"r": 8, "lora_alpha": 16}, "max_length": 128, "seed": 3},
                "show_frequecy": 2,
                "measurement": "epoch",
                "total_epoch_number": 3,
                "batch_size": 4,
                "lr": 0.001,
            },
        }
        answer = client.post("/finetune", json=request)
        assert answer.status_code == 200, answer.text
        told = answer.json()
        middle, last = all_told(receiver)
        run = wait_for_run(client, told["run_id"])
        secret = client.get("/v1/callbacks").json()["signing"]["secret"]
    assert run["status"] == "succeeded"
    for headers, body in receiver.got:
        Webhook(secret).verify(body.decode(), headers)
    assert (middle["idx"], middle["is_final"], middle["test_accuracy"]) == (2, False, None)
    assert (last["idx"], last["is_final"], last["status"], last["task_id"]) == (3, True, "success", "orders-1")
    figure = last["fig_param"]
    assert (figure["x_axis"], figure["x_label"]) == ([2, 3], "epoch")
    assert figure["losses"][1] < figure["losses"][0]
    assert figure["valid_losses"][1] < figure["valid_losses"][0]
    assert all(0 < share <= 1 for curve in ("accuracies", "valid_accuracies") for share in figure[curve])
    assert figure["valid_accuracies"][1] >= figure["valid_accuracies"][0]
    assert middle["fig_param"] == {**figure, **{name: figure[name][:1] for name in figure if name != "x_label"}}
    assert 0.5 < last["test_accuracy"] <= 1
    assert last["test_accuracy"] == run["metrics"]["test_token_accuracy"]

    place = Path(told["output_model_path"]).parent
    assert place.parent == home / "state/finetuned/SmolLM2-135M-Instruct"
    assert last["output_model_path"] == told["output_model_path"] == str(place / "model_files")
    assert last["output_log_path"] == told["output_log_path"] == str(place / "finetune.log")
    manifest = json.loads((place / "model_files/manifest.json").read_text())
    for file in manifest["files"]:
        assert (place / "model_files" / file["path"]).stat().st_size == file["bytes"]
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json"} <= {
        f["path"] for f in manifest["files"]
    }
    assert manifest["metrics"]["test_token_accuracy"] == last["test_accuracy"]
    log = (place / "finetune.log").read_text()
    assert "test: 8 rows" in log
    assert log == Path(run["run_dir"], "run.log").read_text()


def all_told(receiver: Receiver) -> list[dict]:
    for events in polled(lambda: receiver.events, 1200):
        if any(event["status"] == "fail" or event["is_final"] for event in events):
            assert events[-1]["status"] == "success", events[-1]
            return events
    raise AssertionError(f"no last callback among {receiver.events}")
