"""How long a run has still to go, from when it said how many steps it had done.

A step is judged by many: batches differ, the first step is slow, and every now and then there is a scoring or a
checkpoint, which will come again. What comes before the steps (loading, a preflight) does not count. No clock of its own.
"""

from __future__ import annotations

_BEFORE_STEPS = frozenset({"loading_model", "tokenizing", "preflight"})
"""Phases of ours after which the steps begin anew."""
_LEAST_STEPS = 20
"""The latest half of all steps counts, and at least so many: a machine may become faster or slower."""
_MOST_KEPT = 512


class TimeLeft:
    """The estimate for one run."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, int]] = []
        """(unix time, step): when each step was first heard of, the first and the last always among them."""
        self._told: tuple[float, int] | None = None
        """(seconds, step): what the process itself expected there."""

    def take(self, at: float, *, phase: str | None, step: int | None, told: float | None) -> None:
        """The process said at unix time ``at`` that it is in ``phase``, has done ``step`` steps and expects ``told`` seconds."""
        if phase in _BEFORE_STEPS:
            self._seen.clear()
            return
        if step is None:
            return
        if told is not None:
            self._told = (told, step)
        if self._seen and (step < self._seen[-1][1] or at < self._seen[-1][0]):
            self._seen.clear()  # another attempt, or another clock
        if not self._seen or step > self._seen[-1][1]:
            self._seen.append((at, step))
        if len(self._seen) > _MOST_KEPT:
            del self._seen[1:-1:2]

    def seconds(self, total: int | None) -> float | None:
        """Until step ``total`` is done; None when there is nothing to tell it from."""
        if total is None or not self._seen:
            return None
        last_at, last = self._seen[-1]
        told = self._told_at(last, total)
        if told is not None and len(self._seen) < 3:  # the first step of all is no measure
            return told
        first_at, first = self._window(last)
        if last <= first or last_at <= first_at:
            return told
        return round(max(0, total - last) * (last_at - first_at) / (last - first), 1)

    def _window(self, last: int) -> tuple[float, int]:
        counted = self._seen[1:] if len(self._seen) > 2 else self._seen
        wanted = min(last - _LEAST_STEPS, (counted[0][1] + last) // 2)
        return next((seen for seen in reversed(counted) if seen[1] <= wanted), counted[0])

    def _told_at(self, step: int, total: int) -> float | None:
        """What the process expected, less what was done since."""
        if self._told is None:
            return None
        seconds, told_at = self._told
        return round(seconds * max(0, total - step) / max(1, total - told_at), 3)
