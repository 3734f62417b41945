"""How far an evaluation is, over all models and all that is done with each row. Prints at most once a second."""

from __future__ import annotations

import time
from collections.abc import Callable

from tunesmith_workers.process.events import Paced, emit


class Progress:
    """Counts rows, each once for everything that is done with it."""

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._clock = clock
        self._paced = Paced(clock)
        self._done = 0
        self._done_before = 0
        self._spent = 0.0
        self._since = clock()
        self._part = ""

    def load(self, part: str) -> None:
        """A model is about to be loaded, which is no measure of how long rows take."""
        self._spend()
        emit("progress", phase="loading_model", part=part, step=self._done, total_steps=self._total)

    def begin(self, part: str) -> None:
        """The work on rows begins, or another kind of it does."""
        self._part = part
        self._done_before = self._done
        self._since = self._clock()
        self._emit()
        self._paced.restart()

    def done(self, rows: int) -> None:
        """So many rows of the current part are done."""
        self._done = min(self._done_before + rows, self._total)
        self._paced.emit("progress", **self._fields())

    def end(self, rows: int) -> None:
        """The current part is over; all of its ``rows`` count as done, those that were left out, too."""
        self._done = min(self._done_before + rows, self._total)
        self._spend()
        self._emit()

    def _spend(self) -> None:
        now = self._clock()
        self._spent, self._since = self._spent + now - self._since, now

    def _emit(self) -> None:
        emit("progress", **self._fields())

    def _fields(self) -> dict[str, object]:
        spent = self._spent + self._clock() - self._since
        left = round(spent * (self._total - self._done) / self._done, 1) if self._done else None
        return {
            "phase": "evaluating",
            "part": self._part,
            "step": self._done,
            "total_steps": self._total,
            "eta_seconds": left,
        }
