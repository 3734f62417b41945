"""The bodies that clients of the original services send, with other ids, hosts and paths and nothing else changed.

The recipes are the shipped ones, with a program that ends at once: what counts is what a request comes to.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from support.server import ServerProcess

SHIPPED = Path(__file__).parents[2] / "recipes"
ROW = '{"conversations": [{"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好,有什么可以帮您?"}]}\n'
TRAIN_CONFIG = """\
job:
  type: lora
  project: customer-service
model:
  base: ./model
data:
  max_seq_length: 512
lora:
  r: 8
  alpha: 16
  dropout: 0.05
  target_modules: [query_key_value]
training:
  epochs: 3
  batch_size: 4
  lr: 1e-4
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("originals")
    shutil.copytree(SHIPPED, home / "recipes")
    for script in home.glob("recipes/*/run.sh"):
        script.write_text("#!/usr/bin/env bash\n# For the tests.\nset -euo pipefail\n")
    for folder in ("model", "training/datasets", "training/configs"):
        (home / folder).mkdir(parents=True)
    (home / "training/datasets/sample.jsonl").write_text(ROW)
    (home / "training/configs/train.yaml").write_text(TRAIN_CONFIG)
    return home


@pytest.fixture(scope="module")
def client(home: Path) -> Iterator[httpx.Client]:
    with ServerProcess.start(home / "state", home / "recipes") as server, server.client() as client:
        yield client


def config_of(home: Path, run_id: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((home / "state/runs" / run_id / "config.yaml").read_text())
    return config


def keeps_what_was_said(config: dict[str, Any]) -> None:
    """What the train config above says, under the recipe's own names."""
    assert config["lora"] == {
        "r": 8,
        "lora_alpha": 16,
        "lora_dropout": 0.05,
        "target_modules": ["query_key_value"],
        "merge": False,
    }
    training = config["training"]
    assert (training["num_train_epochs"], training["per_device_train_batch_size"]) == (3.0, 4)
    assert training["learning_rate"] == 1e-4
    assert config["data"]["max_length"] == 512


def test_an_experiment_and_its_run(client, home):
    """Created with everything an experiment may say, found again, and a run with a dataset, hyperparameters and resources."""
    body = {
        "name": "客服大模型微调实验",
        "task_type": "sft",
        "goal": "提升客服问答的准确率",
        "version": "v1.0",
        "base_model": str(home / "model"),
        "owner": "zhangsan",
        "param_config": {"learning_rate": 2e-5, "batch_size": 16, "epochs": 3, "max_seq_length": 2048},
        "tags": ["客服", "sft", "v1"],
    }
    made = client.post("/v1/experiments", json=body, headers={"Idempotency-Key": "a-key"})
    assert made.status_code == 201, made.text
    assert client.post("/v1/experiments", json=body, headers={"Idempotency-Key": "a-key"}).json() == made.json()
    experiment = made.json()["id"]
    assert {name: client.get(f"/v1/experiments/{experiment}").json()[name] for name in body} == body
    run = {
        "model": str(home / "model"),
        "dataset": {"name": str(home / "training/datasets/sample.jsonl"), "split": "train"},
        "hyperparams": {"learning_rate": 2e-5, "batch_size": 16, "epochs": 3},
        "resources": {"gpu_type": "A100", "count": 1},
        "notes": "baseline",
    }
    answer = client.post(f"/v1/experiments/{experiment}/runs", json=run)
    assert answer.status_code == 201, answer.text
    training = config_of(home, answer.json()["run_id"])["training"]
    assert (training["learning_rate"], training["per_device_train_batch_size"]) == (2e-5, 16)
    assert client.get(f"/v1/experiments/{experiment}/detail").json()["runs_total"] == 1


def test_a_project_of_files_below_the_training_folder(client, home):
    """The dataset and the train config named relative to it; the config is one for another model family, `alpha` and all."""
    body = {
        "name": "customer-service",
        "dataset_name": "datasets/sample.jsonl",
        "training_yaml_name": "configs/train.yaml",
        "description": "客服对话微调",
        "owner": "lisi",
        "tags": ["lora"],
    }
    answer = client.post("/api/projects", json=body)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["status"], answer.json()["runs"]) == ("active", [])
    listed = client.get("/api/projects").json()
    assert [one["name"] for one in listed] == ["customer-service"]
    run = client.post("/api/projects/customer-service/runs")
    assert run.status_code == 201, run.text
    keeps_what_was_said(config_of(home, run.json()["id"]))


def test_a_dataset_with_a_train_config(client, home):
    """Metadata as the original's; the config is checked when it is uploaded, and used by a run that names none."""
    body = {
        "name": "客服对话数据集",
        "type": "text",
        "source": "internal",
        "task_type": "sft",
        "metadata": {
            "description": "客服对话",
            "version": "1.0",
            "records": 1,
            "license": "internal",
            "tags": ["客服"],
            "language": "zh",
        },
    }
    made = client.post("/v1/datasets", json=body)
    assert made.status_code == 201, made.text
    assert set(made.json()) == {"id", "created_at"}
    dataset = made.json()["id"]
    assert (
        client.put(f"/v1/datasets/{dataset}/files", files={"file": ("sample.jsonl", ROW.encode())}).status_code == 200
    )
    config = client.put(f"/v1/datasets/{dataset}/train-config", files={"file": ("train.yaml", TRAIN_CONFIG.encode())})
    assert config.status_code == 200, config.text
    shown = client.get("/v1/datasets/客服对话数据集").json()
    assert shown["metadata"] == {**body["metadata"], "total_files": 1, "total_bytes": len(ROW.encode())} | {
        "has_train_config": True
    }
    experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "lora"}).json()["id"]
    run = {"model": str(home / "model"), "dataset": {"name": "客服对话数据集", "split": "train"}}
    answer = client.post(f"/v1/experiments/{experiment}/runs", json=run)
    assert answer.status_code == 201, answer.text
    keeps_what_was_said(config_of(home, answer.json()["run_id"]))


@pytest.mark.parametrize("how", ["service-wide", "inline", "in the request"])
def test_aliases_hold_wherever_a_config_comes_from(client, home, how):
    """The config of the whole service, one in the request's `train_config`, and hyperparameters nested the same way."""
    experiment = client.post("/v1/experiments", json={"name": how, "task_type": "lora"}).json()["id"]
    dataset = {"name": str(home / "training/datasets/sample.jsonl")}
    run: dict[str, Any] = {"model": str(home / "model"), "dataset": dataset}
    content = yaml.safe_load(TRAIN_CONFIG)
    content["training"]["lr"] = 1e-4  # YAML 1.1 takes 1e-4 for text
    if how == "service-wide":
        client.put("/v1/train-config", files={"file": ("train.yaml", TRAIN_CONFIG.encode())}).raise_for_status()
    elif how == "inline":
        run["train_config"] = content
    else:
        run["hyperparams"] = {name: content[name] for name in ("data", "lora", "training")}
    answer = client.post(f"/v1/experiments/{experiment}/runs", json=run)
    if how == "service-wide":
        client.delete("/v1/train-config").raise_for_status()
    assert answer.status_code == 201, answer.text
    keeps_what_was_said(config_of(home, answer.json()["run_id"]))


def test_finetuning_on_folders(client, home):
    """Datasets as folders, a callback on this machine's own address, and the frequency in the original's spelling."""
    for split in ("train", "valid", "test"):
        (home / "data" / split).mkdir(parents=True)
        (home / "data" / split / "part-0.jsonl").write_text(ROW)
    body = {
        "task_id": "20240101_0001",
        "call_back_api": "http://0.0.0.0:9/callback",
        "input_content": {
            "customized_input": {
                f"{split}_dataset_path": str(home / "data" / split) for split in ("train", "valid", "test")
            }
        },
        "param_dict": {
            "finetune_mode": "lora",
            "config_param": {"model": str(home / "model"), "lora_config": {"r": 8, "lora_alpha": 16}},
            "show_frequecy": 1,
            "measurement": "epoch",
            "total_epoch_number": 2,
            "batch_size": 8,
            "lr": 0.001,
        },
    }
    refused = client.post("/finetune", json=body)
    assert refused.status_code == 422
    assert "allow_private_urls" in refused.text, "loopback, as 127.0.0.1 is"
    body["call_back_api"] = "https://example.org/callback"
    answer = client.post("/finetune", json=body)
    assert answer.status_code == 200, answer.text
    config = config_of(home, answer.json()["run_id"])
    assert config["data"]["train_file"] == str(home / "data/train/part-0.jsonl")
    assert (config["lora"]["r"], config["lora"]["lora_alpha"]) == (8, 16)
    assert client.post("/finetune", json=body).json()["run_id"] == answer.json()["run_id"]


def test_processing_keeps_conversations(client, home):
    """The split as the original's, and rows in the shape that they came in."""
    body = {
        "input_file": str(home / "training/datasets/sample.jsonl"),
        "output_dir": str(home / "processed"),
        "split_config": {"train_ratio": 1.0, "val_ratio": 0.0, "test_ratio": 0.0, "shuffle": True, "seed": 42},
    }
    answer = client.post("/api/data/process", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["counts"] == {"train": 1, "val": 0, "test": 0}
    assert '{"conversations":[{"role":"user"' in (home / "processed/train.json").read_text()
