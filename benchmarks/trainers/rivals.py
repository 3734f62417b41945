"""TRL and LLaMA-Factory, with their defaults but for the numbers that are the same for all."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from trainers.points import Point, watch
from trainers.task import ALPHA, BATCH, RANK, SEED


def train_with_trl(task, folder, *, python):
    settings = {
        "folder": str(folder),
        "model": str(task.model),
        "rows": str(task.write_rows(folder)),
        "lora": {"r": RANK, "lora_alpha": ALPHA} if task.method == "lora" else None,
        "batch": BATCH,
        "steps": task.steps,
        "every": task.every,
        "learning_rate": task.learning_rate,
        "seed": SEED,
    }
    program = Path(__file__).with_name("run_trl.py")
    finished = subprocess.run([python, str(program), json.dumps(settings)], capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.stderr[-4000:])
    return [Point(*point) for point in json.loads(finished.stdout.splitlines()[-1])]


def train_with_llamafactory(task, folder, *, python):
    """It imports torchaudio, which text does not need: an empty module serves where that is missing or does not fit."""
    (folder / "torchaudio").mkdir()
    (folder / "torchaudio" / "__init__.py").touch()
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {
        "file_name": task.write_rows(folder).name,
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {**tags, "system_tag": "system"},
    }
    (folder / "dataset_info.json").write_text(json.dumps({"rows": entry}))
    config = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(task.model),
        "finetuning_type": "lora",
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "lora_target": "all",
        "dataset": "rows",
        "dataset_dir": str(folder),
        "template": "smollm2",
        "cutoff_len": 1024,
        "output_dir": str(folder / "lf"),
        "logging_steps": task.every,
        "include_num_input_tokens_seen": "non_padding",  # counted, and told in its log lines
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "learning_rate": task.learning_rate,
        "max_steps": task.steps,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "bf16": True,
        "use_cpu": True,  # its documented precision is refused on a CPU that is not chosen
        "report_to": "none",
        "seed": SEED,
    }
    (folder / "lf.yaml").write_text(json.dumps(config))
    told = 0

    def read(line):
        nonlocal told
        found = re.search(rb"\{'loss': .*\}", line)
        if not found:
            return None
        fields = ast.literal_eval(found[0].decode())
        told += 1
        return told * task.every, float(fields["loss"]), float(fields["num_input_tokens_seen"])

    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
    env["DISABLE_VERSION_CHECK"] = "1"
    return watch([python, "-m", "llamafactory.cli", "train", str(folder / "lf.yaml")], env, read)
