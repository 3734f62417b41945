"""Samples per second of the ``lora`` and ``sft`` recipes, beside TRL and LLaMA-Factory on the same rows and model.

    python benchmarks/train_lora.py [--rows orders|docstrings] [--train lora|sft|both] [--model FOLDER] [--steps 30]
                                    [--rounds 2] [--trl PYTHON] [--llamafactory PYTHON]

Each trainer runs in a process of its own, one after the other, in turns for ``--rounds``; the fastest round of each
counts, because other work on the machine can only slow one down. All train with the same learning rate, schedule and
batch of 8, and with LoRA the same rank and layers. ``orders`` are the rows of the demo, short and much alike;
``docstrings`` are long and unlike (``trainers/docstrings.py``), as many as the steps read, each once.

What is timed is the training loop between the first log line and the last (``trainers/points.py``): no imports, no
loading, no tokenizing, no first steps, no checkpoint. Everything else is what each does by default: ours as
``recipes/*/run.sh`` starts it; TRL's ``SFTConfig()`` and LLaMA-Factory's documented LoRA example, with only the numbers
above set. TRL trains on whole conversations by default, we on the answers. ``same tokens`` is a second run of ours with
``data.train_on: all``: it reads and trains exactly TRL's tokens, and its losses stand beside TRL's.

``of the machine`` is the share of this machine's own bfloat16 matrix product rate that training reaches
(``trainers/flops.py``). The rate is measured before the first round and after the last.

TRL runs in this interpreter or in that of ``--trl`` (``pip install torch trl peft datasets``). LLaMA-Factory needs an
interpreter of a venv of its own (``pip install torch llamafactory==0.9.5``), and is left out without one.
"""

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from transformers import AutoTokenizer

from trainers import rivals
from trainers.docstrings import docstrings
from trainers.flops import Reading, machine_rate, training_flops
from trainers.points import speed_of
from trainers.recipes import train_with_recipe
from trainers.task import BATCH, Task
from tunesmith.demo import orders

NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
MODEL = Path("state/models/SmolLM2-135M-Instruct")
TRL, LLAMAFACTORY = "TRL SFTTrainer", "LLaMA-Factory"
SAME = ", same tokens"
BARS = {"orders": {TRL: 3.8, LLAMAFACTORY: 2.7}, "docstrings": {TRL: 8.0, LLAMAFACTORY: 6.0}}
"""How many times as fast the ``lora`` recipe has to be."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", choices=list(BARS), default="orders")
    parser.add_argument("--train", choices=["lora", "sft", "both"], default="both")
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--trl", metavar="PYTHON", default=sys.executable, help="interpreter of a venv with trl")
    parser.add_argument("--llamafactory", metavar="PYTHON", help="interpreter of a venv with llamafactory")
    arguments = parser.parse_args()
    if arguments.model == MODEL:
        pull = [sys.executable, "-m", "tunesmith", "models", "pull", NAME, "--state-dir", str(MODEL.parents[1])]
        subprocess.run(pull, check=True)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    rows = orders.train() if arguments.rows == "orders" else docstrings(arguments.steps * BATCH, tokenizer)
    print(f"{arguments.rows}: {Reading(rows, tokenizer)}", flush=True)
    rate = machine_rate()
    methods = ("lora", "sft") if arguments.train == "both" else (arguments.train,)
    best = measure(arguments, rows, methods)
    rate = max(rate, machine_rate())
    print(f"\nthis machine multiplies matrices at {rate / 1e9:.0f} GFLOP/s in bfloat16\n")
    for name, (method, speed) in best.items():
        flops = training_flops(
            arguments.model,
            Reading(rows, tokenizer),
            method,
            everywhere=name.endswith(SAME) or name.startswith(TRL),
            shared_once=not name.startswith((TRL, LLAMAFACTORY)),
        )
        print(f"{name:28} {speed}   {speed.samples_per_second * flops / rate:6.1%} of the machine")
    print()
    print_ratios(best, methods, BARS[arguments.rows])


def measure(arguments, rows, methods):
    """The method and the fastest speed of each trainer, by its name."""
    best = {}
    for number in range(1, arguments.rounds + 1):
        for method in methods:
            task = Task(model=arguments.model.resolve(), rows=rows, steps=arguments.steps, method=method)
            for name, train in trainers_of(arguments, task).items():
                with tempfile.TemporaryDirectory() as scratch:
                    speed = speed_of(train(task, Path(scratch)))
                print(f"round {number}: {name:28} {speed}   {speed.describe_losses()}", flush=True)
                if name not in best or speed.samples_per_second > best[name][1].samples_per_second:
                    best[name] = method, speed
    return best


def trainers_of(arguments, task):
    found = {
        f"{task.method} recipe": partial(train_with_recipe, train_on="assistant"),
        f"{task.method} recipe{SAME}": partial(train_with_recipe, train_on="all"),
        rival_of(TRL, task.method): partial(rivals.train_with_trl, python=arguments.trl),
    }
    if arguments.llamafactory and task.method == "lora":
        found[LLAMAFACTORY] = partial(rivals.train_with_llamafactory, python=arguments.llamafactory)
    return found


def rival_of(rival, method):
    return rival if method == "lora" else f"{rival}, all weights"


def print_ratios(best, methods, bars):
    for method in methods:
        for rival, bar in bars.items():
            other = rival_of(rival, method)
            if other not in best:
                continue
            theirs = best[other][1].samples_per_second
            ratio = best[f"{method} recipe"][1].samples_per_second / theirs
            told = f" (bar: {bar})" if method == "lora" else ""
            print(f"{method} recipe / {other}: {ratio:.2f}{told}")
            if rival == TRL:
                same = best[f"{method} recipe{SAME}"][1].samples_per_second / theirs
                print(f"{method} recipe{SAME} / {other}: {same:.2f}")


if __name__ == "__main__":
    main()
