"""Asks the requests of one batch, some side by side, until each has its line. What has none when this is cancelled has no line.

A full queue and a model that cannot be served are waited for. A request at which engines break again and again is asked alone
at last, so that none that was under way beside it is blamed, and then given up.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
import structlog

from tunesmith.errors import Busy, Forbidden, MissingReference, TunesmithError, Unavailable
from tunesmith.files import NO_ROOM
from tunesmith.openai.batches.lines import Answer, LineFiles, answered, not_asked
from tunesmith.openai.batches.readiness import Readiness
from tunesmith.openai.batches.reading import Request, read_request
from tunesmith.openai.batches.turns import Turns

_log = structlog.get_logger()
MOST_AT_ONCE = 16
"""Requests of all batches together: engines answer people beside them."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
_NO_ROOM_PAUSE = 5.0
_MOST_BREAKS_BESIDE_OTHERS = 2
_MOST_BREAKS_ALONE = 4
_ASK_LATER = (429, 503)
_MODEL = "model"
"""What errors are about that say that a model cannot be served, whatever is asked."""


class Models(Protocol):
    """What models are asked through."""

    async def known(self, name: str) -> object:
        """Raises MissingReference or Forbidden: requests cannot name it."""
        ...

    async def prepare(self, name: str) -> object:
        """Return once it is served. Raises as ``ask``."""
        ...

    async def ask(self, name: str, fields: Mapping[str, Any]) -> Answer:
        """What its engine answers, good or bad.

        Raises:
            MissingReference: there is no such model.
            Unavailable: it cannot be served, or its engine broke.
        """
        ...


class Asker:
    """Answers one batch."""

    def __init__(
        self,
        batch_id: str,
        path: Path,
        lines: LineFiles,
        models: Models,
        readiness: Readiness,
        turns: Turns,
        disk: anyio.CapacityLimiter,
    ) -> None:
        """``path`` is the file of requests, ``disk`` how many threads may read and write files."""
        self._batch_id = batch_id
        self._path = path
        self._lines = lines
        self._models = models
        self._readiness = readiness
        self._turns = turns
        self._disk = disk

    async def run(self, pending: Mapping[str, array[int]]) -> None:
        """Return when each of these has its line: by model, where the lines of the requests begin.

        Raises:
            OSError: the requests cannot be read, or a line cannot be written.
        """
        try:
            async with anyio.create_task_group() as tasks:
                for model, places in pending.items():
                    tasks.start_soon(self._all_of, model, places)
        except ExceptionGroup as group:
            raise _first_in(group) from group

    async def _all_of(self, model: str, places: array[int]) -> None:
        suspects: list[int] = []
        following = iter(places)
        async with anyio.create_task_group() as tasks:
            for _ in range(min(MOST_AT_ONCE, len(places))):
                tasks.start_soon(self._some_of, model, following, suspects)
        for place in suspects:
            if not await self._answer(model, place, _MOST_BREAKS_ALONE):
                await self._keep(await self._given_up(place))

    async def _some_of(self, model: str, places: Iterator[int], suspects: list[int]) -> None:
        for place in places:
            has_line = await self._answer(model, place, _MOST_BREAKS_BESIDE_OTHERS)
            if not has_line:
                suspects.append(place)

    async def _answer(self, model: str, place: int, most_breaks: int) -> bool:
        """Whether it has its line now. Otherwise engines broke at it so many times."""
        pause, breaks = _FIRST_PAUSE, 0
        while breaks < most_breaks:
            await self._readiness.wait(model)
            try:
                async with self._turns.turn(self._batch_id):
                    line = await self._asked(model, await self._read(place))
            except Busy:
                await anyio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except Unavailable as error:
                self._readiness.doubt(model, error)
                breaks += error.where != _MODEL
            else:
                await self._keep(line)
                return True
        return False

    async def _asked(self, model: str, request: Request) -> bytes:
        """Its line. Raises Busy and Unavailable."""
        if bytes(request.fields.get("stream", b"")) == b"true":
            return not_asked(request.custom_id, "invalid_request", "body.stream: a batch has no streams; leave it out")
        try:
            answer = await self._models.ask(model, request.fields)
        except (Busy, Unavailable):
            raise
        except TunesmithError as error:
            return not_asked(request.custom_id, _code_of(error), str(error))
        self._readiness.confirm(model)
        if answer.status in _ASK_LATER:
            raise Busy(f"the engine answers {answer.status}")
        return answered(request.custom_id, answer)

    async def _given_up(self, place: int) -> bytes:
        told = (
            f"its engine broke {_MOST_BREAKS_BESIDE_OTHERS + _MOST_BREAKS_ALONE} times while it answered this request"
        )
        return not_asked((await self._read(place)).custom_id, "server_error", told)

    async def _read(self, place: int) -> Request:
        return await anyio.to_thread.run_sync(read_request, self._path, place, limiter=self._disk)

    async def _keep(self, line: bytes) -> None:
        """On a full disk, once there is room."""
        while True:
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._lines.append, line, limiter=self._disk)
                return
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                _log.warning("batch_waits_for_room", batch_id=self._batch_id, reason=error.strerror)
                await anyio.sleep(_NO_ROOM_PAUSE)


def _code_of(error: TunesmithError) -> str:
    if isinstance(error, MissingReference):
        return "model_not_found"
    return "permission_denied" if isinstance(error, Forbidden) else "invalid_request"


def _first_in(group: ExceptionGroup[Exception]) -> Exception:
    first = group.exceptions[0]
    return _first_in(first) if isinstance(first, ExceptionGroup) else first
