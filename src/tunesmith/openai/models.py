"""The models that OpenAI's clients see: what was trained, what is deployed, what was pulled, and names that stand for these."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import Conflict, Forbidden, MissingReference
from tunesmith.openai.labels import name_of_model
from tunesmith.paths import StatePaths
from tunesmith.records import Deployment, Run
from tunesmith.references import ModelKind, ResolvedModel

_log = structlog.get_logger()
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
    """Lists models, finds one, removes one that was trained."""

    def __init__(
        self,
        *,
        trained: Callable[[int], Iterable[Run]],
        unfinished: Callable[[], Iterable[Run]],
        names: Names,
        resolve: Callable[[str], ResolvedModel],
        deployments: Deployments,
        end_deployment: Callable[[str], Awaitable[object]],
        run_of: Callable[[str], Run],
        paths: StatePaths,
    ) -> None:
        """``trained`` answers the newest trainings that succeeded, at most so many; asked from threads, as ``resolve`` is."""
        self._trained = trained
        self._unfinished = unfinished
        self._names = names
        self._resolve = resolve
        self._deployments = deployments
        self._end_deployment = end_deployment
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

    async def delete(self, name: str) -> None:
        """Remove the folder of a model that a run has made.

        Raises:
            MissingReference: there is no such model.
            Forbidden: it is none that a run has made, or lies outside of its run's folder.
            Conflict: an unfinished run or a deployment uses it.
        """
        found = await anyio.to_thread.run_sync(self._found, name)
        run = self._run_with(found)
        if run is None or found.kind is not ModelKind.RUN:
            raise Forbidden(
                f"{name!r} is no fine-tuned model; only these can be deleted here",
                where="model",
                mend="GET /v1/models lists them, owned by tunesmith",
            )
        folder = await anyio.to_thread.run_sync(self._own_folder, run, found.path)
        await self._refuse_if_used(folder)
        await anyio.to_thread.run_sync(_remove, folder)
        _log.info("model_deleted", run_id=run.id)

    def _found(self, name: str) -> ResolvedModel:
        """What it stands for, which has to be here. Raises MissingReference."""
        found = self._resolve(name)
        if found.kind is ModelKind.HUB and found.alias_of is None:
            raise MissingReference(
                f"the model {name!r} is not here", where="model", mend=f"`tunesmith models pull {name}` fetches it"
            )
        return found

    def _own_folder(self, run: Run, path: str) -> Path:
        if not Path(path).resolve().is_relative_to(self._paths.run(run.id).folder.resolve()):
            raise Forbidden(f"the model of run {run.id} lies at {path}, outside of its folder", mend="delete it there")
        return Path(path)

    async def _refuse_if_used(self, folder: Path) -> None:
        users = await anyio.to_thread.run_sync(
            lambda: [run.id for run in self._unfinished() if self._uses(run, folder)]
        )
        if users:
            raise Conflict(
                f"the model is used by {', '.join(users[:10])}", mend="wait until they are over, or cancel them"
            )
        serving = [one for one in self._deployments.live() if _serves(one, folder)]
        kept = [one.id for one in serving if not one.on_demand]
        if kept:
            raise Conflict(f"the model is served by {', '.join(kept[:10])}", mend="end these deployments first")
        for one in serving:
            if one.model == str(
                folder
            ):  # as an adapter beside others it stays in the engine until others need its place
                await self._end_deployment(one.id)

    def _uses(self, run: Run, folder: Path) -> bool:
        """Whether the config of an unfinished run names it: as the model, or as the base of the adapter that is the model."""
        try:
            config = self._paths.run(run.id).config.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        return any(str(one) in config for one in (folder, folder.resolve()))  # an adapter names its base without links

    def _run_with(self, found: ResolvedModel) -> Run | None:
        """The run that a name stands for, whatever kind of name it is."""
        named = found.run_id
        return self._run_of(named) if named is not None else None


def _of_run(name: str, run: Run) -> ListedModel:
    at = run.finished_at or run.created_at
    return ListedModel(name=name, created=int(at.timestamp()), owned_by=_OURS)


def _serves(deployment: Deployment, folder: Path) -> bool:
    return str(folder) in (deployment.path, *(adapter.path for adapter in deployment.adapters))


def _changed(path: Path) -> int:
    try:
        return int(path.stat().st_mtime)
    except OSError:
        return 0


def _remove(folder: Path) -> None:
    """Out of the way at once, so that nobody finds half of it."""
    gone = folder.with_name(f".{folder.name}.deleted.{secrets.token_hex(4)}")
    folder.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)
