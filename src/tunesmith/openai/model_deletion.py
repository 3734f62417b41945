"""Deleting a model that was trained, unless somebody uses it. What else may be done with models is in ``models``.

From the moment it looks for users, nobody new can begin to use the model: runs, and the checks of batches, look whether it is leaving.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Protocol

import anyio.to_thread
import structlog

from tunesmith.errors import Conflict, Forbidden, MissingReference
from tunesmith.openai.labels import name_of_model
from tunesmith.openai.trash import Trash
from tunesmith.paths import StatePaths
from tunesmith.records import Deployment, Run
from tunesmith.references import (
    LeavingModels,
    Located,
    ModelKind,
    ResolvedModel,
    base_named_in,
    is_within,
)

_log = structlog.get_logger()
_MOST_NAMED = 10


class Deployments(Protocol):
    """The engines that are there."""

    def live(self) -> list[Deployment]: ...


class UnfinishedRuns(Protocol):
    """The runs that are not over."""

    def all(self) -> list[Run]: ...

    def models_in_creation(self) -> dict[str, Sequence[str]]: ...


class AskedModels(Protocol):
    """The models that batches ask."""

    async def by_batch(self) -> dict[str, Sequence[str] | None]: ...


class References(Protocol):
    """What names of models stand for; asked from threads."""

    def holding(self, reference: str, /) -> Located: ...

    def resolve(self, reference: str, /) -> ResolvedModel: ...


class ModelDeletion:
    """Deletes models that runs have made."""

    def __init__(
        self,
        *,
        references: References,
        leaving: LeavingModels,
        unfinished: UnfinishedRuns,
        trained_after: Callable[[str], Iterable[Run]],
        batches: AskedModels,
        deployments: Deployments,
        end_deployment: Callable[[str], Awaitable[object]],
        run_of: Callable[[str], Run],
        paths: StatePaths,
    ) -> None:
        """``trained_after`` answers the trainings that succeeded and are younger than a run; asked from threads."""
        self._references = references
        self._leaving = leaving
        self._unfinished = unfinished
        self._trained_after = trained_after
        self._batches = batches
        self._deployments = deployments
        self._end_deployment = end_deployment
        self._run_of = run_of
        self._paths = paths
        self.trash = Trash(paths.trash)

    async def delete(self, name: str) -> None:
        """Remove the folder of a model that a run has made.

        Raises:
            MissingReference: there is no such model.
            Forbidden: it is none that a run has made, or lies outside of its run's folder.
            Conflict: an unfinished run, a batch, an adapter or a deployment uses it.
        """
        found = await anyio.to_thread.run_sync(self._references.holding, name)
        if found.kind is ModelKind.HUB and found.alias_of is None:
            raise MissingReference(f"the model {name!r} is not here", where="model", mend="GET /v1/models lists them")
        if found.kind is not ModelKind.RUN or found.run_id is None:
            raise Forbidden(
                f"{name!r} is no fine-tuned model; only these can be deleted here",
                where="model",
                mend="GET /v1/models lists them, owned by tunesmith",
            )
        run, folder = self._run_of(found.run_id), Path(found.path)
        real = await anyio.to_thread.run_sync(self._own_folder, run, folder)
        with self._leaving.leaving(folder, real):
            await self._refuse_if_used(run, folder, real)
            await self._end_deployments(folder)
            await anyio.to_thread.run_sync(self._remove, name, folder)
        _log.info("model_deleted", run_id=run.id)

    def _own_folder(self, run: Run, folder: Path) -> Path:
        """It without links."""
        real = folder.resolve()
        if not real.is_relative_to(self._paths.run(run.id).folder.resolve()):
            raise Forbidden(
                f"the model of run {run.id} lies at {folder}, outside of its folder", mend="delete it there"
            )
        return real

    def _remove(self, name: str, folder: Path) -> None:
        try:
            self.trash.remove(folder)
        except FileNotFoundError as error:
            raise MissingReference(f"the model {name!r} was just deleted", where="model") from error

    async def _refuse_if_used(self, run: Run, folder: Path, real: Path) -> None:
        # Nothing was awaited since it is leaving: whoever is not among these runs is refused.
        unfinished, in_creation = self._unfinished.all(), self._unfinished.models_in_creation()
        folders = (str(folder), str(real))
        using = [run_id for run_id, paths in in_creation.items() if any(is_within(path, folders) for path in paths)]
        recorded = [one.id for one in unfinished if one.id not in in_creation]
        using += await anyio.to_thread.run_sync(self._configured_with, recorded, real)
        _refuse("used by", using, "wait until they are over, or cancel them")
        asking = await self._asking(real)
        _refuse("asked by", asking, "wait until these batches are over, or cancel them")
        adapters = await anyio.to_thread.run_sync(self._adapters_on, run, real)
        _refuse("the base of", adapters, "delete these models first")
        serving = [one.id for one in self._deployments.live() if _serves(one, folder) and not one.on_demand]
        _refuse("served by", serving, "end these deployments first")

    def _configured_with(self, run_ids: Iterable[str], real: Path) -> list[str]:
        """Those whose configs name it: as the model, as the base of the adapter that is the model, or in any other place."""
        # Only this part of the path: what lies above may be written with escapes, or with links.
        below = str(real.relative_to(self._paths.runs_folder.resolve()))
        return [run_id for run_id in run_ids if below in self._config(run_id)]

    def _config(self, run_id: str) -> str:
        try:
            return self._paths.run(run_id).config.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    async def _asking(self, real: Path) -> list[str]:
        """The batches that ask it by any of its names, or may."""
        by_batch = await self._batches.by_batch()
        asked = sorted({name for names in by_batch.values() for name in names or ()})
        same = await anyio.to_thread.run_sync(lambda: {name for name in asked if self._stands_for(name, real)})
        return [batch_id for batch_id, names in by_batch.items() if names is None or not same.isdisjoint(names)]

    def _stands_for(self, name: str, real: Path) -> bool:
        """Whether whoever asks this name needs it."""
        try:
            found = self._references.resolve(name)
        except (MissingReference, Forbidden):
            return False
        needed = (found.path, found.base)
        return any(is_within(os.path.realpath(one), (str(real),)) for one in needed if one is not None)

    def _adapters_on(self, run: Run, real: Path) -> list[str]:
        """The names of the adapters that are there and have it as their base; only younger runs can have made one."""
        found: list[str] = []
        for other in self._trained_after(run.id):
            path = other.progress.output_path
            base = base_named_in(Path(path)) if path is not None else None
            if base is not None and is_within(os.path.realpath(base), (str(real),)):
                found.append(name_of_model(other))
                if len(found) == _MOST_NAMED:
                    break
        return found

    async def _end_deployments(self, folder: Path) -> None:
        for one in self._deployments.live():
            # As an adapter beside others it stays in the engine until others need its place.
            if one.on_demand and _serves(one, folder) and one.model == str(folder):
                await self._end_deployment(one.id)


def _serves(deployment: Deployment, folder: Path) -> bool:
    return str(folder) in (deployment.path, *(adapter.path for adapter in deployment.adapters))


def _refuse(how: str, users: Sequence[str], mend: str) -> None:
    if users:
        raise Conflict(f"the model is {how} {', '.join(users[:_MOST_NAMED])}", where="model", mend=mend)
