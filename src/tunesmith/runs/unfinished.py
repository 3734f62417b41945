"""Every run that is not over, those among them that are just being created: who deletes what runs use has to know both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tunesmith.records import Run
from tunesmith.runs.book import RunBook


class UnfinishedRuns:
    """Those on record, and those on their way to it."""

    def __init__(self, book: RunBook) -> None:
        self._book = book
        self._creating: dict[str, Run] = {}
        """Runs on their way to the disk."""
        self._models: dict[str, Sequence[str]] = {}
        """The paths of the models that they use, by run: their configs may not be written yet."""

    @contextmanager
    def being_created(self, run: Run, models: Sequence[str] = ()) -> Iterator[None]:
        """While this is entered, the run counts, though it is not on record yet. ``models`` are the paths of those it uses."""
        self._creating[run.id] = run
        self._models[run.id] = models
        try:
            yield
        finally:
            del self._creating[run.id]
            del self._models[run.id]

    def all(self) -> list[Run]:
        """Every run that is not final, those among them that are just being created."""
        return [*self._creating.values(), *self._book.unfinished()]

    def models_in_creation(self) -> dict[str, Sequence[str]]:
        """The paths of the models that runs use which are just being created, by run. What others use is in their configs."""
        return dict(self._models)

    def checkpoints(self) -> Iterator[str]:
        """Checkpoints that a run under way, in the queue or being created starts from or uses."""
        for run in self.all():
            yield from run.checkpoints_used
            yield from (path for path in (run.resume_from, run.model) if path is not None)  # all that older records say
