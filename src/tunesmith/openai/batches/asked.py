"""Which models the batches name that have requests to ask, for who wants to delete a model. What a name stands for is decided there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

from tunesmith.errors import NotFound
from tunesmith.openai.batches.book import BatchBook
from tunesmith.openai.batches.reading import read_input
from tunesmith.records import Batch

_MOST_READ = 20


class AskedModels:
    """Reads the files of batches of which that is not known yet, some of them."""

    def __init__(self, book: BatchBook, path_of: Callable[[str], Path]) -> None:
        self._book = book
        self._path_of = path_of
        self._reads = anyio.CapacityLimiter(1)

    async def by_batch(self) -> dict[str, Sequence[str] | None]:
        """By batch the names that its requests give to models; None where too many others had to be read before it."""
        read = 0
        found: dict[str, Sequence[str] | None] = {}
        for batch in self._book.asking():
            names = self._book.models_of(batch)
            if names is None and read < _MOST_READ:
                read += 1
                names = await self._read(batch)
                self._book.note_models(batch.id, names)
            found[batch.id] = names
        return found

    async def _read(self, batch: Batch) -> Sequence[str]:
        """None of a file that cannot be read: the batch will fail."""
        try:
            path = self._path_of(batch.input_upload)
            reading = await anyio.to_thread.run_sync(read_input, path, batch.endpoint, limiter=self._reads)
        except (OSError, NotFound):
            return ()
        return tuple(reading.first_lines)
