"""The runs on record: lookups, pages, legal moves, and waiting for a change. Starts nothing; see ``scheduler``."""

from __future__ import annotations

import asyncio
import heapq
from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterator
from itertools import islice
from typing import Any

import msgspec

from tunesmith.errors import Conflict, NotFound
from tunesmith.journal import Entry, Journal, newest_first, page_of, position_before
from tunesmith.records import LEGAL_MOVES, Callback, IdempotentCall, Run, RunKind, RunState


class TaskSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of a run's labels."""

    task_id: str | None = None
    publish_to: str | None = None
    openai_job: str | None = msgspec.field(default=None, name="openai.job")
    openai_pairs: str | None = msgspec.field(default=None, name="openai.pairs")


class RunSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every run."""

    state: RunState
    recipe: str
    kind: RunKind
    experiment_id: str | None = None
    priority: int = 0
    callback: Callback | None = None
    webhook: bool = False
    labels: TaskSummary = TaskSummary()
    finetune_task: TaskSummary | None = None
    """Where lines have the task that were written before there were labels."""
    idempotency: IdempotentCall | None = None

    @property
    def task_id(self) -> str | None:
        return self.labels.task_id if self.finetune_task is None else self.finetune_task.task_id


RunJournal = Journal[Run, RunSummary]


class RunPage(msgspec.Struct, frozen=True):
    """Newest first; ``cursor`` is None on the last page."""

    runs: list[Run]
    cursor: str | None


class RunBook:
    """All runs, and the only way to change one."""

    def __init__(self, journal: RunJournal, *, webhook: bool = False) -> None:
        """``webhook`` is whether the ends of runs are told to the address in the settings."""
        self._journal = journal
        self._webhook = webhook
        self._order: list[str] = []
        self._by_experiment: defaultdict[str, list[int]] = defaultdict(list)
        self._by_task: dict[str, str] = {}
        self._places: dict[str, int] = {}
        """Where each run is in the order."""
        self._counts = dict.fromkeys(RunState, 0)
        self._live: dict[str, Run] = {}
        """Runs that are not final, decoded: these are asked for all the time."""
        self._locks: dict[str, asyncio.Lock] = {}
        self._changed: dict[str, asyncio.Event] = {}
        for run_id, summary in journal.summaries.items():
            self._index(run_id, summary)
            self._counts[summary.state] += 1
            if not summary.state.final:
                self._live[run_id] = self._stored(run_id)
        journal.on_commit(self._committed)

    def _index(self, run_id: str, summary: RunSummary) -> None:
        if summary.experiment_id is not None:
            self._by_experiment[summary.experiment_id].append(len(self._order))
        if summary.task_id is not None:
            self._by_task.setdefault(summary.task_id, run_id)
        self._places[run_id] = len(self._order)
        self._order.append(run_id)

    def _stored(self, run_id: str) -> Run:
        run = self._journal.get(run_id)
        assert run is not None
        return run

    def _committed(self, _entry: Entry, run: Run, previous: RunSummary | None) -> None:
        if previous is None:
            self._index(run.id, self._journal.summaries[run.id])
        else:
            self._counts[previous.state] -= 1
        self._counts[run.state] += 1
        if run.state.final:
            self._live.pop(run.id, None)
            self._locks.pop(run.id, None)
        else:
            self._live[run.id] = run
        changed = self._changed.pop(run.id, None)
        if changed is not None:
            changed.set()

    def of_task(self, task_id: str) -> Run | None:
        """The run that has this task as its label."""
        run_id = self._by_task.get(task_id)
        return self.get(run_id) if run_id is not None else None

    def get(self, run_id: str) -> Run:
        """Raises NotFound."""
        run = self._live.get(run_id) or self._journal.get(run_id)
        if run is None:
            raise NotFound(f"there is no run {run_id!r}", mend="GET /v1/runs lists them")
        return run

    def every(self, but: Container[str] = ()) -> Iterator[Run]:
        """All runs but these, each read when it is asked for; those with a task first. Also from threads."""
        summaries = self._journal.summaries
        for run_id in sorted(summaries, key=lambda one: summaries[one].task_id is None):
            if run_id not in but:
                yield self.get(run_id)

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._journal

    def unfinished(self) -> list[Run]:
        """Every run that is not final, oldest first."""
        return sorted(self._live.values(), key=lambda run: run.created_at)

    def summary_of(self, run_id: str) -> RunSummary:
        """What is known of a run without reading its record."""
        return self._journal.summaries[run_id]

    def told_of(self) -> dict[str, RunSummary]:
        """Every run that names a callback or has ended while ``webhook_url`` was set, by id, oldest first."""
        return {
            run_id: summary
            for run_id, summary in self._journal.summaries.items()
            if summary.webhook or summary.callback is not None
        }

    def with_promised_output(self) -> list[str]:
        """Every run that succeeded and whose output is promised somewhere, oldest first. Reads no record."""
        return [
            run_id
            for run_id, summary in self._journal.summaries.items()
            if summary.labels.publish_to is not None and summary.state is RunState.SUCCEEDED
        ]

    def trained(self, most: int) -> list[Run]:
        """The newest trainings that succeeded, at most so many, newest first. Also to be asked from threads."""
        summaries = self._journal.summaries
        found = (
            run_id
            for run_id in reversed(self._order)
            if (one := summaries[run_id]).state is RunState.SUCCEEDED and one.kind is RunKind.TRAIN
        )
        return [self.get(run_id) for run_id in islice(found, most)]

    def trained_after(self, run_id: str) -> Iterator[Run]:
        """The trainings that succeeded and were made after this run, newest first. Also to be asked from threads."""
        summaries = self._journal.summaries
        for other in reversed(self._order[self._places[run_id] + 1 :]):
            if (one := summaries[other]).state is RunState.SUCCEEDED and one.kind is RunKind.TRAIN:
                yield self.get(other)

    def succeeded_jobs(self) -> list[str]:
        """Every run of the OpenAI-shaped door that succeeded, oldest first. Reads no record."""
        return [
            run_id
            for run_id, summary in self._journal.summaries.items()
            if summary.labels.openai_job is not None and summary.state is RunState.SUCCEEDED
        ]

    def counts(self) -> dict[RunState, int]:
        return dict(self._counts)

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        states: Collection[RunState] = (),
        recipes: Collection[str] = (),
        kinds: Collection[RunKind] = (),
        experiment_ids: Collection[str] = (),
        id_prefix: str = "",
    ) -> RunPage:
        """Up to ``limit`` runs, newest first. A cursor stays valid for ever: runs are never removed.

        A filter lets any of its values through; an empty one everything.
        """
        positions = self._positions(cursor, experiment_ids)
        page = page_of(
            self._journal,
            self._order,
            (position for position in positions if self._order[position].startswith(id_prefix)),
            limit=limit,
            keep=lambda one: (
                (not states or one.state in states)
                and (not recipes or one.recipe in recipes)
                and (not kinds or one.kind in kinds)
            ),
        )
        return RunPage([self.get(run_id) for run_id in page.ids], page.cursor)

    def ids_before(self, run_id: str | None, keep: Callable[[RunSummary], bool]) -> Iterator[str]:
        """The runs on record before this one, or all of them, newest first, for which ``keep`` holds.

        Raises:
            NotFound: there is no such run.
        """
        place = len(self._order) if run_id is None else self._places.get(run_id, -1)
        if place < 0:
            raise NotFound(f"there is no run {run_id!r}")
        summaries = self._journal.summaries
        return (one for one in islice(reversed(self._order), len(self._order) - place, None) if keep(summaries[one]))

    def count_of(self, experiment_id: str) -> int:
        return len(self._by_experiment.get(experiment_id, ()))

    def _positions(self, cursor: str | None, experiment_ids: Collection[str]) -> Iterator[int]:
        if not experiment_ids:
            return iter(newest_first(self._order, cursor))
        before = position_before(self._order, cursor)
        of_each = (reversed(self._by_experiment.get(one, ())) for one in set(experiment_ids))
        return (position for position in heapq.merge(*of_each, reverse=True) if position < before)

    def history(self, run_id: str) -> list[tuple[Entry, Run]]:
        """Every change of the run, in order."""
        return [(entry, self._journal.record_of(entry)) for entry in self._journal.history(run_id)]

    def changes_of(self, run_id: str) -> int:
        """How long its history is. Reads nothing."""
        return self._journal.changes_of(run_id)

    async def add(self, run: Run) -> Run:
        await self._journal.append("created", run)
        return run

    async def move(self, run_id: str, state: RunState, *, only_from: RunState | None = None, **changes: Any) -> Run:
        """Put the run into another state, with other fields changed in the same record.

        ``only_from`` is for whoever decided by its state: it may have changed before this gets its turn.

        Raises:
            Conflict: the table of legal moves does not have it, or the run is not in that state any more.
        """
        async with self._locks.setdefault(run_id, asyncio.Lock()):
            run = self.get(run_id)
            if state not in LEGAL_MOVES[run.state] or only_from not in (None, run.state):
                raise Conflict(f"run {run_id} is {run.state}: it cannot become {state}")
            if state.final:
                changes["webhook"] = self._webhook
            moved = msgspec.structs.replace(run, state=state, **changes)
            await self._journal.append(str(state), moved)
            return moved

    async def wait(self, run_id: str, until: Callable[[Run], bool]) -> Run:
        """Return the run as soon as ``until`` is true of it."""
        while not until(run := self.get(run_id)):
            await self._changed.setdefault(run_id, asyncio.Event()).wait()
        return run

    async def wait_until_over(self, run_id: str) -> Run:
        """Return the run as soon as it is final."""
        return await self.wait(run_id, lambda run: run.state.final)
