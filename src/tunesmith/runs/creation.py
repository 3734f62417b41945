"""Creating a run: everything is checked, the resolved config written down, and the run queued. Starts nothing."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import Fault, InvalidInput, OutOfSpace, TooLarge
from tunesmith.files import NO_ROOM, sync_folder, write_atomically
from tunesmith.paths import StatePaths
from tunesmith.recipes import Recipe, merged_overrides, start_command, to_yaml
from tunesmith.records import Callback, CallbackEvent, Clock, Run, RunKind, RunState, new_id
from tunesmith.references import LeavingModels, References, gone_models
from tunesmith.runner import Capacity, Demand
from tunesmith.runs.book import RunBook
from tunesmith.runs.checkpoints import Checkpoints, refuse_finished, refuse_if_gone, refuse_misfit, used_by
from tunesmith.runs.demand import demand_for
from tunesmith.runs.live import LiveRuns
from tunesmith.runs.named_in_config import models_used, vet_addresses
from tunesmith.runs.request import DATA_OPTIONS, RequestResolver, Resolved, RunRequest, check_size, option_at
from tunesmith.runs.unfinished import UnfinishedRuns

_log = structlog.get_logger()


class RunCreator:
    """Makes runs of requests, for every door."""

    def __init__(
        self,
        *,
        book: RunBook,
        live: LiveRuns,
        unfinished: UnfinishedRuns,
        references: References,
        resolver: RequestResolver,
        capacity: Capacity,
        paths: StatePaths,
        clock: Clock,
        checkpoints: Checkpoints,
        leaving_models: LeavingModels,
        vet_url: Callable[[str], Awaitable[None]],
        data_faults: Callable[[Path, Recipe], Sequence[Fault]] = lambda *_: (),
    ) -> None:
        """``data_faults`` answers what in the first rows of a data file keeps a recipe from using it; asked from threads."""
        self._book = book
        self._live = live
        self._unfinished = unfinished
        self._references = references
        self._resolver = resolver
        self._capacity = capacity
        self._paths = paths
        self._clock = clock
        self._checkpoints = checkpoints
        self._leaving_models = leaving_models
        self._vet_url = vet_url
        self._data_faults = data_faults

    async def create(self, request: RunRequest) -> Run:
        """Check everything, write the resolved config, queue the run.

        Raises:
            InvalidInput: with every fault of the config at once.
            MissingReference: with every missing file and model at once.
            Forbidden: a path outside the allowed roots.
            OutOfSpace: nothing was created.
        """
        if request.callback is not None:
            await self._vet_callback(request.callback)
        run, config, origins, resolved = await anyio.to_thread.run_sync(self._prepare, request)
        await vet_addresses(resolved.recipe, resolved.config, self._vet_url)
        if run.dataset is not None:
            self._references.refuse_if_gone(run.dataset)
        refuse_if_gone(self._checkpoints, run)
        models = models_used(resolved.recipe, resolved.config)
        self._leaving_models.refuse(models, "model")
        # Nothing was awaited since: whoever deletes what it uses sees this run among the unfinished, or was seen just now.
        with self._unfinished.being_created(run, models):
            return await self._record(run, config, origins, models)

    async def resolved(self, request: RunRequest) -> Resolved:
        """What a run of this request would start with; nothing is created.

        Raises:
            InvalidInput, MissingReference, Forbidden: as ``create``.
        """
        return await anyio.to_thread.run_sync(self._resolver.resolve, request)

    async def _vet_callback(self, callback: Callback) -> None:
        try:
            await self._vet_url(callback.url)
        except InvalidInput as error:
            raise InvalidInput(error.message, where="callback.url", mend=error.mend) from error

    def _prepare(self, request: RunRequest) -> tuple[Run, bytes, bytes, Resolved]:
        resolved = self._resolver.resolve(request)
        recipe, config = resolved.recipe, resolved.config
        if request.callback is not None:
            _refuse_untold(request.callback, recipe)
        if not request.validates:
            self._refuse_untrainable(recipe, config)
        if request.resume_from is not None:
            assert request.parent_run_id is not None
            refuse_misfit(self._checkpoints, InvalidInput, request.resume_from, config)
            total = self._live.progress(self._book.get(request.parent_run_id)).total_steps
            refuse_finished(total, request.resume_from, request.train_config, config)
        demand, warnings = demand_for(recipe, request.resources, self._capacity)
        if demand.gpus:
            self._capacity.check(demand)
        run = self._new_run(request, resolved, demand, (*warnings, *resolved.warnings))
        return run, to_yaml(config), msgspec.json.encode(resolved.origins) + b"\n", resolved

    def _new_run(self, request: RunRequest, resolved: Resolved, demand: Demand, warnings: tuple[str, ...]) -> Run:
        recipe, run_id = resolved.recipe, new_id("run")
        resume_from = request.resume_from.path if request.resume_from else None
        return Run(
            id=run_id,
            kind=recipe.kind,
            recipe=recipe.name,
            state=RunState.VALIDATING if request.validates else RunState.QUEUED,
            created_at=self._clock(),
            experiment_id=request.experiment_id,
            model=request.model,
            dataset=resolved.dataset,
            hyperparams=_hyperparams(request, recipe),
            train_config=resolved.train_config,
            resources=request.resources,
            gpus_needed=demand.gpus,
            notes=request.notes,
            priority=request.priority,
            seed=request.seed,
            command=start_command(recipe, self._paths.run(run_id).config.resolve()),
            warnings=warnings,
            callback=request.callback,
            idempotency=request.idempotency,
            parent_run_id=request.parent_run_id,
            resume_from=resume_from,
            checkpoints_used=used_by(self._checkpoints, resolved.config, resume_from),
            labels=dict(request.labels),
        )

    def _refuse_untrainable(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        """Now, instead of by a run that fails once a model is loaded."""
        named = [option_at(config, option) for option in DATA_OPTIONS] if recipe.data else []
        files = dict.fromkeys(path for path in named if isinstance(path, str) and path)
        faults = tuple(fault for path in files for fault in self._data_faults(Path(path), recipe))
        if faults:
            raise InvalidInput(
                f"recipe {recipe.name} cannot use this data: "
                + ("one fault" if len(faults) == 1 else f"{len(faults)} faults")
                + " in the first rows",
                where="dataset",
                mend="POST /api/data/validate looks at every row of a file",
                faults=faults,
            )

    async def _record(self, run: Run, config: bytes, origins: bytes, models: Sequence[str]) -> Run:
        try:
            await anyio.to_thread.run_sync(self._write, run.id, config, origins, models)
            await self._book.add(run)
        except (OSError, OutOfSpace, InvalidInput, TooLarge) as error:
            # Surely not on record. (After Unavailable it may be, and then the next server needs the folder.)
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(self._paths.run(run.id).folder, ignore_errors=True))
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise OutOfSpace("the state disk is full; no run was created", mend="free some space") from error
            raise
        _log.info("run_created", run_id=run.id, recipe=run.recipe)
        return run

    def _write(self, run_id: str, config: bytes, origins: bytes, models: Sequence[str]) -> None:
        _refuse_without(models)
        _write_run_folder(self._paths, run_id, config, origins)


def _refuse_untold(callback: Callback, recipe: Recipe) -> None:
    """A callback that would never hear anything."""
    if callback.shape != "openai":
        return
    if recipe.kind is not RunKind.TRAIN:
        raise InvalidInput(
            f"{recipe.name} trains nothing, and OpenAI's webhooks tell only of trainings",
            where="callback.shape",
            mend="leave it out: then the end is told as run.final",
        )
    if CallbackEvent.FINAL not in callback.events:
        raise InvalidInput(
            "in the shape openai only the end is told, and final is not among the events",
            where="callback.events",
            mend="leave them out, or add final",
        )


def _hyperparams(request: RunRequest, recipe: Recipe) -> dict[str, Any]:
    hyperparams = dict(request.hyperparams)
    if request.inherited is not None:
        hyperparams = merged_overrides(recipe, request.inherited.hyperparams, hyperparams)
        check_size(hyperparams)
    return hyperparams


def _refuse_without(models: Sequence[str]) -> None:
    """One that was deleted before the run counted as unfinished is not there any more. Raises MissingReference."""
    gone = [path for path in models if not Path(path).exists()]
    if gone:
        raise gone_models(gone, "model")


def _write_run_folder(paths: StatePaths, run_id: str, config: bytes, origins: bytes) -> None:
    run = paths.run(run_id)
    for folder in (run.checkpoints, run.output):
        folder.mkdir(parents=True)
    write_atomically(run.origins, origins)
    write_atomically(run.config, config)
    sync_folder(run.folder)
    sync_folder(paths.runs_folder)
