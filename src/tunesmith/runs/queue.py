"""The runs that wait, in the order in which they start: the larger priority first, then the older. Starts nothing.

Each kind of slot has an order of its own, so that whoever fills slots looks at the first of a kind and not at all of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from heapq import heapify, heappop, heappush
from itertools import count
from typing import NamedTuple

from tunesmith.records import Run
from tunesmith.runner import Demand

_MOST_LEFT_BEHIND = 100
"""So many places, and one for each run that waits, may be of runs that do not wait any more."""


class Place(NamedTuple):
    """A run's place in the order, by these fields from the first to the last; no two have the same number."""

    reversed_priority: int
    created_at: datetime
    number: int
    run: Run
    demand: Demand

    @property
    def on_gpu(self) -> bool:
        """Its kind of slot."""
        return bool(self.demand.gpus)


class RunQueue:
    """Queued runs by id. One that was removed leaves its place in the order; it is passed over, or cleared away with others."""

    def __init__(self) -> None:
        self._runs: dict[str, int] = {}
        """The number of the place that counts; that of an earlier time in the queue does not."""
        self._order: dict[bool, list[Place]] = {False: [], True: []}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._runs)

    def add(self, run: Run, demand: Demand, *, startable: bool) -> None:
        """Take it in, or take it in anew. One that is not startable is counted, and is never first."""
        place = Place(-run.priority, run.created_at, next(self._numbers), run, demand)
        self._runs[run.id] = place.number
        if startable:
            heappush(self._order[place.on_gpu], place)

    def remove(self, run_id: str) -> None:
        self._runs.pop(run_id, None)
        if sum(map(len, self._order.values())) > 2 * len(self._runs) + _MOST_LEFT_BEHIND:
            for order in self._order.values():
                order[:] = filter(self._counts, order)
                heapify(order)

    def first(self, kinds: Collection[bool]) -> Place | None:
        """The first of these kinds: on a GPU, or not."""
        return min((order[0] for kind in kinds if (order := self._sound(kind))), default=None)

    def set_aside(self, place: Place) -> None:
        """Let the next one be first; it has to be the first of its kind."""
        heappop(self._order[place.on_gpu])

    def put_back(self, places: Iterable[Place]) -> None:
        for place in places:
            heappush(self._order[place.on_gpu], place)

    def _sound(self, kind: bool) -> list[Place]:  # noqa: FBT001  # the key of a table
        order = self._order[kind]
        while order and not self._counts(order[0]):
            heappop(order)
        return order

    def _counts(self, place: Place) -> bool:
        return self._runs.get(place.run.id) == place.number
