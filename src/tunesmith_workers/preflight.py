"""Trying the hardest part of a training before it starts: one step on the longest rows, one scoring, one save.

What cannot fit is refused in seconds instead of failing after hours, and the refusal names the nearest setting that
does fit. Nothing that is tried leaves a trace: gradients, random numbers and files are put back.
"""

from __future__ import annotations

import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from tunesmith_workers.faults import BadConfig
from tunesmith_workers.telling import note, tell

Batch = Mapping[str, Tensor]

_SAFE_SHARE = 0.92
"""Of the free memory: what a step takes varies a little."""
_ADAM_BYTES = 8
"""Two float32 moments for each trained parameter, made in the first real step."""


class Trial(Protocol):
    """What can be tried on a trainer."""

    def batch_of(self, rows: int, *, longest: bool) -> Batch:
        """The longest rows, or rows of middling length."""
        ...

    def step(self, batch: Batch) -> None:
        """Forward and backward, as in training."""
        ...

    def score(self, batch: Batch) -> None:
        """Forward only, as in validation."""
        ...

    def save(self, folder: Path) -> None:
        """The weights, as in a checkpoint."""
        ...

    def forget(self) -> None:
        """Drop gradients and counters."""
        ...


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the training wants to do."""

    rows: int
    """Rows of a batch on this device."""
    parts: int = 1
    """In how many processes a batch is computed; what each takes for itself is not taken for every row."""
    accumulation: int
    steps: int
    """Optimizer steps that are left."""
    trained_parameters: int
    checkpoints: int
    """How many there will be at once, the finished model included."""
    folder: Path
    """Where they go."""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured."""

    seconds_per_step: float
    memory_bytes: int
    """What the longest batch takes on top of the loaded model, the optimizer's moments included."""
    free_memory_bytes: int
    checkpoint_bytes: int
    free_disk_bytes: int


def preflight(
    trial: Trial,
    plan: Plan,
    *,
    scores: bool,
    free_memory: Callable[[], int] | None = None,
    free_disk: Callable[[Path], int] | None = None,
) -> Findings:
    """Try it, and put everything back.

    Raises:
        BadConfig: it cannot fit into memory or onto the disk; names the nearest setting that does.
    """
    free = (free_memory or free_memory_now)()
    moments = plan.trained_parameters * _ADAM_BYTES
    try:
        start = _memory_in_use()
        few, more = min(plan.parts, plan.rows), min(2 * plan.parts, plan.rows)
        taken = _peak_of_step(trial, few) - start
        if more > few:
            per_row = max(0, _peak_of_step(trial, more) - start - taken) // (more - few)
            _refuse_memory(plan, free, per_row, fixed=max(0, taken - few * per_row) + moments)
        taken = max(0, _peak_of_step(trial, plan.rows) - start)
        if scores:
            trial.score(trial.batch_of(plan.rows, longest=True))
        began = time.monotonic()
        trial.step(trial.batch_of(plan.rows, longest=False))
        _wait_for_device()
        seconds = (time.monotonic() - began) * plan.accumulation
    except torch.OutOfMemoryError:
        raise _too_much(plan, max(1, plan.rows // 2), "the longest batch does not fit into memory") from None
    finally:
        trial.forget()
    checkpoint = _size_of_save(trial, plan) + moments
    disk = (free_disk or _free_disk)(plan.folder)
    _refuse_disk(plan, checkpoint, disk)
    return Findings(
        seconds_per_step=seconds,
        memory_bytes=taken + moments,
        free_memory_bytes=free,
        checkpoint_bytes=checkpoint,
        free_disk_bytes=disk,
    )


def _peak_of_step(trial: Trial, rows: int) -> int:
    """The most memory in use during one step, in bytes."""
    batch = trial.batch_of(rows, longest=True)
    _begin_peak()
    try:
        trial.step(batch)
        return _peak()
    finally:
        trial.forget()


def _refuse_memory(plan: Plan, free: int, per_row: int, fixed: int) -> None:
    """Before the whole batch is tried: on a CPU the kernel would kill the process instead of raising anything."""
    room = int(free * _SAFE_SHARE) - fixed
    if per_row * plan.rows <= room:
        return
    need = (
        f"a batch of {plan.rows} of the longest rows needs {_gib(per_row * plan.rows + fixed)}, {_gib(free)} are free"
    )
    raise _too_much(plan, max(0, room) // max(1, per_row), need)


def _too_much(plan: Plan, fitting: int, text: str) -> BadConfig:
    if fitting < 1:
        mend = "set training.gradient_checkpointing to true or lower data.max_length; not even one row fits"
    else:
        accumulation = plan.accumulation * -(-plan.rows // fitting)
        mend = (
            f"set training.per_device_train_batch_size to {fitting}, and gradient_accumulation_steps to {accumulation} "
            "for the same effective batch"
        )
    return BadConfig(text, where="training.per_device_train_batch_size", mend=mend)


def _refuse_disk(plan: Plan, checkpoint: int, free: int) -> None:
    needed = checkpoint * plan.checkpoints
    if needed <= free:
        return
    fitting = free // max(1, checkpoint) - 1
    mend = f"set checkpoint.save_total_limit to {fitting}" if fitting >= 1 else "free some space; not even two fit"
    raise BadConfig(
        f"{plan.checkpoints} checkpoints of {_gib(checkpoint)} need {_gib(needed)}, {_gib(free)} are free",
        where="checkpoint.save_total_limit",
        mend=mend,
    )


def _size_of_save(trial: Trial, plan: Plan) -> int:
    plan.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".preflight.", dir=plan.folder) as scratch:
        trial.save(Path(scratch))
        return sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())


# All peaks are compared with what was in use at the very beginning: an allocator keeps what it got, so a second try
# seems to need less than it does. Processes that compute parts of a batch keep what they got, too (``lanes``).


def _memory_in_use() -> int:
    return torch.cuda.memory_allocated() if torch.cuda.is_available() else _status("VmRSS") + _of_children()


def _begin_peak() -> None:
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak begins anew from what is in use now


def _peak() -> int:
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else _status("VmHWM") + _of_children()


def _of_children() -> int:
    """What processes started by this one hold for themselves alone."""
    sizes = [Path(f"/proc/{child.pid}/smaps_rollup") for child in multiprocessing.active_children()]
    lines = [line for path in sizes for line in path.read_text(encoding="ascii").splitlines()]
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def free_memory_now() -> int:
    """Bytes that can be taken at this moment: of the first accelerator, or of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


def _free_disk(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) * 1024


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"


class TryFirst(TrainerCallback):
    """Runs the preflight when everything is in place and nothing has begun, and tells what it found."""

    def __init__(self, try_first: Callable[[Any], Findings]) -> None:
        self._try_first = try_first

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **at: Any) -> None:  # noqa: ARG002  # Trainer's signature
        if args.world_size > 1:
            note("no preflight: it measures one process, and here are several")
            return
        tell("progress", phase="preflight", step=state.global_step, total_steps=state.max_steps)
        began = time.monotonic()
        found = self._try_first(at["model"])
        left = state.max_steps - state.global_step
        note(
            f"preflight ({time.monotonic() - began:.1f} s): the longest batch takes {_gib(found.memory_bytes)} of "
            f"{_gib(found.free_memory_bytes)} free memory, a checkpoint {_gib(found.checkpoint_bytes)} of "
            f"{_gib(found.free_disk_bytes)} free disk, a step about {found.seconds_per_step:.2f} s"
        )
        eta = round(found.seconds_per_step * left, 3)
        tell("progress", phase="training", step=state.global_step, total_steps=state.max_steps, eta_seconds=eta)
