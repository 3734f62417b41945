"""Who hears first of what a run's process printed: the reporter, and then whoever keeps the record of checkpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tunesmith.records import Progress, Run
from tunesmith.reporting.reporter import Reporter
from tunesmith.runs import RunBook
from tunesmith.runs.fold import Event


class RunListener:
    """Passes on what live runs read."""

    def __init__(self, reporter: Reporter, book: RunBook, note_checkpoints: Callable[[Run], Awaitable[object]]) -> None:
        self._reporter = reporter
        self._book = book
        self._note_checkpoints = note_checkpoints

    async def heard(self, run_id: str, events: tuple[Event, ...], before: Progress) -> None:
        """What was printed; ``before`` is the run's progress before it. Raises what makes it have to be heard again."""
        await self._reporter.heard(run_id, events, before)
        if any(event.kind == "checkpoint" for event in events):
            await self._note_checkpoints(self._book.get(run_id))
