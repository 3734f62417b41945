"""Our recipes, as the service starts them."""

import json
import os
import sys
from pathlib import Path

from trainers.points import watch
from trainers.task import ALPHA, BATCH, RANK, SEED
from tunesmith.contract.events import read_line

RECIPES = Path(__file__).parents[2] / "recipes"


def train_with_recipe(task, folder, *, train_on):
    config = {
        "model": {"base": str(task.model)},
        "data": {"train_file": str(task.write_rows(folder)), "train_on": train_on},
        "training": {
            "per_device_train_batch_size": BATCH,
            "max_steps": task.steps,
            "learning_rate": task.learning_rate,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0,
            "logging_steps": task.every,
            "seed": SEED,
        },
    }
    if task.method == "lora":
        config["lora"] = {"r": RANK, "lora_alpha": ALPHA}
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    run_sh = RECIPES / task.method / "run.sh"
    env = {**os.environ, "TUNESMITH_PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"}
    return watch(["bash", str(run_sh), str(folder / "config.yaml")], env, Reader(task.every))


class Reader:
    """Makes points of a recipe's metrics, which say how many tokens and rows a second were read since those before."""

    def __init__(self, every):
        self._every = every
        self._step, self._tokens = 0, 0.0

    def __call__(self, line):
        kind, fields = read_line(line) or (None, {})
        if kind != "metrics" or "loss" not in fields:
            return None
        rows = (fields["step"] - self._step) * BATCH
        self._step = fields["step"]
        self._tokens += rows * fields["tokens_per_second"] / fields["samples_per_second"]
        return (self._step, fields["loss"], self._tokens) if self._step % self._every == 0 else None
