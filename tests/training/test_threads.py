"""The number of computing threads changes nothing but the time: no training waits for ever, and all have the same losses."""

from __future__ import annotations

import itertools
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import transformers
from test_resume import Training

from tunesmith.records import Progress
from tunesmith.runner import Line
from tunesmith.runs.fold import Fold, read_event

pytestmark = [pytest.mark.training, pytest.mark.timeout(1200)]

STEPS = 12


@pytest.fixture(scope="module")
def wide_model(tokenizer, tmp_path_factory) -> Path:
    """Wide enough for torch to share its operations among threads, which it does not do for the tiny model."""
    folder = tmp_path_factory.mktemp("wide") / "model"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def start(wide_model, tmp_path):
    """Starts a recipe with so many threads, on whole batches of eight rows."""

    def start(recipe, threads, name=None, resume_from=None, **options):
        batch = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "max_steps": STEPS}
        return Training(
            recipe,
            tmp_path / (name or f"{recipe}-{threads}"),
            wide_model,
            resume_from,
            dropout=False,
            threads=threads,
            **{**batch, **options},
        )

    return start


def check_same(trainings: list[Training]) -> None:
    first, *others = [training.end(seconds=600).losses for training in trainings]
    assert sorted(first) == list(range(1, STEPS + 1))
    for other in others:
        assert other == pytest.approx(first, abs=1e-4)


def test_lora_has_the_same_losses_on_one_two_and_eight_threads(start):
    """In one process, in two and in eight forked ones; and how long it will take is told truly from the log."""
    trainings = [start("lora", threads) for threads in (1, 2, 8)]
    check_same(trainings)
    for training in trainings:
        check_time_left(training)


@pytest.mark.torture
@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_all_numbers_of_threads_have_the_same_losses(recipe, start):
    """From one to sixteen, and without any acceleration."""
    trainings = [start(recipe, 8, f"{recipe}-off", accelerate="off").end(seconds=600)]
    trainings += [start(recipe, threads).end(seconds=600) for threads in (1, 2, 4, 7, 8, 16)]
    assert not trainings[0].told.said("packed batches")
    assert trainings[-1].told.said("packed batches")
    check_same(trainings)


def check_time_left(training: Training) -> None:
    """It lies between what is left at the speed of the fastest and of the slowest step so far: a preflight is none."""
    events = [read_event(Line(0, len(line), line)) for line in training.told.text.encode().splitlines()]
    fold = Fold(Progress())
    heard: dict[int, float] = {}
    for event in events:
        fold.take(event, 0.0)
        if event.kind not in ("metrics", "progress") or event.fields.get("step") is None:
            continue
        if event.fields.get("phase") == "preflight":
            heard.clear()
            continue
        step = event.fields["step"]
        heard.setdefault(step, event.fields["at"])
        if 4 <= step < STEPS:
            gaps = [(heard[b] - heard[a]) / (b - a) for a, b in itertools.pairwise(sorted(heard))]
            left = STEPS - step
            assert left * min(gaps) - 0.1 <= fold.progress.eta_seconds <= left * max(gaps) + 0.1


def workers_of(process) -> list[int]:
    """The forked workers of a training, once they are there."""
    deadline = time.monotonic() + 300
    while True:
        found = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
        if len(found) == 2:
            return found
        assert time.monotonic() < deadline


@pytest.mark.torture
def test_a_killed_worker_changes_nothing(start):
    """Its step is computed again in one process, and the training ends with the losses it would have had."""
    straight = start("lora", 2, "straight").end(seconds=600)
    hurt = start("lora", 2, "hurt")
    hurt.read_until(step=3)
    os.kill(workers_of(hurt.process)[0], signal.SIGKILL)
    assert hurt.end(seconds=600).losses == pytest.approx(straight.losses, abs=1e-5)
    assert hurt.told.said("its step is computed again")


@pytest.mark.torture
def test_a_hanging_worker_does_not_keep_a_training_from_stopping(start):
    """It is asked to stop while it waits: the last finished step has its checkpoint, from which it goes on exactly."""
    straight = start("lora", 2, "straight").end(seconds=600)
    stuck = start("lora", 2, "stuck")
    stuck.read_until(step=3)
    os.kill(workers_of(stuck.process)[1], signal.SIGSTOP)
    stuck.process.send_signal(signal.SIGTERM)
    assert stuck.code() == 128 + signal.SIGTERM
    checkpoint = stuck.newest_checkpoint()
    step = int(checkpoint.name.partition("-")[2])
    assert 3 <= step < STEPS
    resumed = start("lora", 2, "resumed", checkpoint).end(seconds=600).losses
    assert resumed == pytest.approx({later: loss for later, loss in straight.losses.items() if later > step}, abs=1e-6)
