"""A training folder, throwaway recipes that write logs of every level and files of many kinds, and steps over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from support.server import FINAL_STATES, polled, write_recipe

WRITES = r"""
echo "INFO: reads $TUNESMITH_DATASET"
echo "WARNING:root:careful now"
echo '{"tunesmith":"metrics","step":1,"total_steps":2,"loss":0.5}'
echo "2026-11-20 21:00:00,123 - trainer - ERROR - nearly failed"
cd "$TUNESMITH_RUN_DIR"
mkdir -p checkpoints/checkpoint-2 checkpoints/checkpoint-1 told
printf 0123456789 > output/adapter_model.safetensors
printf '{}' > output/tokenizer.json
printf '{}' > output/report.json
printf half > checkpoints/checkpoint-1/weights.bin
printf whole > checkpoints/checkpoint-2/weights.bin
printf '{"step": 2, "created_at": "2026-01-01T00:00:00Z"}' > checkpoints/checkpoint-2/manifest.json
printf curve > told/curve.svg
echo "{\"tunesmith\":\"artifact\",\"path\":\"$TUNESMITH_RUN_DIR/told/curve.svg\",\"kind\":\"picture\"}"
echo '{"tunesmith":"metrics","step":2,"total_steps":2,"loss":0.25}'
"""
WAITS = 'echo ready; printf early > "$TUNESMITH_OUTPUT_DIR/early.txt"; while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done'
CONFIG = {
    "job": {"type": None, "method": None},
    "model": {"base": None},
    "data": {"train_file": None},
    "training": {"max_steps": 2, "learning_rate": 0.1, "seed": 42},
}
SCHEMA = {"job.type": {"type": "str", "optional": True}, "data.train_file": {"type": "str", "optional": True}}
GOOD = "job: {type: lora}\nmodel: {base: ./model}\ntraining: {max_steps: 2}\n"


def write_recipes(folder: Path) -> Path:
    for name, script in {"lora": WRITES, "dpo": WRITES, "waits": WAITS}.items():
        aliases = {"model_path": "model.base"}
        write_recipe(folder, name, script, CONFIG, data=["messages"], schema=SCHEMA, aliases=aliases)
    write_recipe(folder, "plain", "true")
    return folder


def write_training_folder(home: Path) -> Path:
    """datasets/ and configs/ as an operator lays them out, and a model beside them."""
    training = home / "training"
    for folder in ("datasets", "configs"):
        (training / folder).mkdir(parents=True)
    (training / "datasets/orders.jsonl").write_text('{"messages": []}\n')
    (training / "configs/orders.yaml").write_text(GOOD)
    (training / "configs/waits.yaml").write_text(GOOD.replace("lora", "waits"))
    (home / "model").mkdir()
    return training


def make(client: httpx.Client, name: str, **fields: Any) -> dict[str, Any]:
    request = {"name": name, "dataset_name": "orders.jsonl", "training_yaml_name": "orders.yaml", **fields}
    answer = client.post("/api/projects", json=request)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


def wait(client: httpx.Client, ref: str, run_id: str) -> dict[str, Any]:
    """The run once it is over."""
    for run in polled(lambda: client.get(f"/api/projects/{ref}/runs/{run_id}").raise_for_status().json()):
        if run["status"] in FINAL_STATES:
            break
    return run
