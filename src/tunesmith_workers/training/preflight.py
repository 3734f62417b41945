"""Trying the hardest part of a training before it starts: one step on the longest rows, one scoring, one save.

What cannot fit is refused in seconds instead of failing after hours, and the refusal names the nearest setting that
does fit. Nothing that is tried leaves a trace: gradients, random numbers and files are put back. All of it takes no
longer than three steps on the longest rows and a few seconds; what would take longer is estimated.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from tunesmith_workers.models.memory_use import MemoryUse
from tunesmith_workers.process.events import emit_message
from tunesmith_workers.training.limits import SAFE_SHARE, refuse_disk, refuse_memory, too_much
from tunesmith_workers.training.plan import Findings, Plan, Trial

Show = Callable[[str], None]
"""Is told what is about to be tried."""

_ADAM_BYTES = 8
"""Two float32 moments for each trained parameter, made in the first real step."""
_MOST_STEPS = 3.0
"""Steps on the longest batch that everything together may cost."""
_OF_SCORING = 1 / 3
"""What a scoring costs in such steps."""
_SCRATCH = ".preflight."


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
    seconds, taken = _try_steps(trial, plan, use, free, show, scores=scores)
    if use.denied is not None:
        emit_message(f"memory is not checked, as the system does not say what is used: {use.denied}", level="warning")
    moments = plan.trained_parameters * _ADAM_BYTES
    show("a save")
    checkpoint = _size_of_save(trial, plan) + moments
    disk = (free_disk or _free_disk)(plan.folder)
    refuse_disk(plan, checkpoint, disk)
    return Findings(
        seconds_per_step=seconds * plan.accumulation,
        memory_bytes=None if taken is None else taken + moments,
        free_memory_bytes=free,
        checkpoint_bytes=checkpoint,
        free_disk_bytes=disk,
    )


def _try_steps(
    trial: Trial, plan: Plan, use: MemoryUse, free: int | None, show: Show, *, scores: bool
) -> tuple[float, int | None]:
    """Seconds of a step on rows of middling length, and the bytes that one on the longest rows takes."""
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
        raise too_much(plan, max(1, plan.rows // 2), "the longest batch does not fit into memory") from None
    finally:
        trial.forget()
    return seconds * plan.middling_share if middling is None else middling, taken


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
    if taken is None or taken * -(-plan.rows // few) + moments <= int(free * SAFE_SHARE):
        return
    per_row, fixed = taken // few, 0
    if plan.rows > plan.parts:
        more = 2 * few if 2 * few < plan.rows else few + 1
        steps.take(more)
        per_row = max(0, (steps.taken() or 0) - taken) // (more - few)
        fixed = max(0, taken - few * per_row)
    refuse_memory(plan, free, per_row, fixed + moments)


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
