"""Keeping the record of checkpoints up with what runs write, and their bytes within the budget. A run never fails by it."""

from __future__ import annotations

import structlog

from tunesmith.checkpoints.book import CheckpointBook
from tunesmith.checkpoints.retention import Retention
from tunesmith.errors import TunesmithError
from tunesmith.files import raise_shortage
from tunesmith.records import Run

_log = structlog.get_logger()


class CheckpointKeeper:
    """Notes what a run has written."""

    def __init__(self, book: CheckpointBook, retention: Retention) -> None:
        self._book = book
        self._retention = retention

    async def note(self, run: Run) -> str | None:
        """Look at the run's folder; answers the path of its newest complete checkpoint.

        Raises:
            OSError: descriptors or memory are short.
        """
        try:
            await self._book.reconcile(run.id, run.experiment_id)
            await self._retention.make_room()
        except (TunesmithError, OSError) as error:
            if isinstance(error, OSError):
                raise_shortage(error)
            _log.warning("checkpoints_not_noted", run_id=run.id, reason=str(error))
        newest = self._book.newest_of(run.id)
        return newest.path if newest is not None else None
