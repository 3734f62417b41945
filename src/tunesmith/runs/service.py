"""What the doors ask of runs: create, look, cancel, read. No HTTP, and no process is touched here directly."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import anyio
import anyio.to_thread
import msgspec
import structlog

from tunesmith.contract import environment
from tunesmith.errors import Conflict, Fault, InvalidInput, MissingReference, NotFound, OutOfSpace, TooLarge
from tunesmith.files import NO_ROOM, place_of, read_regular, sync_folder, write_atomically
from tunesmith.paths import StatePaths
from tunesmith.recipes import (
    Origin,
    Recipe,
    RecipeBook,
    guessed_origins,
    leaves,
    merged_overrides,
    start_command,
    to_yaml,
)
from tunesmith.records import (
    Callback,
    Checkpoint,
    Clock,
    DatasetReference,
    IdempotentCall,
    Progress,
    Resources,
    Run,
    RunState,
    new_id,
)
from tunesmith.references import References
from tunesmith.runner import Capacity, Demand, Launch
from tunesmith.runs.book import RunBook
from tunesmith.runs.follow import Follower, Position
from tunesmith.runs.live import LiveRuns
from tunesmith.runs.request import (
    DATA_KNOBS,
    Inherited,
    RequestResolver,
    Resolved,
    RunRequest,
    check_size,
    value_at,
)
from tunesmith.runs.scheduler import Scheduler
from tunesmith.runs.supervise import PAUSE
from tunesmith.safe_yaml import load as load_yaml

_LARGEST_CONFIG = 16 * 1024 * 1024
_LENGTHS = ("training.max_steps", "training.num_train_epochs")
"""What decides where a training ends; the first one wins."""
_DATA_FILES = ("data.train_file", "data.validation_file")
_log = structlog.get_logger()


class ResumeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where, and with what changed. Without either of the first two, from the newest complete checkpoint."""

    ckpt_path: str | None = None
    checkpoint_id: str | None = None
    override_hyperparams: Mapping[str, Any] = {}
    notes: str = ""


class RunConfig(NamedTuple):
    """The resolved config of a run, and where each value comes from, by dotted path."""

    config: dict[str, Any]
    origins: dict[str, Origin]


class Checkpoints(Protocol):
    """What runs need to know of checkpoints."""

    async def reconcile(self, run_id: str, experiment_id: str | None) -> None: ...

    def present_of(self, run_id: str) -> list[Checkpoint]: ...

    def newest_of(self, run_id: str) -> Checkpoint | None: ...

    def misfits(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[Fault, ...]: ...

    def holding(self, path: str) -> str | None: ...

    def stays(self, path: str) -> bool: ...


class RunService:
    """Runs, for every door."""

    def __init__(
        self,
        *,
        book: RunBook,
        live: LiveRuns,
        scheduler: Scheduler,
        recipes: RecipeBook,
        references: References,
        resolver: RequestResolver,
        capacity: Capacity,
        paths: StatePaths,
        clock: Clock,
        checkpoints: Checkpoints,
        vet_url: Callable[[str], Awaitable[None]],
        data_faults: Callable[[Path, Recipe], Sequence[Fault]] = lambda *_: (),
    ) -> None:
        """``data_faults`` answers what in the first rows of a data file keeps a recipe from using it; asked from threads."""
        self.book = book
        self._live = live
        self._scheduler = scheduler
        self._recipes = recipes
        self._references = references
        self._resolver = resolver
        self._capacity = capacity
        self._paths = paths
        self._clock = clock
        self._checkpoints = checkpoints
        self._vet_url = vet_url
        self._data_faults = data_faults
        self._creating: dict[str, Run] = {}
        """Runs on their way to the disk."""

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
        run, config, origins = await anyio.to_thread.run_sync(self._prepare, request)
        if run.dataset is not None:
            self._references.refuse_if_gone(run.dataset)
        self._refuse_if_gone(run)
        # Nothing was awaited since: whoever deletes what it uses sees this run in `unfinished`, or was seen just now.
        self._creating[run.id] = run
        try:
            return await self._record(run, config, origins)
        finally:
            del self._creating[run.id]

    def unfinished(self) -> list[Run]:
        """Every run that is not final, those among them that are just being created."""
        return [*self._creating.values(), *self.book.unfinished()]

    def _refuse_if_gone(self, run: Run) -> None:
        faults = tuple(
            Fault(
                message=f"{path} was just removed to make room",
                where="ckpt_path" if path == run.resume_from else "model",
            )
            for path in run.checkpoints_used
            if not self._checkpoints.stays(path)
        )
        if faults:
            raise MissingReference(
                "a checkpoint is not there any more",
                faults=faults,
                mend="name one that is listed; a marked one is never removed",
            )

    def _used(self, config: Mapping[str, Any], resume_from: str | None) -> tuple[str, ...]:
        """The checkpoints that a resolved config names, whichever knob it is, and the one to resume from."""
        named = [value for _, value in leaves(config, set()) if isinstance(value, str)]
        found = map(self._checkpoints.holding, filter(None, (*named, resume_from)))
        return tuple(dict.fromkeys(path for path in found if path is not None))

    async def _vet_callback(self, callback: Callback) -> None:
        try:
            await self._vet_url(callback.url)
        except InvalidInput as error:
            raise InvalidInput(error.message, where="callback.url", mend=error.mend) from error

    async def resolved(self, request: RunRequest) -> Resolved:
        """What a run of this request would start with; nothing is created.

        Raises:
            InvalidInput, MissingReference, Forbidden: as ``create``.
        """
        return await anyio.to_thread.run_sync(self._resolver.resolve, request)

    def _prepare(self, request: RunRequest) -> tuple[Run, bytes, bytes]:
        resolved = self._resolver.resolve(request)
        recipe, config = resolved.recipe, resolved.config
        self._refuse_untrainable(recipe, config)
        if request.resume_from is not None:
            self._refuse_misfit(InvalidInput, request.resume_from, config)
            self._refuse_finished(request, request.resume_from, config)
        demand, warnings = self._demand(recipe, request.resources)
        if demand.gpus:
            self._capacity.check(demand)
        hyperparams = dict(request.hyperparams)
        if request.inherited is not None:
            hyperparams = merged_overrides(recipe, request.inherited.hyperparams, hyperparams)
            check_size(hyperparams)
        run_id = new_id("run")
        resume_from = request.resume_from.path if request.resume_from else None
        run = Run(
            id=run_id,
            kind=recipe.kind,
            recipe=recipe.name,
            state=RunState.QUEUED,
            created_at=self._clock(),
            experiment_id=request.experiment_id,
            model=request.model,
            dataset=resolved.dataset,
            hyperparams=hyperparams,
            train_config=resolved.train_config,
            resources=request.resources,
            gpus_needed=demand.gpus,
            notes=request.notes,
            priority=request.priority,
            seed=request.seed,
            command=start_command(recipe, self._paths.run(run_id).config.resolve()),
            warnings=(*warnings, *resolved.warnings),
            callback=request.callback,
            idempotency=request.idempotency,
            parent_run_id=request.parent_run_id,
            resume_from=resume_from,
            checkpoints_used=self._used(config, resume_from),
            labels=dict(request.labels),
        )
        return run, to_yaml(config), msgspec.json.encode(resolved.origins) + b"\n"

    def _refuse_untrainable(self, recipe: Recipe, config: Mapping[str, Any]) -> None:
        """Now, instead of by a run that fails once a model is loaded."""
        named = [value_at(config, knob) for knob in DATA_KNOBS] if recipe.data else []
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

    def _refuse_misfit(
        self, kind: type[InvalidInput | Conflict], checkpoint: Checkpoint, config: Mapping[str, Any]
    ) -> None:
        faults = self._checkpoints.misfits(checkpoint, config)
        if faults:
            raise kind(
                f"checkpoint {Path(checkpoint.path).name} does not fit: nothing would go on from where it was",
                faults=faults,
            )

    def _refuse_finished(self, request: RunRequest, checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
        """A run that would end as soon as it has begun is a mistake of whoever asks for it."""
        assert request.parent_run_id is not None
        total = self.progress(self.book.get(request.parent_run_id)).total_steps
        at_its_end = total is not None and checkpoint.step >= total
        before, now = ([value_at(one, path) for path in _LENGTHS] for one in (request.train_config, config))
        most = now[0]
        is_over = isinstance(most, int) and 0 < most <= checkpoint.step and (at_its_end or before != now)
        if is_over or (at_its_end and before == now):
            limits = [f"{path} {value}" for path, value in zip(_LENGTHS, now, strict=True) if value is not None]
            raise Conflict(
                f"nothing is left to do: the checkpoint is at step {checkpoint.step}, and the run would end there"
                + (f" ({', '.join(limits)})" if limits else ""),
                where="override_hyperparams",
                mend="raise max_steps, or num_train_epochs where max_steps is not set, or name an earlier checkpoint",
            )

    async def _record(self, run: Run, config: bytes, origins: bytes) -> Run:
        try:
            await anyio.to_thread.run_sync(_write_run_folder, self._paths, run.id, config, origins)
            await self.book.add(run)
        except (OSError, OutOfSpace, InvalidInput, TooLarge) as error:
            # Surely not on record. (After Unavailable it may be, and then the next server needs the folder.)
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(self.folder(run.id), ignore_errors=True))
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise OutOfSpace("the state disk is full; no run was created", mend="free some space") from error
            raise
        _log.info("run_created", run_id=run.id, recipe=run.recipe)
        return run

    def _demand(self, recipe: Recipe, wanted: Resources) -> tuple[Demand, tuple[str, ...]]:
        if wanted.count is not None and wanted.count < 0:
            raise InvalidInput("cannot be negative", where="resources.count", mend="0 asks for none")
        count = wanted.count
        if count is None:
            count = max(recipe.resources.gpus, 1) if wanted.gpu_type else recipe.resources.gpus
        if self._capacity.gpus or not count:
            if count == 0 and not recipe.resources.cpu:
                raise InvalidInput(f"recipe {recipe.name} needs a GPU", where="resources.count", mend="ask for 1")
            return Demand(gpus=count, gpu_type=wanted.gpu_type), ()
        if not recipe.resources.cpu:
            raise InvalidInput(
                f"recipe {recipe.name} needs a GPU and this machine has none", where="resources", mend="use another"
            )
        if not wanted.count and not wanted.gpu_type:
            return Demand(gpus=0), ()
        asked = f"{count} x {wanted.gpu_type or 'GPU'}"
        return Demand(gpus=0), (f"{asked} was asked for; this machine has no GPU, so the run uses the CPU",)

    async def cancel(self, run_id: str) -> Run:
        """Stop the run and wait until it has ended; repeating it changes nothing.

        Raises:
            NotFound: no such run.
            Conflict: it already ended otherwise.
            OutOfSpace: the wish could not be written down; the run goes on.
        """
        while not (run := self.book.get(run_id)).state.final:
            with contextlib.suppress(Conflict):  # it has just changed its state: then that one is judged
                await self._cancel_from(run)
        if run.state is not RunState.CANCELLED:
            raise Conflict(f"run {run_id} has already ended: it {run.state}", where="run_id")
        return run

    async def _cancel_from(self, run: Run) -> None:
        if run.state in (RunState.QUEUED, RunState.PAUSED):
            end = {"stop_reason": "cancel", "finished_at": self._clock()}
            await self.book.move(run.id, RunState.CANCELLED, only_from=run.state, **end)
        elif run.state is RunState.STOPPING:
            await self.book.wait(run.id, lambda run: run.state is not RunState.STOPPING)
        else:
            await self._scheduler.cancel(run.id, "cancel")

    async def pause(self, run_id: str) -> Run:
        """Stop the run with a checkpoint so that ``go_on`` can take it up again; answers when its process has ended.

        Raises:
            NotFound: no such run.
            Conflict: it is not running, has nothing to go on from, or ended before it heard of the pause.
            OutOfSpace: its first checkpoint could not be put on record; the run goes on.
        """
        run = self.book.get(run_id)
        if run.state is RunState.PAUSED:
            return run
        if run.state not in (RunState.STARTING, RunState.RUNNING):
            raise Conflict(f"run {run_id} is {run.state}: only a running one can be paused", where="run_id")
        await self._refuse_pause_without_checkpoint(run)
        await self._scheduler.cancel(run_id, PAUSE)
        run = await self.book.wait(run_id, lambda run: run.state.final or run.state is RunState.PAUSED)
        if run.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} ended before it could be paused: it {run.state}", where="run_id")
        return run

    async def _refuse_pause_without_checkpoint(self, run: Run) -> None:
        if run.resume_from is not None or await anyio.to_thread.run_sync(self._saves_when_stopped, run):
            return
        # One that was told a moment ago may still be on its way onto the record.
        await self._checkpoints.reconcile(run.id, run.experiment_id)
        if self._checkpoints.newest_of(run.id) is None:
            raise Conflict(
                f"run {run.id} has written no checkpoint, and recipe {run.recipe} writes none when it is asked to stop: "
                "it would begin again from its start",
                where="run_id",
                mend="wait for its first checkpoint, or cancel it; for a function of your own see docs/finetune.md",
            )

    def _saves_when_stopped(self, run: Run) -> bool:
        recipe = self._recipe_of(run)
        return recipe is None or recipe.saves_when_stopped  # without it nobody knows better

    async def go_on(self, run_id: str) -> Run:
        """Queue a paused run again: a further attempt of the same run, from its newest checkpoint.

        Raises:
            NotFound: no such run.
            Conflict: it is not paused, or what it was trained on has changed since.
        """
        run = self.book.get(run_id)
        if run.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} is {run.state}, not paused", where="run_id")
        newest = self._checkpoints.newest_of(run_id)
        if newest is not None:
            config = await self._config_of(run_id)
            await anyio.to_thread.run_sync(self._refuse_misfit, Conflict, newest, config)
        resume_from = newest.path if newest else run.resume_from
        return await self.book.move(
            run_id, RunState.QUEUED, only_from=RunState.PAUSED, resume_from=resume_from, process=None
        )

    async def resume(self, run_id: str, request: ResumeRequest, idempotency: IdempotentCall | None = None) -> Run:
        """A new run that goes on from a checkpoint of this one, with its config and some overrides.

        Raises:
            NotFound: no such run or checkpoint.
            Conflict: the run is not over, or has no complete checkpoint.
            MissingReference: the checkpoint is not one of this run.
            InvalidInput: the overrides do not fit the recipe, or the checkpoint.
        """
        parent = self.book.get(run_id)
        if not parent.state.final and parent.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} is {parent.state}: cancel or pause it first", where="run_id")
        checkpoint = self._checkpoint_of(parent, request)
        resolved = await self.config(run_id)
        return await self.create(
            RunRequest(
                experiment_id=parent.experiment_id,
                recipe=parent.recipe,
                model=parent.model,
                dataset=parent.dataset,
                hyperparams=request.override_hyperparams,
                train_config=resolved.config,
                resources=parent.resources,
                notes=request.notes,
                priority=parent.priority,
                callback=parent.callback,
                parent_run_id=parent.id,
                resume_from=checkpoint,
                inherited=Inherited(
                    hyperparams=parent.hyperparams, origins=resolved.origins, train_config=parent.train_config
                ),
                idempotency=idempotency,
            )
        )

    async def config(self, run_id: str) -> RunConfig:
        """What the run started with.

        Raises:
            NotFound: no such run, or its folder is gone.
        """
        run = self.book.get(run_id)
        config = await self._config_of(run_id)
        return RunConfig(config, await anyio.to_thread.run_sync(self._origins, run, config))

    async def _config_of(self, run_id: str) -> dict[str, Any]:
        path = self._paths.run(run_id).config
        try:
            content = await anyio.to_thread.run_sync(read_regular, path, _LARGEST_CONFIG)
            config = await anyio.to_thread.run_sync(lambda: load_yaml(content, source=f"{run_id}/{path.name}"))
        except (OSError, InvalidInput, TooLarge) as error:
            raise NotFound(
                f"the config of run {run_id} cannot be read any more: {error}",
                mend="the run, or somebody else, has changed its folder; start it anew",
            ) from error
        return config if isinstance(config, dict) else {}

    def _origins(self, run: Run, config: Mapping[str, Any]) -> dict[str, Origin]:
        """By dotted path, of every value. Blocks on the disk."""
        recipe = self._recipe_of(run)
        knobs = set(recipe.schema) if recipe is not None else set()
        try:
            noted = _decoded(read_regular(self._paths.run(run.id).origins, _LARGEST_CONFIG))
        except (OSError, msgspec.DecodeError):
            filled = {*(("model.base", *_DATA_FILES) if run.model else ()), *(("training.seed",) if run.seed else ())}
            noted = guessed_origins(recipe, config, run.hyperparams, filled)
        return {path: noted.get(path, Origin.RECIPE) for path, _ in leaves(config, {*knobs, *noted})}

    def _recipe_of(self, run: Run) -> Recipe | None:
        try:
            return self._recipes.get(run.recipe)
        except InvalidInput:
            return None  # its folder is gone or was broken since

    def _checkpoint_of(self, run: Run, request: ResumeRequest) -> Checkpoint:
        present = self._checkpoints.present_of(run.id)
        if not present:
            raise Conflict(f"run {run.id} has no complete checkpoint to go on from", where="run_id")
        if request.checkpoint_id is None and request.ckpt_path is None:
            return present[-1]
        for checkpoint in present:
            if request.checkpoint_id in (None, checkpoint.id) and (
                request.ckpt_path is None or place_of(request.ckpt_path) == Path(checkpoint.path)
            ):
                return checkpoint
        raise MissingReference(
            f"run {run.id} has no complete checkpoint {request.checkpoint_id or request.ckpt_path!r}",
            where="checkpoint_id" if request.checkpoint_id else "ckpt_path",
            mend=f"it has: {', '.join(one.path for one in present)}",
        )

    def progress(self, run: Run) -> Progress:
        return self._live.progress(run)

    def warnings(self, run: Run) -> tuple[str, ...]:
        """What was noticed when it was created and in what it printed, and why it will not start where it is queued now."""
        noticed = (*run.warnings, *self.progress(run).warnings)
        if run.state is not RunState.QUEUED:
            return noticed
        try:
            self._capacity.check(demand_of(run))
        except InvalidInput as error:
            return (*noticed, f"it cannot start here: it {error.message}; cancel it, or put the GPUs back")
        return noticed

    def follow(self, run_id: str, last_event_id: str | None) -> Follower:
        """Raises NotFound, or InvalidInput for an event id that is none."""
        run = self.book.get(run_id)
        position = Position.parse(last_event_id)
        return Follower(self.book, run_id, self._paths.run(run_id), self._live.get(run), position)

    def close_followers(self) -> None:
        self._live.close()

    def model(self, reference: str) -> str:
        """What a model reference stands for. Raises MissingReference or Forbidden."""
        return self._references.model(reference)

    def dataset(self, name: str) -> str | None:
        """Where the rows of a dataset are. Raises MissingReference or Forbidden."""
        return self._references.dataset(DatasetReference(name=name)).path

    def file(self, name: str, where: str) -> Path:
        """A file that a request names, for a door that has one more. Raises MissingReference or Forbidden."""
        return self._references.file(name, where)

    def file_or_folder(self, name: str, where: str) -> Path:
        """Likewise, where a folder will do."""
        return self._references.file_or_folder(name, where)

    def whole_folder(self, folder: Path, where: str) -> Path:
        """A folder of data files, all of which are read. Raises MissingReference or Forbidden."""
        return self._references.whole_folder(folder, where)

    def output_folder(self, name: str, where: str) -> Path:
        """A folder that a request wants something written to. Raises InvalidInput or Forbidden."""
        return self._references.output_folder(name, where)

    def folder(self, run_id: str) -> Path:
        return self._paths.run(run_id).folder

    def launch(self, run: Run, gpus: tuple[str, ...]) -> Launch:
        """How the run is started. Everything from the request is in files; only names of ours are in here."""
        paths = self._paths.run(run.id)
        folder = paths.folder.resolve()
        return Launch(
            argv=run.command,
            cwd=str(Path.cwd()),
            log=str(folder / paths.log.name),
            env={
                environment.RUN_ID: run.id,
                environment.RUN_DIR: str(folder),
                environment.DATASET: (run.dataset and run.dataset.path) or "",
                environment.OUTPUT_DIR: str(folder / paths.output.name),
                environment.RESUME_FROM: run.resume_from or "",
                environment.PYTHON: sys.executable,
                "CUDA_VISIBLE_DEVICES": ",".join(gpus),
                "PYTHONUNBUFFERED": "1",
            },
        )


def demand_of(run: Run) -> Demand:
    """What a run on record leases."""
    gpus = run.gpus_needed if run.gpus_needed is not None else run.resources.count
    return Demand(gpus=gpus or 0, gpu_type=run.resources.gpu_type)


def _decoded(origins: bytes) -> dict[str, Origin]:
    return msgspec.json.decode(origins, type=dict[str, Origin])


def _write_run_folder(paths: StatePaths, run_id: str, config: bytes, origins: bytes) -> None:
    run = paths.run(run_id)
    for folder in (run.checkpoints, run.output):
        folder.mkdir(parents=True)
    write_atomically(run.origins, origins)
    write_atomically(run.config, config)
    sync_folder(run.folder)
    sync_folder(paths.runs_folder)
