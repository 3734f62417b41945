"""What the training tests share: rows, starting a recipe, and reading what it told."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch

from tunesmith.contract.events import read_line
from tunesmith_workers.cpu.acceleration import CpuAcceleration, Slower
from tunesmith_workers.examples.batches import Batch
from tunesmith_workers.objectives.base import BatchLoss
from tunesmith_workers.objectives.token_cross_entropy import TokenCrossEntropy
from tunesmith_workers.objectives.trained_logits import TrainedLogits
from tunesmith_workers.process.config import Folders, TrainConfig, read_config
from tunesmith_workers.training.acceleration import Plain
from tunesmith_workers.training.verify import verify

RECIPES = Path(__file__).parents[2] / "recipes"


def chat(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


COLOURS = [
    chat(f"the colour of {thing}?", colour)
    for thing, colour in (
        ("grass", "green"),
        ("sky", "blue"),
        ("snow", "white"),
        ("coal", "black"),
        ("blood", "red"),
        ("lemons", "yellow"),
        ("the sea on a clear day", "blue"),
        ("leaves in early summer", "green"),
    )
] * 4


def config_and_folders(path: Path, recipe: str = "lora") -> tuple[TrainConfig, Folders]:
    """What a worker makes of a config file."""
    config = read_config(TrainConfig, path, RECIPES / recipe / "recipe.yaml")
    return config, Folders(run=path.parent, output=path.parent / "output", resume_from=None)


class Told:
    """The events in what a process printed."""

    def __init__(self, output: bytes) -> None:
        self.text = output.decode(errors="replace")
        self.events = [event for line in output.splitlines() if (event := read_line(line))]

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [fields for found, fields in self.events if found == kind]

    @property
    def losses(self) -> list[float]:
        return [fields["loss"] for fields in self.of("metrics") if "loss" in fields]

    @property
    def error(self) -> dict[str, Any]:
        return next(fields for fields in reversed(self.of("message")) if fields["level"] == "error")

    def said(self, words: str) -> bool:
        return any(words in fields["text"] for fields in self.of("message"))


def environment(run: Path) -> dict[str, str]:
    return {
        **os.environ,
        "TUNESMITH_PYTHON": sys.executable,
        "TUNESMITH_RUN_DIR": str(run),
        "TUNESMITH_OUTPUT_DIR": str(run / "output"),
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
    }


def run_recipe(recipe: str, config: Path) -> tuple[int, Told]:
    """Start a recipe as the service does, and wait for it."""
    finished = subprocess.run(
        ["bash", str(RECIPES / recipe / "run.sh"), str(config)],
        env=environment(config.parent),
        capture_output=True,
        check=False,
        timeout=100,
    )
    return finished.returncode, Told(finished.stdout + b"\n" + finished.stderr)


def manifest_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = msgspec.json.decode((folder / "manifest.json").read_bytes())
    return content


SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": 0,
    "eos_token_id": 0,
    "bos_token_id": 0,
}


def gradients(model) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def orders_bfloat16() -> bool:
    """Whether oneDNN is there and says that this CPU multiplies bfloat16, which it needs AVX-512 or newer for."""
    return bool(torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported())


class TokenLoss:
    """The loss of ``sft`` and ``lora`` for one model."""

    def __init__(self, model: torch.nn.Module, pad_token: int = 0) -> None:
        self.logits = TrainedLogits(model, pad_token)

    def __call__(self, model: torch.nn.Module, batch: Batch, *, measures: bool = False) -> BatchLoss:
        return TokenCrossEntropy().loss(self.logits, model, batch, measures=measures)

    @property
    def gathers(self) -> bool:
        return self.logits.gathers

    @property
    def packs(self) -> bool:
        return self.logits.arrange != self.logits.padded


class Verified(msgspec.Struct, frozen=True):
    """What a training finds out before its first step."""

    own_loss: str | None = None
    slower: Slower = Slower()


def verified(loss: TokenLoss, model: torch.nn.Module, batch: Batch, *, fastest: bool) -> Verified:
    """Have the model run as a training does, in the fastest way or in the plain one."""
    cpu = CpuAcceleration(rows=8, chooses_attention=True, forks=False)
    acceleration = cpu if fastest else Plain()
    reason = verify(loss.logits, model, batch, acceleration)
    if reason is not None:
        acceleration.use_own_loss(model, loss.logits)
    return Verified(reason, cpu.slower)
