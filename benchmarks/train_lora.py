"""Samples per second of the ``lora`` recipe, beside TRL's SFTTrainer and LLaMA-Factory on the same rows and model.

    python benchmarks/train_lora.py [--model FOLDER] [--steps 30] [--rounds 2] [--llamafactory PYTHON]

Each trainer runs in a process of its own, one after the other, in turns for ``--rounds``; the fastest round of each
counts, because other work on the machine can only slow one down. All train a LoRA adapter with the same rank, layers,
learning rate, schedule and batch of 8 on the rows of the demo.

What is timed is the training loop between the log lines of step 5 and of the last step: no imports, no loading, no
tokenizing, no first steps, no checkpoint. The clock is this process's, when a trainer's log line arrives, or for TRL
the same moment in a callback. Everything else is what each does by default: ours as ``recipes/lora/run.sh`` starts it;
TRL's ``SFTConfig()`` and LLaMA-Factory's documented LoRA example, with only the numbers above set.

TRL trains on whole conversations by default, we on the answers. ``same tokens`` is a second run of ours with
``data.train_on: all``: it reads and trains exactly TRL's tokens, and its losses stand beside TRL's.

LLaMA-Factory needs an interpreter of a venv of its own (``pip install torch llamafactory==0.9.5``). It imports
torchaudio, which is not needed for text: an empty module is put in its place, so that machines without it work, too.
"""

import argparse
import ast
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tunesmith.contract.events import read_line
from tunesmith.demo import orders

HERE = Path(__file__).parent
BATCH, EVERY, WARM = 8, 5, 5
RANK, ALPHA, LEARNING_RATE = 16, 32, 1e-3
SEED = 42


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("state/models/SmolLM2-135M-Instruct"))
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--llamafactory", metavar="PYTHON", help="interpreter of a venv with llamafactory")
    parser.add_argument("--as-trl", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.as_trl:
        train_with_trl(arguments.as_trl, arguments.model, arguments.steps)
        return
    if not (arguments.model / "config.json").is_file():
        pull = [sys.executable, "-m", "tunesmith_workers.programs.pull", "HuggingFaceTB/SmolLM2-135M-Instruct"]
        subprocess.run([*pull, str(arguments.model)], check=True)
    compare(arguments)


def compare(arguments):
    model, steps = arguments.model.resolve(), arguments.steps
    trainers = {
        "lora recipe": lambda folder: ours(folder, model, steps, "assistant"),
        "lora recipe, same tokens": lambda folder: ours(folder, model, steps, "all"),
        "TRL SFTTrainer": lambda folder: trl(folder, model, steps),
    }
    if arguments.llamafactory:
        trainers["LLaMA-Factory"] = lambda folder: llamafactory(folder, model, steps, arguments.llamafactory)
    best = {}
    for number in range(1, arguments.rounds + 1):
        for name, run in trainers.items():
            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                (folder / "rows.jsonl").write_text(orders.to_json_lines(orders.train()))
                result = run(folder)
            print(f"round {number}: {name:26} {describe(result)}", flush=True)
            if name not in best or result["rate"] > best[name]["rate"]:
                best[name] = result
    print()
    for name, result in best.items():
        print(f"{name:26} {describe(result)}")
    for other, bar in (("TRL SFTTrainer", 2.0), ("LLaMA-Factory", 2.5)):
        if other in best:
            ratio = best["lora recipe"]["rate"] / best[other]["rate"]
            print(f"lora recipe / {other}: {ratio:.2f} (bar: {bar})")
    same = best["lora recipe, same tokens"]["rate"] / best["TRL SFTTrainer"]["rate"]
    print(f"lora recipe, same tokens / TRL SFTTrainer: {same:.2f}")


def describe(result):
    losses = ", ".join(f"{step}: {loss:.3f}" for step, loss in result["losses"])
    return f"{result['rate']:6.2f} samples/s   loss at step {losses}"


def rate_of(times):
    """Samples per second between the first log line after warming up and the last; ``times`` are (step, second)."""
    (first, began), (last, ended) = next(item for item in times if item[0] >= WARM), times[-1]
    return (last - first) * BATCH / (ended - began)


def summary(points):
    """``points`` are (step, second, mean loss of the steps since the point before)."""
    return {
        "rate": rate_of([(step, at) for step, at, _ in points]),
        "losses": [(step, loss) for step, _, loss in points],
    }


def watch(command, env, read):
    """Run a trainer and collect the points that ``read`` finds in its lines."""
    points, lines = [], []
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for line in process.stdout:
            lines.append(line)
            point = read(line)
            if point:
                points.append((point[0], time.monotonic(), point[1]))
    if process.returncode or len(points) < 2:
        sys.exit(b"".join(lines[-40:]).decode(errors="replace") + f"\n{command[:4]} ended with {process.returncode}")
    return summary(points)


def ours(folder, model, steps, train_on):
    config = {
        "model": {"base": str(model)},
        "data": {"train_file": str(folder / "rows.jsonl"), "train_on": train_on},
        "lora": {"r": RANK, "lora_alpha": ALPHA},
        "training": {
            "per_device_train_batch_size": BATCH,
            "max_steps": steps,
            "learning_rate": LEARNING_RATE,
            "lr_scheduler_type": "linear",
            "warmup_steps": 0,
            "logging_steps": EVERY,
            "seed": SEED,
        },
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML

    def read(line):
        event = read_line(line)
        if event and event[0] == "metrics" and "loss" in event[1] and event[1]["step"] % EVERY == 0:
            return event[1]["step"], event[1]["loss"]
        return None

    run_sh = HERE.parent / "recipes" / "lora" / "run.sh"
    env = {**os.environ, "TUNESMITH_PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"}
    return watch(["bash", str(run_sh), str(folder / "config.yaml")], env, read)


def trl(folder, model, steps):
    command = [sys.executable, __file__, "--as-trl", str(folder), "--model", str(model), "--steps", str(steps)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(finished.stderr[-4000:])
    return summary(json.loads(finished.stdout.splitlines()[-1]))


def train_with_trl(folder, model, steps):
    """SFTTrainer with its defaults; the points are printed as the last line."""
    import peft
    import torch
    import transformers
    import trl
    from datasets import load_dataset

    points = []

    class Clock(transformers.TrainerCallback):
        def on_log(self, args, state, control, logs=None, **_):  # noqa: ARG002  # the signature of a callback
            if "loss" in logs:
                points.append((state.global_step, time.monotonic(), float(logs["loss"])))

    config = trl.SFTConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="linear",
        warmup_steps=0,
        logging_steps=EVERY,
        seed=SEED,
        report_to=[],
        use_cpu=not torch.cuda.is_available(),  # its default precision is refused on a CPU that is not chosen
    )
    trainer = trl.SFTTrainer(
        model=str(model),
        args=config,
        train_dataset=load_dataset("json", data_files=str(folder / "rows.jsonl"), split="train"),
        peft_config=peft.LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules="all-linear"),
        callbacks=[Clock()],
    )
    trainer.train()
    print(json.dumps(points))


def llamafactory(folder, model, steps, python):
    (folder / "torchaudio").mkdir()
    (folder / "torchaudio" / "__init__.py").touch()
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {
        "file_name": "rows.jsonl",
        "formatting": "sharegpt",
        "columns": {"messages": "messages"},
        "tags": {**tags, "system_tag": "system"},
    }
    (folder / "dataset_info.json").write_text(json.dumps({"orders": entry}))
    config = {
        "stage": "sft",
        "do_train": True,
        "model_name_or_path": str(model),
        "finetuning_type": "lora",
        "lora_rank": RANK,
        "lora_alpha": ALPHA,
        "lora_target": "all",
        "dataset": "orders",
        "dataset_dir": str(folder),
        "template": "smollm2",
        "cutoff_len": 1024,
        "output_dir": str(folder / "lf"),
        "logging_steps": EVERY,
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "learning_rate": LEARNING_RATE,
        "max_steps": steps,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0,
        "bf16": True,
        "use_cpu": True,  # its documented precision is refused on a CPU that is not chosen
        "report_to": "none",
        "seed": SEED,
    }
    (folder / "lf.yaml").write_text(json.dumps(config))
    seen = [0]

    def read(line):
        found = re.search(rb"\{'loss': .*\}", line)
        if not found:
            return None
        seen[0] += EVERY
        return seen[0], float(ast.literal_eval(found[0].decode())["loss"])

    env = {**os.environ, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": ""}
    env["DISABLE_VERSION_CHECK"] = "1"
    return watch([python, "-m", "llamafactory.cli", "train", str(folder / "lf.yaml")], env, read)


if __name__ == "__main__":
    main()
