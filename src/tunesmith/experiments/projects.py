"""Projects: experiments that name the files their runs start from. Found by id or name, changed, archived.

They are records of the same journal as other experiments. What their names stand for is looked up in ``resources``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Annotated, Any

import msgspec

from tunesmith.errors import Conflict, Fault, InvalidInput, NotFound
from tunesmith.experiments.resources import name_fault
from tunesmith.experiments.service import ExperimentSummary
from tunesmith.journal import Entry, Journal, newest_first, page_of
from tunesmith.recipes.suggest import nearest
from tunesmith.records import Clock, Experiment, IdempotentCall, Project, ProjectStatus, new_id

_MOST_COMPARED = 500
"""Comparing names takes time: a wrong one is compared with the latest."""

Name = Annotated[str, msgspec.Meta(max_length=500)]
Text = Annotated[str, msgspec.Meta(max_length=20_000)]
Tags = Annotated[tuple[Name, ...], msgspec.Meta(max_length=100)]


class ProjectRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A project as a client asks for it."""

    name: Name
    dataset_name: Name
    """An upload's name, a dataset's id or name, or a file below ``datasets/`` of the training folder."""
    training_yaml_name: Name
    """The name of a dataset's train config, or a file below ``configs/`` of the training folder."""
    description: Text = ""
    owner: Name = ""
    tags: Tags = ()


class ProjectChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be changed; a field that is not sent stays as it is."""

    description: Text | msgspec.UnsetType = msgspec.UNSET
    owner: Name | msgspec.UnsetType = msgspec.UNSET
    tags: Tags | msgspec.UnsetType = msgspec.UNSET
    status: ProjectStatus | msgspec.UnsetType = msgspec.UNSET


class ProjectPage(msgspec.Struct, frozen=True):
    """Newest first; ``cursor`` is None on the last page."""

    projects: list[Experiment]
    cursor: str | None


class ProjectBook:
    """All projects, the archived ones among them."""

    def __init__(self, journal: Journal[Experiment, ExperimentSummary], clock: Clock) -> None:
        self._journal = journal
        self._clock = clock
        self._order: list[str] = []
        self._by_name: dict[str, dict[str, None]] = {}
        """Every project that goes by a name, oldest first; at most one of them is active."""
        self._lock = asyncio.Lock()
        """Held while a name is taken: two at once must not both find it free."""
        for project_id, summary in journal.summaries.items():
            self._index(project_id, summary)
        journal.on_commit(self._committed)

    def _index(self, project_id: str, summary: ExperimentSummary) -> None:
        same_name = self._by_name.setdefault(summary.name, {}) if summary.project is not None else {}
        if summary.project is not None and project_id not in same_name:
            same_name[project_id] = None
            self._order.append(project_id)

    def _committed(self, _entry: Entry, experiment: Experiment, _previous: ExperimentSummary | None) -> None:
        self._index(experiment.id, self._journal.summaries[experiment.id])

    async def create(self, request: ProjectRequest, idempotency: IdempotentCall | None = None) -> Experiment:
        """A new, active project. Whether its files exist is checked when a run is started.

        Raises:
            InvalidInput: names that cannot be used, all at once.
            Conflict: an active project has the name.
        """
        _check(request)
        project = Experiment(
            id=new_id("exp"),
            name=request.name,
            task_type="",
            created_at=self._clock(),
            owner=request.owner,
            tags=request.tags,
            idempotency=idempotency,
            project=Project(
                dataset_name=request.dataset_name,
                training_yaml_name=request.training_yaml_name,
                description=request.description,
            ),
        )
        # Shielded, so that the next one sees what was written, also when whoever asked for it has gone.
        await asyncio.shield(self._add(project))
        return project

    async def _add(self, project: Experiment) -> None:
        async with self._lock:
            self._refuse_taken(project.name)
            await self._journal.append("created", project)

    async def change(self, ref: str, change: ProjectChange) -> Experiment:
        """Change what was sent.

        Raises:
            NotFound: no such project.
            Conflict: it is to become active again, and another active one has the name by now.
        """
        return await asyncio.shield(self._change(ref, change))

    async def _change(self, ref: str, change: ProjectChange) -> Experiment:
        async with self._lock:
            experiment, project = self.find(ref)
            changed = msgspec.structs.replace(
                experiment,
                project=msgspec.structs.replace(project, **_sent(change, "description", "status")),
                **_sent(change, "owner", "tags"),
            )
            if change.status is ProjectStatus.ACTIVE and project.status is not ProjectStatus.ACTIVE:
                self._refuse_taken(experiment.name)
            if changed != experiment:
                await self._journal.append("changed", changed)
            return changed

    def _refuse_taken(self, name: str) -> None:
        holder = self._active_named(name)
        if holder is not None or name in self._journal:
            raise Conflict(
                f"the name {name!r} belongs to project {holder or name}",
                where="name",
                mend="choose another, or archive that one",
            )

    def find(self, ref: str) -> tuple[Experiment, Project]:
        """A project by its id or name; of those with one name the active one, else the newest.

        Raises:
            NotFound: there is none.
        """
        project_id = ref if self._is_project(ref) else self._active_named(ref)
        if project_id is None:
            project_id = next(reversed(self._by_name.get(ref, {})), None)
        experiment = self._journal.get(project_id) if project_id is not None else None
        if experiment is None or experiment.project is None:
            close = nearest(ref, list(self._by_name)[-_MOST_COMPARED:])
            raise NotFound(
                f"there is no project {ref[:500]!r}",
                where="ref",
                mend=(f"did you mean {close}? " if close else "") + "GET /api/projects lists them",
            )
        return experiment, experiment.project

    def _is_project(self, ref: str) -> bool:
        summary = self._journal.summary(ref)
        return summary is not None and summary.project is not None

    def _active_named(self, name: str) -> str | None:
        return next((one for one in self._by_name.get(name, ()) if self._status(one) is ProjectStatus.ACTIVE), None)

    def _status(self, project_id: str) -> ProjectStatus:
        project = self._journal.summaries[project_id].project
        assert project is not None
        return project.status

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        statuses: Collection[ProjectStatus] = (),
        tags: Collection[str] = (),
        owners: Collection[str] = (),
    ) -> ProjectPage:
        """Up to ``limit`` projects, newest first. A cursor stays valid for ever: projects are never removed.

        A filter lets any of its values through; an empty one everything.
        """
        page = page_of(
            self._journal,
            self._order,
            newest_first(self._order, cursor),
            limit=limit,
            keep=lambda one: (
                (not statuses or (one.project is not None and one.project.status in statuses))
                and (not tags or any(tag in tags for tag in one.tags))
                and (not owners or one.owner in owners)
            ),
        )
        return ProjectPage([self.find(one)[0] for one in page.ids], page.cursor)


def _sent(change: ProjectChange, *fields: str) -> dict[str, Any]:
    given = {field: getattr(change, field) for field in fields}
    return {field: value for field, value in given.items() if value is not msgspec.UNSET}


def _check(request: ProjectRequest) -> None:
    faults = [_address_fault(request.name)]
    faults += [name_fault(field, getattr(request, field)) for field in ("dataset_name", "training_yaml_name")]
    found = tuple(fault for fault in faults if fault is not None)
    if found:
        raise InvalidInput("the project cannot be made like this", faults=found)


def _address_fault(name: str) -> Fault | None:
    """The name is a part of the project's address, so not every text will do."""
    if not name.strip() or name in (".", ".."):
        return Fault(message="must not be empty, nor only dots", where="name", mend="give it some text")
    if "/" in name or "\\" in name or not name.isprintable():
        return Fault(
            message="must not hold slashes or control characters",
            where="name",
            mend="the name is a part of the project's address; use - or _",
        )
    return None
