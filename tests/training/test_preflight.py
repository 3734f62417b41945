"""What cannot fit is refused before the first step, with the nearest setting that does; what fits is measured."""

from __future__ import annotations

import contextlib
import mmap
from pathlib import Path

import pytest
import torch
from test_resume import Training
from training_parts import Told
from transformers import TrainerState, TrainingArguments

from tunesmith_workers.cpu.forked_workers import ForkedWorkers
from tunesmith_workers.models.memory_use import MemoryUse
from tunesmith_workers.process.faults import BadConfig
from tunesmith_workers.training.plan import Plan
from tunesmith_workers.training.preflight import preflight
from tunesmith_workers.training.trial import saves_in

MIB = 2**20


class FakeTrial:
    """Takes 20 MiB and then 10 MiB a row, and saves 1 MiB."""

    def __init__(self) -> None:
        self.tried: list[int] = []
        self.scored = 0
        self.forgotten = 0

    def batch_of(self, rows, *, longest):
        return {"rows": torch.zeros(rows), "longest": torch.tensor(longest)}

    def step(self, batch):
        rows = len(batch["rows"])
        self.tried.append(rows)
        # Straight from the system: an allocator may have enough left over from tests before this one.
        held = [mmap.mmap(-1, 20 * MIB), *(mmap.mmap(-1, 10 * MIB) for _ in range(rows))]
        for piece in held:
            piece[::4096] = b"x" * len(range(0, len(piece), 4096))
        for piece in held:
            piece.close()

    def score(self, batch):
        self.scored += len(batch["rows"])

    def save(self, folder):
        (folder / "weights").write_bytes(bytes(MIB))

    def forget(self):
        self.forgotten += 1


def plan(folder: Path, **changes) -> Plan:
    fields = {"rows": 16, "accumulation": 2, "steps": 100, "trained_parameters": 1000, "checkpoints": 4}
    return Plan(**{**fields, **changes}, folder=folder)


def test_what_fits_is_measured(tmp_path):
    """Memory, disk and time of a step; the batch is tried whole, scored, and forgotten."""
    trial = FakeTrial()
    found = preflight(trial, plan(tmp_path), scores=True)
    assert trial.tried == [1, 16, 16]
    assert trial.scored == 16
    assert trial.forgotten >= 3
    assert 150 * MIB < found.memory_bytes < 260 * MIB
    assert found.checkpoint_bytes == MIB + 8000
    assert found.seconds_per_step > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("free", [2000 * MIB, 110 * MIB])
@pytest.mark.parametrize(("rows", "parts"), [(1, 1), (8, 1), (8, 2), (8, 4), (8, 7), (8, 8)])
def test_it_costs_at_most_three_steps_on_the_longest_batch(tmp_path, rows, parts, free):
    """In rows that the busiest process computes one after the other, a scoring being a third of a step."""
    trial = FakeTrial()
    with contextlib.suppress(BadConfig):
        preflight(trial, plan(tmp_path, rows=rows, parts=parts), scores=True, free_memory=lambda: free)
    whole = -(-rows // parts)
    assert rows in trial.tried or free == 110 * MIB
    assert sum(-(-tried // parts) for tried in trial.tried) + whole / 3 <= 3 * whole


def test_it_says_what_it_tries(tmp_path):
    """Before each part, in order."""
    shown: list[str] = []
    preflight(FakeTrial(), plan(tmp_path), scores=True, show=shown.append)
    assert shown == [
        "a step on 1 of the longest rows",
        "a step on 16 of the longest rows",
        "a scoring of the longest batch",
        "a step on 16 of the rows of middling length",
        "a save",
    ]


@pytest.mark.parametrize("denied", ["self/clear_refs", "self/status", "meminfo"])
def test_where_memory_cannot_be_measured_the_rest_is(tmp_path, denied, capfdbinary):
    """Containers may deny parts of /proc: it goes on without the memory check, and says so."""
    proc = tmp_path / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "clear_refs").touch()
    (proc / "self" / "status").write_text("VmHWM:  2000 kB\nVmRSS:  1000 kB\n")
    (proc / "meminfo").write_text("MemAvailable:  9000 kB\n")
    (proc / denied).unlink()
    if denied == "self/clear_refs":
        (proc / denied).mkdir()  # which nobody may write, root included
    trial = FakeTrial()
    found = preflight(trial, plan(tmp_path), scores=True, memory=MemoryUse(proc))
    assert 16 in trial.tried
    assert found.memory_bytes is None
    assert found.checkpoint_bytes == MIB + 8000
    assert "memory is not checked" in Told(capfdbinary.readouterr().out).of("message")[0]["text"]


V2 = {"memory.max": "max\n", "memory.high": "max\n", "memory.current": f"{90 * MIB}\n"}


@pytest.mark.parametrize(
    ("own", "cgroups", "free"),
    [
        ("0::/", {}, 500),
        ("0::/", {".": V2}, 500),
        ("0::/", {".": {**V2, "memory.max": str(100 * MIB)}}, 10),
        ("0::/", {".": {**V2, "memory.max": str(100 * MIB), "memory.high": str(95 * MIB)}}, 5),
        ("0::/", {".": {**V2, "memory.max": str(80 * MIB)}}, 0),
        ("0::/", {".": {**V2, "memory.max": str(9000 * MIB)}}, 500),
        ("0::/", {".": {"memory.max": str(100 * MIB)}}, 500),
        (
            "0::/",
            {
                ".": {
                    **V2,
                    "memory.max": str(100 * MIB),
                    "memory.stat": f"anon 9\nactive_file {20 * MIB}\ninactive_file {30 * MIB}\n",
                }
            },
            60,
        ),
        ("0::/run/deep", {"run/deep": V2, "run": {**V2, "memory.max": str(100 * MIB)}}, 10),
        (
            "1:cpu:/a\n4:memory:/a",
            {
                "memory/a": {
                    "memory.limit_in_bytes": str(100 * MIB),
                    "memory.usage_in_bytes": str(90 * MIB),
                    "memory.stat": f"inactive_file 5\ntotal_inactive_file {7 * MIB}\n",
                }
            },
            17,
        ),
    ],
)
def test_a_containers_limit_counts(tmp_path, own, cgroups, free):
    """Of cgroup v2 and v1, its own and those around it, without cached files: not more is free than it leaves."""
    proc, mount = tmp_path / "proc", tmp_path / "sys" / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text(f"{own}\n")
    (proc / "meminfo").write_text(f"MemAvailable:  {500 * 1024} kB\n")
    for folder, files in cgroups.items():
        (mount / folder).mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (mount / folder / name).write_text(text)
    assert MemoryUse(proc, mount).free() == free * MIB


def test_what_a_killed_preflight_left_is_removed(tmp_path):
    """A half-written save is as large as a checkpoint."""
    (tmp_path / ".preflight.abc").mkdir()
    (tmp_path / ".preflight.abc" / "weights").write_bytes(bytes(MIB))
    preflight(FakeTrial(), plan(tmp_path), scores=False)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_that_cannot_fit_is_never_tried(tmp_path):
    """The kernel would kill the process: one and two rows say enough, and the mend names the largest that fits."""
    trial = FakeTrial()
    with pytest.raises(BadConfig) as refused:
        preflight(trial, plan(tmp_path), scores=False, free_memory=lambda: 110 * MIB)
    assert trial.tried == [1, 2]
    rows = int(refused.value.mend.split("per_device_train_batch_size to ")[1].split(",")[0])
    assert 5 <= rows <= 10
    assert f"gradient_accumulation_steps to {2 * -(-16 // rows)}" in refused.value.mend


def test_out_of_memory_on_the_device_is_refused_too(tmp_path):
    """What the estimate missed and the device refused ends the same way."""

    class Tight(FakeTrial):
        def step(self, batch):
            if len(batch["rows"]) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BadConfig, match="does not fit into memory") as refused:
        preflight(Tight(), plan(tmp_path), scores=False)
    assert "per_device_train_batch_size to 8" in refused.value.mend


def test_checkpoints_that_cannot_fit_are_refused(tmp_path):
    """Four checkpoints and room for three: the mend names a limit that fits."""
    with pytest.raises(BadConfig) as refused:
        preflight(FakeTrial(), plan(tmp_path), scores=False, free_disk=lambda _: 3 * MIB + 50_000)
    assert refused.value.mend == "set checkpoint.save_total_limit to 2"


@pytest.mark.parametrize(
    ("strategy", "epochs", "max_steps", "saves"),
    [("epoch", 3, 78, 3), ("epoch", 1, 10, 1), ("epoch", 5, 2, 2), ("steps", 3, 78, 4), ("steps", 1, 20, 1)],
)
def test_as_many_checkpoints_are_expected_as_are_saved(tmp_path, strategy, epochs, max_steps, saves):
    """Early stopping by epoch saves once an epoch, a partial one included; otherwise it is every 20 steps."""
    arguments = TrainingArguments(str(tmp_path), save_strategy=strategy, save_steps=20, use_cpu=True)
    assert saves_in(arguments, TrainerState(num_train_epochs=epochs, max_steps=max_steps)) == saves


@pytest.mark.training
@pytest.mark.parametrize("strategy", ["steps", "epoch"])
def test_no_more_checkpoints_are_saved_than_are_expected(tiny_model, tmp_path, strategy):
    """A training of two epochs and a bit, with validation rows."""
    training = Training(
        "lora",
        tmp_path / "saves",
        tiny_model,
        max_steps=15,
        evaluation={"strategy": strategy, "steps": 4, "holdout_share": 0.1, "early_stopping_patience": 20},
    ).end()
    saved = [event["step"] for event in training.told.of("checkpoint")]
    state = TrainerState.load_from_json(str(training.newest_checkpoint() / "trainer_state.json"))
    arguments = TrainingArguments(str(tmp_path), save_strategy=strategy, save_steps=4, use_cpu=True)
    assert len(saved) == saves_in(arguments, state)


@pytest.mark.training
@pytest.mark.parametrize("recipe", ["lora", "sft"])
def test_a_preflight_changes_nothing(recipe, tiny_model, tmp_path):
    """With and without it, a training with dropout has the same losses; it says what it found and how long it will take."""
    with_it = Training(recipe, tmp_path / "with", tiny_model, max_steps=6).end()
    without = Training(recipe, tmp_path / "without", tiny_model, max_steps=6, preflight=False).end()
    assert with_it.losses == without.losses
    assert with_it.told.said("preflight (")
    assert not without.told.said("preflight (")
    expected = [event["eta_seconds"] for event in with_it.told.of("progress") if "eta_seconds" in event]
    assert len(expected) == 1
    assert expected[0] > 0


@pytest.mark.training
def test_the_first_speed_is_that_of_training(tiny_model, tmp_path):
    """What is tried before the first step is not counted: its four rows took no longer than there was time since then."""
    told = Training("lora", tmp_path / "speed", tiny_model, max_steps=2).end().told
    [save] = [event["at"] for event in told.of("progress") if event.get("part") == "a save"]
    first = told.of("metrics")[0]
    assert first["step"] == 1
    assert 4 / first["samples_per_second"] <= (first["at"] - save) * 1.01 + 0.01


@pytest.mark.parametrize(("rows", "fits"), [(10, True), (40, False)])
def test_what_other_processes_take_counts_too(tmp_path, rows, fits):
    """Where parts of a batch are computed in workers, it is their memory that a batch needs: 50 MiB each, and 10 a row."""
    held: list[bytearray] = []

    def work(rows):
        missing = (50 + rows * 10) * MIB - sum(map(len, held))
        held.append(bytearray(b"x") * max(0, missing))  # an allocator keeps what it got
        return None, [torch.ones(1)]

    trial = FakeTrial()
    workers = ForkedWorkers(2, work, [torch.nn.Parameter(torch.ones(1))])
    trial.step = lambda batch: workers.add_gradients([len(batch["rows"]) // 2] * 2)
    wanted = plan(tmp_path, rows=rows, parts=2)
    try:
        if fits:
            found = preflight(trial, wanted, scores=False, free_memory=lambda: 300 * MIB)
            assert 195 * MIB < found.memory_bytes < 260 * MIB
        else:
            with pytest.raises(BadConfig, match="a batch of 40 of the longest rows needs"):
                preflight(trial, wanted, scores=False, free_memory=lambda: 300 * MIB)
    finally:
        workers.close()
