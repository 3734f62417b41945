"""Creating, finding and listing experiments."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

import msgspec

from tunesmith.errors import Conflict, InvalidInput, NotFound
from tunesmith.journal import Entry, Journal, newest_first, page_of
from tunesmith.recipes.notes import check_notes
from tunesmith.records import Clock, Experiment, IdempotentCall, ProjectStatus, new_id

SCOPE = "experiments"
"""Of the idempotency keys of calls that create experiments."""

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
    request_sha256: str | None = None
    idempotency: IdempotentCall | None = None
    project: ProjectSummary | None = None

    @property
    def calls(self) -> tuple[IdempotentCall, ...]:
        """The call that made it, also as older records have it."""
        if self.idempotency is not None:
            return (self.idempotency,)
        if self.idempotency_key is None or self.request_sha256 is None:
            return ()
        return (IdempotentCall(scope=SCOPE, key=self.idempotency_key, request_sha256=self.request_sha256),)


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
        journal.on_commit(self._committed)

    def _committed(self, _entry: Entry, experiment: Experiment, previous: ExperimentSummary | None) -> None:
        if previous is None:
            self._order.append(experiment.id)

    async def create(self, request: ExperimentRequest, idempotency: IdempotentCall | None = None) -> Experiment:
        """A new experiment.

        Raises:
            InvalidInput: an empty name or task type, or notes that no reader could take.
        """
        _check(request)
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
            idempotency=idempotency,
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
        names: Collection[str] = (),
        tags: Collection[str] = (),
        owners: Collection[str] = (),
    ) -> ExperimentPage:
        """Up to ``limit`` experiments, newest first. A cursor stays valid for ever: experiments are never removed.

        A filter lets any of its values through; an empty one everything.
        """
        page = page_of(
            self._journal,
            self._order,
            newest_first(self._order, cursor),
            limit=limit,
            keep=lambda one: (
                (not names or one.name in names)
                and (not tags or any(tag in tags for tag in one.tags))
                and (not owners or one.owner in owners)
            ),
        )
        return ExperimentPage([self.get(item) for item in page.ids], page.cursor)


def _check(request: ExperimentRequest) -> None:
    for field in ("name", "task_type"):
        if not getattr(request, field).strip():
            raise InvalidInput("must not be empty", where=field, mend="give it some text")
    if request.param_config:
        check_notes(request.param_config, "param_config", instead="keep large notes in a file and name the file")
