"""Creating, finding and listing experiments."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Annotated, Any

import msgspec

from tunesmith.errors import Conflict, InvalidInput, NotFound
from tunesmith.journal import Entry, Journal
from tunesmith.recipes.notes import check_notes
from tunesmith.records import Clock, Experiment, ProjectStatus, new_id

_LONGEST_KEY = 255

Name = Annotated[str, msgspec.Meta(max_length=500)]
Text = Annotated[str, msgspec.Meta(max_length=20_000)]


class ProjectSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of an experiment's being a project."""

    status: ProjectStatus = ProjectStatus.ACTIVE


class ExperimentSummary(msgspec.Struct, frozen=True):
    """What is kept in memory of every experiment."""

    name: str
    owner: str = ""
    tags: tuple[str, ...] = ()
    idempotency_key: str | None = None
    project: ProjectSummary | None = None


class ExperimentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An experiment as a client asks for it."""

    name: Name
    task_type: Name
    goal: Text = ""
    version: Name = ""
    base_model: Text = ""
    owner: Name = ""
    param_config: dict[str, Any] = {}
    tags: Annotated[tuple[Name, ...], msgspec.Meta(max_length=100)] = ()


class ExperimentPage(msgspec.Struct, frozen=True):
    """Newest first; ``cursor`` is None on the last page."""

    experiments: list[Experiment]
    cursor: str | None


class ExperimentService:
    """All experiments."""

    def __init__(self, journal: Journal[Experiment, ExperimentSummary], clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._order = list(journal.summaries)
        self._by_key: dict[str, str] = {
            summary.idempotency_key: experiment_id
            for experiment_id, summary in journal.summaries.items()
            if summary.idempotency_key is not None
        }
        self._creating: dict[str, asyncio.Future[Experiment]] = {}
        journal.on_commit(self._committed)

    def _committed(self, _entry: Entry, experiment: Experiment, previous: ExperimentSummary | None) -> None:
        if previous is None:
            self._order.append(experiment.id)
        if experiment.idempotency_key is not None:
            self._by_key[experiment.idempotency_key] = experiment.id

    async def create(self, request: ExperimentRequest, idempotency_key: str | None = None) -> tuple[Experiment, bool]:
        """A new experiment, or the one that the same request created before; says whether it is new.

        Raises:
            InvalidInput: an empty name or task type, notes that no reader could take, or an unusable idempotency key.
            Conflict: the key was used with another request.
        """
        _check(request)
        if idempotency_key is None:
            return await self._append(request, None, None), True
        if not 0 < len(idempotency_key) <= _LONGEST_KEY:
            raise InvalidInput(
                f"must have 1 to {_LONGEST_KEY} characters", where="Idempotency-Key", mend="a UUID will do"
            )
        digest = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
        earlier = await self._earlier(idempotency_key)
        if earlier is None:
            return await self._append_once(request, idempotency_key, digest), True
        if earlier.request_sha256 != digest:
            raise Conflict(
                f"this key already created {earlier.id} from another request",
                where="Idempotency-Key",
                mend="use a new key for a new experiment",
            )
        return earlier, False

    async def _earlier(self, key: str) -> Experiment | None:
        while key in self._creating:
            # The same request is on its way to the disk: wait for it instead of making a second one.
            await asyncio.wait([self._creating[key]])
        return self.get(self._by_key[key]) if key in self._by_key else None

    async def _append_once(self, request: ExperimentRequest, key: str, digest: str) -> Experiment:
        self._creating[key] = asyncio.get_running_loop().create_future()
        try:
            return await self._append(request, key, digest)
        finally:
            self._creating.pop(key).cancel()

    async def _append(self, request: ExperimentRequest, key: str | None, digest: str | None) -> Experiment:
        experiment = Experiment(
            id=new_id("exp"),
            name=request.name,
            task_type=request.task_type,
            created_at=self._clock(),
            goal=request.goal,
            version=request.version,
            base_model=request.base_model,
            owner=request.owner,
            param_config=request.param_config,
            tags=request.tags,
            idempotency_key=key,
            request_sha256=digest,
        )
        await self._journal.append("created", experiment)
        return experiment

    def get(self, experiment_id: str) -> Experiment:
        """Raises NotFound."""
        experiment = self._journal.get(experiment_id)
        if experiment is None:
            raise NotFound(f"there is no experiment {experiment_id!r}", mend="GET /v1/experiments lists them")
        return experiment

    def for_new_run(self, experiment_id: str) -> Experiment:
        """One that takes runs.

        Raises:
            NotFound: there is none.
            Conflict: it is a project that was archived.
        """
        experiment = self.get(experiment_id)
        if experiment.project is not None and experiment.project.status is ProjectStatus.ARCHIVED:
            raise Conflict(
                f"project {experiment.name!r} is archived and takes no new runs",
                where="status",
                mend=f'PATCH /api/projects/{experiment_id} with {{"status": "active"}} takes it up again',
            )
        return experiment

    def __contains__(self, experiment_id: str) -> bool:
        return experiment_id in self._journal

    def history(self, experiment_id: str) -> list[Entry]:
        return self._journal.history(experiment_id)

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        name: str | None = None,
        tag: str | None = None,
        owner: str | None = None,
    ) -> ExperimentPage:
        """Up to ``limit`` experiments, newest first. A cursor stays valid for ever: experiments are never removed."""
        before = int(cursor) if cursor is not None and cursor.isdecimal() else len(self._order)
        found: list[str] = []
        for position in range(min(before, len(self._order)) - 1, -1, -1):
            summary = self._journal.summaries[self._order[position]]
            if name not in (None, summary.name):
                continue
            if (tag is None or tag in summary.tags) and (owner is None or owner == summary.owner):
                if len(found) == limit:
                    return ExperimentPage([self.get(item) for item in found], str(position + 1))
                found.append(self._order[position])
        return ExperimentPage([self.get(item) for item in found], None)


def _check(request: ExperimentRequest) -> None:
    for field in ("name", "task_type"):
        if not getattr(request, field).strip():
            raise InvalidInput("must not be empty", where=field, mend="give it some text")
    if request.param_config:
        check_notes(request.param_config, "param_config", instead="keep large notes in a file and name the file")
