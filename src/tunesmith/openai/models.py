"""The models that OpenAI's clients see: what was trained, what is deployed, what was pulled, and names that stand for these.

How one is deleted is in ``model_deletion``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import anyio.to_thread
import msgspec

from tunesmith.errors import Forbidden, MissingReference
from tunesmith.openai.labels import name_of_model
from tunesmith.paths import StatePaths
from tunesmith.records import Deployment, Run
from tunesmith.references import LeavingModels, ModelKind, ResolvedModel

_MOST_FINE_TUNED = 1000
_OURS = "tunesmith"
_SYSTEM = "system"


class ListedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model under one of its names."""

    name: str
    created: int
    """Unix seconds."""
    owned_by: str


class Names(Protocol):
    """The names that are no records."""

    def usable_aliases(self) -> list[str]: ...

    def pulled_models(self) -> list[str]: ...


class Deployments(Protocol):
    """The engines that are there."""

    def live(self) -> list[Deployment]: ...


class ModelCatalog:
    """Lists models, and finds one."""

    def __init__(
        self,
        *,
        trained: Callable[[int], Iterable[Run]],
        names: Names,
        resolve: Callable[[str], ResolvedModel],
        deployments: Deployments,
        leaving: LeavingModels,
        run_of: Callable[[str], Run],
        paths: StatePaths,
    ) -> None:
        """``trained`` answers the newest trainings that succeeded, at most so many; asked from threads, as ``resolve`` is."""
        self._trained = trained
        self._names = names
        self._resolve = resolve
        self._deployments = deployments
        self._leaving = leaving
        self._run_of = run_of
        self._paths = paths

    async def all(self) -> list[ListedModel]:
        """Every model that is here; of those that were trained the newest thousand."""
        deployed = [(one.name, one.created_at) for one in self._deployments.live() if one.name is not None]
        found = await anyio.to_thread.run_sync(lambda: [*self._fine_tuned(), *self._others()])
        listed = {one.name: one for one in found}
        for name, at in deployed:
            listed.setdefault(name, ListedModel(name=name, created=int(at.timestamp()), owned_by=_OURS))
        return list(listed.values())

    def _fine_tuned(self) -> Iterator[ListedModel]:
        for run in self._trained(_MOST_FINE_TUNED):
            path = run.progress.output_path
            if path is not None and Path(path).is_dir():
                yield _of_run(name_of_model(run), run)

    def _others(self) -> Iterator[ListedModel]:
        for name in self._names.pulled_models():
            yield ListedModel(name=name, created=_changed(self._paths.models / name), owned_by=_SYSTEM)
        for name in self._names.usable_aliases():
            try:
                found = self._resolve(name)
            except (MissingReference, Forbidden):
                continue  # it stands for something that is not there
            yield ListedModel(name=name, created=_changed(Path(found.path)), owned_by=_SYSTEM)

    async def get(self, name: str) -> ListedModel:
        """Raises MissingReference."""
        found = await anyio.to_thread.run_sync(self._found, name)
        run = self._run_with(found)
        if run is not None:
            return _of_run(name, run)
        created = await anyio.to_thread.run_sync(_changed, Path(found.path))
        return ListedModel(name=name, created=created, owned_by=_SYSTEM)

    def _found(self, name: str) -> ResolvedModel:
        """What it stands for, which has to be here. Raises MissingReference."""
        found = self._resolve(name)
        if found.kind is ModelKind.HUB and found.alias_of is None:
            raise MissingReference(
                f"the model {name!r} is not here", where="model", mend=f"`tunesmith models pull {name}` fetches it"
            )
        self._leaving.refuse([path for path in (found.path, found.base) if path is not None], "model")
        return found

    def _run_with(self, found: ResolvedModel) -> Run | None:
        """The run that a name stands for, whatever kind of name it is."""
        named = found.run_id
        return self._run_of(named) if named is not None else None


def _of_run(name: str, run: Run) -> ListedModel:
    at = run.finished_at or run.created_at
    return ListedModel(name=name, created=int(at.timestamp()), owned_by=_OURS)


def _changed(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0
