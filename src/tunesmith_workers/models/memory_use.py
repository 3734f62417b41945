"""How much memory this process takes together with its forked workers, and how much is free.

Containers may deny what /proc says about either. Then nothing is known, which is no reason not to train.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import torch

from tunesmith_workers.models.cgroup_memory import free_in_cgroups


class MemoryUse:
    """Bytes in use, on the accelerator if there is one. Every answer is None where the system denies it."""

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._proc = proc
        self._cgroups = cgroups
        self.denied: str | None = None
        """What was denied first, and why."""

    def now(self) -> int | None:
        """In use at this moment."""
        return self._asked(
            torch.cuda.memory_allocated if _on_cuda() else lambda: self._status("VmRSS") + self._of_workers()
        )

    def begin_peak(self) -> None:
        """From now on, ``peak`` begins anew from what is in use now."""
        self._asked(torch.cuda.reset_peak_memory_stats if _on_cuda() else self._forget_peak)

    def peak(self) -> int | None:
        """The most that was in use since ``begin_peak``. Workers keep what they got, so theirs is what they hold now."""
        return self._asked(
            torch.cuda.max_memory_allocated if _on_cuda() else lambda: self._status("VmHWM") + self._of_workers()
        )

    def free(self) -> int | None:
        """What can be taken: of the first accelerator, or of the machine and the limits that are set on it."""
        return self._asked(lambda: int(torch.cuda.mem_get_info()[0]) if _on_cuda() else self._available())

    def _asked(self, question: Callable[[], int | None]) -> int | None:
        """None once anything was denied: a peak without its beginning says nothing."""
        if self.denied is not None:
            return None
        try:
            return question()
        except (OSError, LookupError, ValueError) as error:
            self.denied = str(error)
            return None

    def _forget_peak(self) -> None:
        (self._proc / "self" / "clear_refs").write_text("5", encoding="ascii")

    def _status(self, name: str) -> int:
        return _kilobytes(self._proc / "self" / "status", name)

    def _available(self) -> int:
        of_machine = _kilobytes(self._proc / "meminfo", "MemAvailable")
        of_limits = free_in_cgroups(self._proc, self._cgroups)
        return of_machine if of_limits is None else min(of_machine, of_limits)

    def _of_workers(self) -> int:
        """What processes started by this one hold for themselves alone."""
        files = [self._proc / str(child.pid) / "smaps_rollup" for child in multiprocessing.active_children()]
        lines = [line for file in files for line in file.read_text(encoding="ascii").splitlines()]
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def free_memory_now() -> int | None:
    """Bytes that can be taken at this moment; None where the system denies to say."""
    return MemoryUse().free()


def _on_cuda() -> bool:
    return torch.cuda.is_available()


def _kilobytes(file: Path, name: str) -> int:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"{file} does not say {name}")
