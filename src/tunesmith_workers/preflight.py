"""Trying the hardest part of a training before it starts: one step on the longest rows, one scoring, one save.

What cannot fit is refused in seconds instead of failing after hours, and the refusal names the nearest setting that
does fit. Nothing that is tried leaves a trace: gradients, random numbers and files are put back. All of it takes no
longer than three steps on the longest rows and a few seconds; what would take longer is estimated.
"""

from __future__ import annotations

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
from tunesmith_workers.memory_use import MemoryUse
from tunesmith_workers.telling import note, tell

Batch = Mapping[str, Tensor]
Show = Callable[[str], None]
"""Is told what is about to be tried."""

_SAFE_SHARE = 0.92
"""Of the free memory: what a step takes varies a little."""
_ADAM_BYTES = 8
"""Two float32 moments for each trained parameter, made in the first real step."""
_MOST_STEPS = 3.0
"""Steps on the longest batch that everything together may cost."""
_OF_SCORING = 1 / 3
"""What a scoring costs in such steps."""
_SCRATCH = ".preflight."


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
    middling_share: float = 1.0
    """Tokens of a batch of middling rows, of those of the longest batch."""
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
    memory_bytes: int | None
    """What the longest batch takes on top of the loaded model, the optimizer's moments included; None if not known."""
    free_memory_bytes: int | None
    checkpoint_bytes: int
    free_disk_bytes: int


def preflight(
    trial: Trial,
    plan: Plan,
    *,
    scores: bool,
    show: Show = lambda _: None,
    memory: MemoryUse | None = None,
    free_memory: Callable[[], int] | None = None,
    free_disk: Callable[[Path], int] | None = None,
) -> Findings:
    """Try it, and put everything back. Where the system does not say how much memory is used, only that is left out.

    Raises:
        BadConfig: it cannot fit into memory or onto the disk; names the nearest setting that does.
    """
    use = memory or MemoryUse()
    free = free_memory() if free_memory else use.free()
    steps = _Steps(trial, plan, use, show)
    try:
        if free is not None:
            _refuse_ahead(steps, plan, free)
        seconds = steps.take(plan.rows)
        if scores:
            show("a scoring of the longest batch")
            trial.score(trial.batch_of(plan.rows, longest=True))
        taken = steps.taken()
        middling = steps.middling(scores=scores)
    except torch.OutOfMemoryError:
        raise _too_much(plan, max(1, plan.rows // 2), "the longest batch does not fit into memory") from None
    finally:
        trial.forget()
    if use.denied is not None:
        note(f"memory is not checked, as the system does not say what is used: {use.denied}", level="warning")
    moments = plan.trained_parameters * _ADAM_BYTES
    show("a save")
    checkpoint = _size_of_save(trial, plan) + moments
    disk = (free_disk or _free_disk)(plan.folder)
    _refuse_disk(plan, checkpoint, disk)
    return Findings(
        seconds_per_step=(seconds * plan.middling_share if middling is None else middling) * plan.accumulation,
        memory_bytes=None if taken is None else taken + moments,
        free_memory_bytes=free,
        checkpoint_bytes=checkpoint,
        free_disk_bytes=disk,
    )


class _Steps:
    """Steps on trial, and what they cost.

    All peaks are compared with what was in use at the very beginning: an allocator keeps what it got, so a second try
    seems to need less than it does. Processes that compute parts of a batch keep what they got, too.
    """

    def __init__(self, trial: Trial, plan: Plan, use: MemoryUse, show: Show) -> None:
        self._trial, self._plan, self._use, self._show = trial, plan, use, show
        self._start = use.now()
        self._spent = 0
        """Rows that the busiest process has computed, one after the other."""

    def take(self, rows: int, *, longest: bool = True) -> float:
        """Seconds of one step."""
        self._show(f"a step on {rows} of the {'longest rows' if longest else 'rows of middling length'}")
        batch = self._trial.batch_of(rows, longest=longest)
        self._use.begin_peak()
        began = time.monotonic()
        try:
            self._trial.step(batch)
            _wait_for_device()
        finally:
            self._trial.forget()
        self._spent += -(-rows // self._plan.parts)
        return time.monotonic() - began

    def taken(self) -> int | None:
        """The most memory that was taken in the last step and since then, in bytes."""
        peak = self._use.peak()
        return None if peak is None or self._start is None else max(0, peak - self._start)

    def middling(self, *, scores: bool) -> float | None:
        """Seconds of a step on rows of middling length; None where that would take too long."""
        whole = -(-self._plan.rows // self._plan.parts)
        share = self._plan.middling_share + (_OF_SCORING if scores else 0.0)
        if self._spent + share * whole > _MOST_STEPS * whole:
            return None
        return self.take(self._plan.rows, longest=False)


def _refuse_ahead(steps: _Steps, plan: Plan, free: int) -> None:
    """Before the whole batch is tried: on a CPU the kernel would kill the process instead of raising anything.

    Few rows say what all would take at the most, as if each of them took what is only taken once. Where that does not
    fit, a step on more rows says what each of them really takes.
    """
    few = plan.parts if plan.rows > plan.parts else 1
    if plan.rows == 1:
        return
    steps.take(few)
    taken, moments = steps.taken(), plan.trained_parameters * _ADAM_BYTES
    if taken is None or taken * -(-plan.rows // few) + moments <= int(free * _SAFE_SHARE):
        return
    per_row, fixed = taken // few, 0
    if plan.rows > plan.parts:
        more = 2 * few if 2 * few < plan.rows else few + 1
        steps.take(more)
        per_row = max(0, (steps.taken() or 0) - taken) // (more - few)
        fixed = max(0, taken - few * per_row)
    _refuse_memory(plan, free, per_row, fixed + moments)


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
    for left in plan.folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
    with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=plan.folder, ignore_cleanup_errors=True) as scratch:
        trial.save(Path(scratch))
        return sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())


def _free_disk(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _wait_for_device() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _gib(count: int | None) -> str:
    if count is None:
        return "an unknown part"
    return f"{count / 2**30:.1f} GiB" if count >= 2**29 else f"{count / 2**20:.1f} MiB"


class TryFirst(TrainerCallback):
    """Runs the preflight when everything is in place and nothing has begun, and tells what it found."""

    def __init__(self, try_first: Callable[[Any, Show], Findings]) -> None:
        self._try_first = try_first

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **at: Any) -> None:  # noqa: ARG002  # Trainer's signature
        if args.world_size > 1:
            note("no preflight: it measures one process, and here are several")
            return
        if state.global_step >= state.max_steps:
            return  # resumed from the last step, only the model is left to be written
        began = time.monotonic()

        def show(part: str) -> None:
            elapsed = round(time.monotonic() - began, 1)
            tell(
                "progress",
                phase="preflight",
                part=part,
                elapsed_seconds=elapsed,
                step=state.global_step,
                total_steps=state.max_steps,
            )

        show("a comparison of the ways to compute a batch")
        found = self._try_first(at["model"], show)
        left = state.max_steps - state.global_step
        note(
            f"preflight ({time.monotonic() - began:.1f} s): the longest batch takes {_gib(found.memory_bytes)} of "
            f"{_gib(found.free_memory_bytes)} free memory, a checkpoint {_gib(found.checkpoint_bytes)} of "
            f"{_gib(found.free_disk_bytes)} free disk, a step about {found.seconds_per_step:.2f} s"
        )
        eta = round(found.seconds_per_step * left, 3)
        tell("progress", phase="training", step=state.global_step, total_steps=state.max_steps, eta_seconds=eta)
