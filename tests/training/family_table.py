"""Writes the table of model families into docs/training.md: what acceleration changes about a training. ``nox -s families``.

    python tests/training/family_table.py [FAMILY ...] [--processes 2]

With names it prints their rows and writes nothing. A tiny model of each family (``families``) is trained by ``lora`` and
by ``sft``, as their run.sh starts them, in float32 on the CPU: once with ``training.accelerate: auto``, in two forked
workers where it may, and once with ``off``. Losses of all steps are compared, and what was written at the end, relative
to how far it is from what training began with.

The optimizer is SGD, whose steps are as different as the gradients. Adam divides each gradient by its own size: what is
wrong by a factor would not be seen, and where a gradient is zero but for rounding, the rounding would be as large a step.
``off`` itself is compared with transformers' own loss and gradients by ``test_families``, not here.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import multiprocessing
import os
import re
import runpy
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import peft  # noqa: F401  # what forked processes need is loaded once, here
import torch
import transformers
from safetensors.numpy import load_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from training_parts import RECIPES, Told, environment
from transformers import AutoModelForCausalLM, Trainer  # noqa: F401  # likewise

from support import families
from support.tiny_model import CHATML

PAGE = Path(__file__).parents[2] / "docs" / "training.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"

SAME_LOSS = 1e-4
SAME_WEIGHTS = 1e-3
"""Relative to what training changed."""

METHODS = ("lora", "sft")
TRAINING = {
    "max_steps": 6,
    "per_device_train_batch_size": 4,
    "optim": "sgd",
    "learning_rate": 0.05,  # at 0.2 a tiny Gemma 4 doubles rounding so fast that no two orders of sums agree in six steps
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_steps": 1,  # the first step changes nothing: its checkpoint is what training began with
    "group_by_length": False,
    "logging_steps": 1,
    "preflight": False,
}
THREADS = 2
"""As many workers are forked. What is not to fork has one, as a model this small only waits for a second one."""
LONGEST_RUN = 120
"""Seconds."""

WAYS = (
    ("packed", r"packed batches"),
    ("padded", r"padded batches: (.*)"),
    ("one process", r"computed in one process: (.*)"),
    ("own loss", r"own loss is used.*?: (.*)"),
    ("sdpa", r"sdpa attention is used: (.*)"),
)
"""The table's words for what a run says of how it goes about it."""
FORKED = "a worker was forked"
WORKERS = "2 workers"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", default=[])
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    rows = []
    gc.freeze()  # what forked processes inherit need not be looked through in each of them
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("fork")) as pool:
        for row in pool.map(compare, arguments.families or families.EVERY):
            say(row.line if row.compared else f"({row.family}: {row.impossible})")
            rows.append(row)
    if not arguments.families:
        write(rows)
    sys.exit(any(row.fails for row in rows))


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
    """One method on one family, with and without acceleration."""

    loss: float = 0.0
    weights: float = 0.0
    refused: str | None = None
    """Why the recipe would not train it either way."""
    broken: str | None = None
    """What only one of both ways ended in."""
    ways: tuple[tuple[str, str], ...] = ()
    """Words, and the reason for what is slower than it could be."""

    @property
    def verdict(self) -> str:
        if self.refused:
            return "refused"
        agrees = not self.broken and self.loss <= SAME_LOSS and self.weights <= SAME_WEIGHTS
        return "same" if agrees else "**differs**"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    family: str
    impossible: str | None = None
    """Why there is no tiny model of it."""
    compared: tuple[Compared, ...] = ()

    @property
    def fails(self) -> bool:
        return any(found.verdict not in {"same", "refused"} for found in self.compared)

    @property
    def line(self) -> str:
        verdicts = [found.verdict for found in self.compared]
        losses, weights = (
            " / ".join("-" if found.refused else brief(getattr(found, name)) for found in self.compared)
            for name in ("loss", "weights")
        )
        ways = self._ways()
        return f"| {' | '.join([self.family, *verdicts, losses, weights, ways.replace('|', '/')])} |"

    def _ways(self) -> str:
        lora, sft = self.compared
        said = [found.broken or found.refused or shown(found.ways) for found in self.compared]
        if set(sft.ways) == {way for way in lora.ways if way[0] not in {WORKERS, "one process"}}:
            said = said[:1]  # sft is computed in one process anyway
        return said[0] if len(set(said)) == 1 else "; ".join(map("`{}`: {}".format, METHODS, said))


def brief(difference: float) -> str:
    return f"{difference:.0e}" if difference else "0"


def compare(family: str) -> Row:
    """Train it in all four ways. In a process that computes nothing itself: OpenMP's threads do not survive a fork."""
    scratch = Path(tempfile.mkdtemp())  # TemporaryDirectory would be gone when the first forked process ends
    try:
        in_child(lambda: build(family, scratch / "model"), scratch / "build.log")
        if not (scratch / "model").is_dir():
            return Row(family=family, impossible=(scratch / "build.log").read_text().splitlines()[-1])
        write_rows(scratch / "rows.jsonl")
        return Row(family=family, compared=tuple(compare_method(method, scratch) for method in METHODS))
    finally:
        shutil.rmtree(scratch)


def in_child(work: Callable[[], None], log: Path) -> int | None:
    """Run it in a forked process that prints into a file; its exit code, or None when it did not end in time."""

    def run() -> None:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        work()
        sys.stdout.flush()

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(LONGEST_RUN)
    code = process.exitcode
    process.kill()
    process.join()
    return code


def build(family: str, folder: Path) -> None:
    torch.set_num_threads(1)
    if reason := families.fails(family):
        say(reason)
        return
    families.model_of(family).save_pretrained(folder)
    tokenizer().save_pretrained(folder)


def tokenizer() -> Any:
    """A token for each character, within the vocabulary of the tiny models."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "\n", *map(chr, range(32, 127))]
    inner = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, unk_token=" "))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    found = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        eos_token=tokens[0],
        pad_token=tokens[0],
        additional_special_tokens=tokens[1:3],
    )
    found.chat_template = CHATML
    return found


def write_rows(path: Path) -> None:
    """Different rows of unlike lengths with a common beginning."""
    things = ("grass", "the sky", "snow in the sun", "coal", "a lemon", "the sea on a clear day", "ink", "an old leaf")
    answers = ("green", "blue", "white, nearly", "black", "yellow", "blue or grey", "ink is black", "brown, I think")
    with path.open("w") as file:
        for number in range(TRAINING["max_steps"] * TRAINING["per_device_train_batch_size"]):
            thing, answer = things[number % 8], answers[(number + number // 8) % 8]
            said = (("system", "Name it."), ("user", f"{thing}?"), ("assistant", answer))
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in said]}) + "\n")


def compare_method(method: str, folder: Path) -> Compared:
    runs = {accelerate: train(method, accelerate, folder) for accelerate in ("auto", "off")}
    failed = {name: f"{name}: {error_of(told)}" for name, (code, told) in runs.items() if code != 0}
    if len(failed) == 2:
        return Compared(refused=error_of(runs["off"][1]))
    if failed:
        return Compared(broken=" ".join(failed.values()))
    told, plain = runs["auto"][1], runs["off"][1]
    return Compared(
        loss=max(abs(one - other) for one, other in zip(told.losses, plain.losses, strict=True)),
        weights=difference(*(folder / f"{method}-{accelerate}" for accelerate in runs)),
        ways=ways_of(told),
    )


def train(method: str, accelerate: str, folder: Path) -> tuple[int | None, Told]:
    run = folder / f"{method}-{accelerate}"
    run.mkdir()
    config: dict[str, Any] = {
        "model": {"base": str(folder / "model"), "dtype": "float32"},
        "data": {"train_file": str(folder / "rows.jsonl")},
        "training": {**TRAINING, "accelerate": accelerate},
        "checkpoint": {"save_steps": 1, "save_total_limit": None},
    }
    if method == "lora":
        config["lora"] = {"r": 4, "lora_alpha": 8}
    (run / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    threads = THREADS if (method, accelerate) == ("lora", "auto") else 1
    code = in_child(lambda: start(method, run / "config.yaml", threads), run / "log")
    return code, Told((run / "log").read_bytes())


def start(method: str, config: Path, threads: int) -> None:
    """What the recipe's run.sh does, without loading torch anew."""
    os.environ |= environment(config.parent)
    torch.set_num_threads(threads)
    asked = subprocess.run(
        ["bash", str(RECIPES / method / "run.sh"), str(config)],
        env={**os.environ, "TUNESMITH_PYTHON": "echo"},
        capture_output=True,
        text=True,
        check=True,
    )
    _, module, *sys.argv[1:] = asked.stdout.split()
    os.register_at_fork(after_in_parent=lambda: say(FORKED))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def error_of(told: Told) -> str:
    errors = [fields["text"] for fields in told.of("message") if fields["level"] == "error"]
    return " ".join((errors or told.text.splitlines() or ["it said nothing"])[-1].split())[:200]


def difference(accelerated: Path, plain: Path) -> float:
    """Between what two runs wrote, relative to what the second changed."""
    found, expected = (weights_in(run / "output") for run in (accelerated, plain))
    begun_with = weights_in(plain / "checkpoints" / "checkpoint-1")
    return distance(found, expected) / distance(begun_with, expected)


def weights_in(folder: Path) -> dict[str, np.ndarray]:
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    if one.keys() != other.keys():
        return float("inf")
    return sum(float(np.square(one[name].astype(float) - other[name]).sum()) for name in other) ** 0.5


def ways_of(told: Told) -> tuple[tuple[str, str], ...]:
    texts = [fields["text"] for fields in told.of("message")]
    hits = [(words, re.search(pattern, text)) for words, pattern in WAYS for text in texts]
    found = [(words, next(iter(hit.groups()), "")) for words, hit in hits if hit]
    return (*found, (WORKERS, "")) if told.text.count(FORKED) == THREADS else tuple(found)


def shown(ways: Iterable[tuple[str, str]]) -> str:
    by_reason: dict[str, list[str]] = {}
    for words, reason in ways:
        by_reason.setdefault(reason, []).append(words)
    return "; ".join(
        f"{', '.join(words)}: {reason}" if reason else ", ".join(words) for reason, words in by_reason.items()
    )


def write(rows: Iterable[Row]) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{BEGIN}\n{table(list(rows))}\n{END}{after}")


def table(rows: list[Row]) -> str:
    header = ("Family", *METHODS, "Loss differs by", "Adapter / weights differ by", "Fast ways, or why not")
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [row.line for row in rows if row.compared]
    left_out = ", ".join(row.family for row in rows if not row.compared)
    return (
        "\n".join(lines)
        + f"\n\nNot compared, because `tests/training/families.py` makes no tiny model of them: {left_out}."
    )


if __name__ == "__main__":
    main()
