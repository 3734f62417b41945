"""Going on is exact: a training that was stopped or killed and resumed has the losses of one that ran straight."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from training_parts import RECIPES, Told, chat, environment

from tunesmith_workers.training.checkpoints import is_complete, prune

pytestmark = [pytest.mark.training, pytest.mark.timeout(400)]  # four trainings in one test
STEPS = 40
# 26 rows of different lengths: 40 steps of 4 rows cross several epochs, the last batch of each is short.
ROWS = [chat(f"say {'very ' * (number % 5)}{number}", str(number * 7)) for number in range(26)]


@pytest.fixture(scope="module")
def dropping_model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model with dropout in its attention, so that random numbers matter in full training, too."""
    folder = tmp_path_factory.mktemp("dropping") / "model"
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.1}))
    return folder


class Training:
    """One process of a recipe, with its log."""

    def __init__(
        self,
        recipe: str,
        folder: Path,
        model: Path,
        resume_from: Path | None = None,
        *,
        dropout: bool = True,
        threads: int = 1,
        data: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        save_total_limit: int | None = 2,
        **options: Any,
    ) -> None:
        folder.mkdir()
        rows = folder.parent / "rows.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        config = {
            "model": {"base": str(model), "dtype": "float32"},
            "data": {"train_file": str(rows), **(data or {})},
            "training": {
                "max_steps": STEPS,
                "per_device_train_batch_size": 2,
                "gradient_accumulation_steps": 2,
                "learning_rate": 0.003,
                "logging_steps": 1,
                **options,
            },
            "checkpoint": {"save_steps": 5, "save_total_limit": save_total_limit},
            "evaluation": evaluation or {},
        }
        if dropout and recipe == "lora":
            config["lora"] = {"lora_dropout": 0.1}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        self.folder = folder
        self._output = b""
        self.process = subprocess.Popen(
            ["bash", str(RECIPES / recipe / "run.sh"), str(folder / "config.yaml")],
            env={
                **environment(folder),
                "TUNESMITH_RESUME_FROM": str(resume_from or ""),
                "OMP_NUM_THREADS": str(threads),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pipesize=4096,  # so that it cannot be many steps ahead of what has been read
        )

    @property
    def told(self) -> Told:
        return Told(self._output)

    @property
    def losses(self) -> dict[int, float]:
        return {event["step"]: event["loss"] for event in self.told.of("metrics") if "loss" in event}

    def end(self, seconds: float = 100) -> Training:
        assert self.code(seconds) == 0, self.told.text
        return self

    def code(self, seconds: float = 100) -> int:
        if self.process.returncode is None:
            self._output += self.process.communicate(timeout=seconds)[0]
        return self.process.returncode

    def read_line(self) -> None:
        line = self.process.stdout.readline()
        assert line, self.told.text
        self._output += line

    def read_until(self, step: int) -> None:
        while max(self.losses, default=0) < step:
            self.read_line()

    def signal_at(self, step: int, sign: signal.Signals) -> None:
        self.read_until(step)
        self.process.send_signal(sign)
        self.code()

    def newest_checkpoint(self) -> Path:
        complete = [path for path in (self.folder / "checkpoints").iterdir() if is_complete(path)]
        return max(complete, key=step_of)


@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_resuming_is_exact(recipe, dropping_model, tmp_path):
    """40 steps straight, and 40 with a kill at step 17 and a cancel at 29: every later loss is the same to 1e-6."""
    check_exact(lambda name, start=None: Training(recipe, tmp_path / name, dropping_model, start))


def test_resuming_is_exact_without_padding_too(tiny_model, tmp_path):
    """Without dropout, batches are packed and parts of a batch are computed in processes of their own."""

    def start(name: str, resume_from: Path | None = None) -> Training:
        return Training("lora", tmp_path / name, tiny_model, resume_from, dropout=False, threads=2)

    straight = check_exact(start)
    assert straight.told.said("packed batches")


def check_exact(start: Callable[..., Training]) -> Training:
    """Killed, resumed, cancelled, and resumed again."""
    whole = start("straight").end()
    straight = whole.losses
    assert sorted(straight) == list(range(1, STEPS + 1))

    killed = start("killed")
    killed.signal_at(17, signal.SIGKILL)
    kept = killed.newest_checkpoint()
    assert 10 <= step_of(kept) < 29  # one that was being written does not count

    cancelled = start("cancelled", kept)
    cancelled.signal_at(29, signal.SIGTERM)
    kept_then = cancelled.newest_checkpoint()
    assert 29 <= step_of(kept_then) < STEPS

    resumed = start("resumed", kept_then).end()
    assert sorted(cancelled.losses) == list(range(step_of(kept) + 1, step_of(kept_then) + 1))
    assert sorted(resumed.losses) == list(range(step_of(kept_then) + 1, STEPS + 1))
    for later, loss in {**cancelled.losses, **resumed.losses}.items():
        assert loss == pytest.approx(straight[later], abs=1e-6), f"step {later}"
    return whole


def test_what_is_counted_goes_on(tiny_model, tmp_path):
    """Trained tokens, and the scorings without a better loss: a training that stops early does so at the same step,
    however often it was resumed, and is not trained on from the checkpoint at which it stopped.
    """
    contradiction = tmp_path / "contradiction.jsonl"
    contradiction.write_text("".join(json.dumps(chat(f"say {number}", "mauve")) + "\n" for number in range(8)))

    def start(name: str, resume_from: Path | None = None) -> Training:
        return Training(
            "lora",
            tmp_path / name,
            tiny_model,
            resume_from,
            data={"validation_file": str(contradiction)},
            evaluation={"strategy": "steps", "steps": 2, "early_stopping_patience": 4},
            save_total_limit=None,
        ).end()

    straight = start("straight")
    last = max(straight.losses)
    assert 10 <= last < STEPS, "it stopped early"
    resumed = start("resumed", straight.folder / "checkpoints" / f"checkpoint-{last - 4}")
    assert resumed.losses == {step: loss for step, loss in straight.losses.items() if step > last - 4}
    tokens = [
        {event["step"]: event["trained_tokens"] for event in run.told.of("metrics") if "loss" in event}
        for run in (straight, resumed)
    ]
    assert tokens[1] == {step: count for step, count in tokens[0].items() if step > last - 4}
    finished = start("finished", straight.folder / "checkpoints" / f"checkpoint-{last}")
    assert finished.losses == {}
    assert finished.told.said("nothing is trained")
    assert model_of(finished) == model_of(resumed) == model_of(straight)


def model_of(training: Training) -> bytes:
    return (training.folder / "output" / "adapter_model.safetensors").read_bytes()


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.partition("-")[2])


def test_a_checkpoint_that_does_not_fit_is_refused(dropping_model, tiny_model, tmp_path):
    """Another model or another shape of adapter: the run fails at once and says each difference."""
    first = Training("lora", tmp_path / "first", dropping_model)
    first.signal_at(5, signal.SIGTERM)
    checkpoint = first.newest_checkpoint()
    other = Training("lora", tmp_path / "other", tiny_model, resume_from=checkpoint)
    assert other.code() == 1
    assert "model.base was" in other.told.error["text"]
    (checkpoint / "manifest.json").unlink()
    cut = Training("lora", tmp_path / "cut", dropping_model, resume_from=checkpoint)
    assert cut.code() == 1
    assert "not a complete checkpoint" in cut.told.error["text"]
    assert other.losses == cut.losses == {}


def test_marked_checkpoints_are_not_pruned(tmp_path):
    """A checkpoint with the KEEP file stays, however many newer ones there are."""
    for step in (1, 2, 3, 4):
        (tmp_path / f"checkpoint-{step}").mkdir()
    (tmp_path / "checkpoint-1" / "KEEP").touch()
    prune(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "checkpoint-4"]


def test_pruning_follows_no_link(tmp_path):
    """Neither in the place of a checkpoint nor of their folder; and the rest of a removal that was cut short goes."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "manifest.json").touch()
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    for step in (2, 3, 4):
        (folder / f"checkpoint-{step}").mkdir()
    (folder / "checkpoint-1").symlink_to(precious)
    (folder / ".removed-checkpoint-0").mkdir()
    (tmp_path / "link").symlink_to(folder)
    assert prune(tmp_path / "link", 1) == []
    assert [path.name for path in prune(folder, 1)] == ["checkpoint-2", "checkpoint-3"]
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint-1", "checkpoint-4"]
    assert (precious / "manifest.json").exists()
