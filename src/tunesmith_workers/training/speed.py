"""How fast a training is, between two of its log lines."""

from __future__ import annotations

import time


class Speed:
    """Counts what went through between two log lines, and the time it took without pauses."""

    def __init__(self) -> None:
        self.rows = self.tokens = self.steps = self.trained = self.trained_in_step = 0
        self._began = time.monotonic()

    def pause(self, seconds: float) -> None:
        """Leave out time that was not spent training."""
        self._began += seconds

    def restart(self) -> None:
        """Begin to count anew; trained tokens go on."""
        self._began = time.monotonic()
        self.rows = self.tokens = self.steps = 0

    def since_last(self) -> dict[str, float]:
        """Rows and tokens per second since the last time, and all trained tokens so far."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        found = {
            "tokens_per_second": round(self.tokens / seconds, 1),
            "samples_per_second": round(self.rows / seconds, 3),
            "trained_tokens": self.trained,
        }
        self.restart()
        return found
