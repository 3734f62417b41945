"""What the doors ask of runs: create, look, cancel, read. No HTTP, and no process is touched here directly."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
import msgspec
import structlog

from tunesmith.errors import Conflict, InvalidInput, MissingReference, OutOfSpace, TooLarge
from tunesmith.files import NO_ROOM, sync_folder, write_atomically
from tunesmith.paths import StatePaths
from tunesmith.recipes import Recipe, RecipeBook, recipe_name_from, resolve, start_command, to_yaml
from tunesmith.records import Callback, Checkpoint, Clock, Dataset, Progress, Resources, Run, RunState, new_id
from tunesmith.runner import Demand, Launch, Slots
from tunesmith.runs.book import RunBook
from tunesmith.runs.follow import Follower, Position
from tunesmith.runs.live import LiveRuns
from tunesmith.runs.references import References, gather
from tunesmith.runs.scheduler import Scheduler
from tunesmith.runs.supervise import PAUSE
from tunesmith.safe_yaml import load as load_yaml

_log = structlog.get_logger()
_ALIGNMENT = {"sft": "sft", "lora": "lora", "alignment": "dpo", "dpo": "dpo", "ppo": "ppo", "reward": "reward"}
_LARGEST_SEED = 2**32 - 1
_MOST_HYPERPARAM_BYTES = 64 * 1024


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a door asks for it."""

    experiment_id: str | None = None
    task_type: str | None = None
    recipe: str | None = None
    model: str | None = None
    dataset: Dataset | None = None
    hyperparams: Mapping[str, Any] = {}
    train_config: str | Mapping[str, Any] | None = None
    resources: Resources = Resources()
    notes: str = ""
    priority: int = 0
    seed: int | None = None
    callback: Callback | None = None
    filled: Mapping[str, Any] = {}
    """What the door itself sets in the config, by dotted path. Never what a caller wrote: it is not checked."""
    parent_run_id: str | None = None
    resume_from: str | None = None


class ResumeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where, and with what changed. Without either of the first two, from the newest complete checkpoint."""

    ckpt_path: str | None = None
    checkpoint_id: str | None = None
    override_hyperparams: Mapping[str, Any] = {}
    notes: str = ""


class Checkpoints(Protocol):
    """What runs need to know of checkpoints."""

    def present_of(self, run_id: str) -> list[Checkpoint]: ...

    def newest_of(self, run_id: str) -> Checkpoint | None: ...


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
        slots: Slots,
        paths: StatePaths,
        clock: Clock,
        max_train_config_bytes: int,
        checkpoints: Checkpoints,
        vet_url: Callable[[str], Awaitable[None]],
    ) -> None:
        self.book = book
        self._live = live
        self._scheduler = scheduler
        self._recipes = recipes
        self._references = references
        self._slots = slots
        self._paths = paths
        self._clock = clock
        self._max_train_config_bytes = max_train_config_bytes
        self._checkpoints = checkpoints
        self._vet_url = vet_url

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
        return await self._record(*await anyio.to_thread.run_sync(self._prepare, request))

    async def _vet_callback(self, callback: Callback) -> None:
        try:
            await self._vet_url(callback.url)
        except InvalidInput as error:
            raise InvalidInput(error.message, where="callback.url", mend=error.mend) from error

    def _prepare(self, request: RunRequest) -> tuple[Run, bytes]:
        _check_size(request.hyperparams)
        train_config = self._train_config(request.train_config)
        recipe = self._recipe(request, train_config)
        model, dataset = self._resolve_references(request, recipe)
        filled = self._filled(request, recipe, model, dataset)
        config = resolve(recipe, train_config=train_config, request=request.hyperparams, filled=filled)
        demand, warnings = self._demand(recipe, request.resources)
        if demand.gpus:
            self._slots.check(demand)
        run_id = new_id("run")
        run = Run(
            id=run_id,
            kind=recipe.kind,
            recipe=recipe.name,
            state=RunState.QUEUED,
            created_at=self._clock(),
            experiment_id=request.experiment_id,
            model=request.model,
            dataset=dataset,
            hyperparams=dict(request.hyperparams),
            train_config=request.train_config if isinstance(request.train_config, str) else None,
            resources=Resources(gpu_type=request.resources.gpu_type, count=demand.gpus),
            notes=request.notes,
            priority=request.priority,
            seed=request.seed,
            command=start_command(recipe, self._paths.run(run_id).config.resolve()),
            warnings=warnings,
            callback=request.callback,
            parent_run_id=request.parent_run_id,
            resume_from=request.resume_from,
        )
        return run, to_yaml(config)

    async def _record(self, run: Run, config: bytes) -> Run:
        try:
            await anyio.to_thread.run_sync(_write_run_folder, self._paths, run.id, config)
            await self.book.add(run)
        except (OSError, OutOfSpace, InvalidInput, TooLarge) as error:
            # Surely not on record. (After Unavailable it may be, and then the next server needs the folder.)
            await anyio.to_thread.run_sync(lambda: shutil.rmtree(self.folder(run.id), ignore_errors=True))
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise OutOfSpace("the state disk is full; no run was created", mend="free some space") from error
            raise
        _log.info("run_created", run_id=run.id, recipe=run.recipe)
        return run

    def _train_config(self, given: str | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if not isinstance(given, str):
            return given
        path = self._references.file(given, "train_config")
        try:
            with path.open("rb") as file:
                text = file.read(self._max_train_config_bytes + 1)
        except OSError as error:
            raise MissingReference(
                f"{given!r} cannot be read: {error.strerror}", where="train_config", mend="check its permissions"
            ) from error
        content = load_yaml(text, source=given, max_bytes=self._max_train_config_bytes)
        if not isinstance(content, dict):
            raise InvalidInput(
                "a train config is a mapping of sections", where=given, mend="`tunesmith recipes show NAME` shows one"
            )
        return content

    def _recipe(self, request: RunRequest, train_config: Mapping[str, Any] | None) -> Recipe:
        named = request.recipe or (recipe_name_from(train_config) if train_config else None)
        if named:
            return self._recipes.get(named)
        if request.task_type:
            return self._recipes.get(_ALIGNMENT.get(request.task_type, request.task_type))
        raise InvalidInput("no recipe is named", where="recipe", mend="set recipe; GET /v1/recipes lists them")

    def _resolve_references(self, request: RunRequest, recipe: Recipe) -> tuple[str | None, Dataset | None]:
        if not recipe.data:
            return None, None
        missing: list[MissingReference | None] = []
        model, dataset = None, None
        try:
            model = self._model(request)
        except MissingReference as error:
            missing.append(error)
        try:
            dataset = self._dataset(request)
        except MissingReference as error:
            missing.append(error)
        gather(*missing)
        return model, dataset

    def _model(self, request: RunRequest) -> str:
        if not request.model:
            raise MissingReference("no model is named", where="model", mend="set model, or the experiment's base_model")
        return self._references.model(request.model)

    def _dataset(self, request: RunRequest) -> Dataset:
        if request.dataset is None:
            raise MissingReference("no dataset is named", where="dataset", mend='set dataset: {"name": "path.jsonl"}')
        return self._references.dataset(request.dataset)

    def _filled(
        self, request: RunRequest, recipe: Recipe, model: str | None, dataset: Dataset | None
    ) -> dict[str, Any]:
        filled: dict[str, Any] = {}
        if model is not None:
            filled["model.base"] = model
        if dataset is not None:
            filled["data.train_file"] = dataset.path
            beside = self._references.validation_beside(dataset)
            if beside is not None and "validation_file" in recipe.config.get("data", {}):
                filled["data.validation_file"] = beside
        if request.seed is not None:
            if not 0 <= request.seed <= _LARGEST_SEED:
                raise InvalidInput(f"must lie between 0 and {_LARGEST_SEED}", where="seed", mend="choose another")
            filled["training.seed"] = request.seed
        return {**filled, **request.filled}

    def _demand(self, recipe: Recipe, wanted: Resources) -> tuple[Demand, tuple[str, ...]]:
        if wanted.count is not None and wanted.count < 0:
            raise InvalidInput("cannot be negative", where="resources.count", mend="0 asks for none")
        count = recipe.resources.gpus if wanted.count is None else wanted.count
        if self._slots.gpus or not count:
            if count == 0 and not recipe.resources.cpu:
                raise InvalidInput(f"recipe {recipe.name} needs a GPU", where="resources.count", mend="ask for 1")
            return Demand(gpus=count, gpu_type=wanted.gpu_type), ()
        if not recipe.resources.cpu:
            raise InvalidInput(
                f"recipe {recipe.name} needs a GPU and this machine has none", where="resources", mend="use another"
            )
        if not wanted.count:
            return Demand(gpus=0), ()
        asked = f"{wanted.count} x {wanted.gpu_type or 'GPU'}"
        return Demand(gpus=0), (f"{asked} was asked for; this machine has no GPU, so the run uses the CPU",)

    async def cancel(self, run_id: str) -> Run:
        """Stop the run and wait until it has ended; repeating it changes nothing.

        Raises:
            NotFound: no such run.
            Conflict: it already ended otherwise.
            OutOfSpace: the wish could not be written down; the run goes on.
        """
        run = self.book.get(run_id)
        if run.state is RunState.QUEUED:
            try:
                return await self.book.move(run_id, RunState.CANCELLED, stop_reason="cancel", finished_at=self._clock())
            except Conflict:
                run = self.book.get(run_id)  # it has just left the queue
        if run.state is RunState.PAUSED:
            return await self.book.move(run_id, RunState.CANCELLED, stop_reason="cancel", finished_at=self._clock())
        if run.state in (RunState.STARTING, RunState.RUNNING):
            with contextlib.suppress(Conflict):  # it has just ended, or is being stopped: both are seen below
                await self._scheduler.cancel(run_id, "cancel")
        run = await self.book.wait(run_id, lambda run: run.state.final)
        if run.state is not RunState.CANCELLED:
            raise Conflict(f"run {run_id} has already ended: it {run.state}", where="run_id")
        return run

    async def pause(self, run_id: str) -> Run:
        """Stop the run with a checkpoint so that ``go_on`` can take it up again; answers when its process has ended.

        Raises:
            NotFound: no such run.
            Conflict: it is not running, or ended before it heard of the pause.
        """
        run = self.book.get(run_id)
        if run.state is RunState.PAUSED:
            return run
        if run.state not in (RunState.STARTING, RunState.RUNNING):
            raise Conflict(f"run {run_id} is {run.state}: only a running one can be paused", where="run_id")
        await self._scheduler.cancel(run_id, PAUSE)
        run = await self.book.wait(run_id, lambda run: run.state.final or run.state is RunState.PAUSED)
        if run.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} ended before it could be paused: it {run.state}", where="run_id")
        return run

    async def go_on(self, run_id: str) -> Run:
        """Queue a paused run again: a further attempt of the same run, from its newest checkpoint.

        Raises:
            NotFound: no such run.
            Conflict: it is not paused.
        """
        run = self.book.get(run_id)
        if run.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} is {run.state}, not paused", where="run_id")
        newest = self._checkpoints.newest_of(run_id)
        return await self.book.move(run_id, RunState.QUEUED, resume_from=newest.path if newest else None, process=None)

    async def resume(self, run_id: str, request: ResumeRequest) -> Run:
        """A new run that goes on from a checkpoint of this one, with its config and some overrides.

        Raises:
            NotFound: no such run or checkpoint.
            Conflict: the run is not over, or has no complete checkpoint.
            MissingReference: the checkpoint is not one of this run.
            InvalidInput: the overrides do not fit the recipe.
        """
        parent = self.book.get(run_id)
        if not parent.state.final and parent.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} is {parent.state}: cancel or pause it first", where="run_id")
        checkpoint = self._checkpoint_of(parent, request)
        config = load_yaml(self._paths.run(run_id).config.read_bytes(), source=f"{run_id}/config.yaml")
        return await self.create(
            RunRequest(
                experiment_id=parent.experiment_id,
                recipe=parent.recipe,
                model=parent.model,
                dataset=parent.dataset,
                hyperparams=request.override_hyperparams,
                train_config=config,
                resources=parent.resources,
                notes=request.notes,
                priority=parent.priority,
                callback=parent.callback,
                parent_run_id=parent.id,
                resume_from=checkpoint.path,
            )
        )

    def _checkpoint_of(self, run: Run, request: ResumeRequest) -> Checkpoint:
        present = self._checkpoints.present_of(run.id)
        if not present:
            raise Conflict(f"run {run.id} has no complete checkpoint to go on from", where="run_id")
        if request.checkpoint_id is None and request.ckpt_path is None:
            return present[-1]
        for checkpoint in present:
            if request.checkpoint_id in (None, checkpoint.id) and (
                request.ckpt_path is None or Path(request.ckpt_path).resolve() == Path(checkpoint.path)
            ):
                return checkpoint
        raise MissingReference(
            f"run {run.id} has no complete checkpoint {request.checkpoint_id or request.ckpt_path!r}",
            where="checkpoint_id" if request.checkpoint_id else "ckpt_path",
            mend=f"it has: {', '.join(one.path for one in present)}",
        )

    def progress(self, run: Run) -> Progress:
        return self._live.progress(run)

    def follow(self, run_id: str, last_event_id: str | None) -> Follower:
        """Raises NotFound, or InvalidInput for an event id that is none."""
        run = self.book.get(run_id)
        position = Position.parse(last_event_id)
        return Follower(self.book, run_id, self._paths.run(run_id), self._live.get(run), position)

    def close_followers(self) -> None:
        self._live.close()

    def file(self, name: str, where: str) -> Path:
        """A file that a request names, for a door that has one more. Raises MissingReference or Forbidden."""
        return self._references.file(name, where)

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
                "TUNESMITH_RUN_ID": run.id,
                "TUNESMITH_RUN_DIR": str(folder),
                "TUNESMITH_DATASET": (run.dataset and run.dataset.path) or "",
                "TUNESMITH_OUTPUT_DIR": str(folder / paths.output.name),
                "TUNESMITH_RESUME_FROM": run.resume_from or "",
                "TUNESMITH_PYTHON": sys.executable,
                "CUDA_VISIBLE_DEVICES": ",".join(gpus),
                "PYTHONUNBUFFERED": "1",
            },
        )


def _check_size(hyperparams: Mapping[str, Any]) -> None:
    # They are part of the run's record, which is shown in lists and written down at every change.
    try:
        size = len(msgspec.json.encode(hyperparams))
    except RecursionError:
        raise InvalidInput("are nested too deeply", where="hyperparams", mend="flatten them") from None
    if size > _MOST_HYPERPARAM_BYTES:
        raise TooLarge(
            f"take {size} bytes, and may take {_MOST_HYPERPARAM_BYTES}",
            where="hyperparams",
            mend="put a long value into a train config",
        )


def _write_run_folder(paths: StatePaths, run_id: str, config: bytes) -> None:
    run = paths.run(run_id)
    for folder in (run.checkpoints, run.output):
        folder.mkdir(parents=True)
    write_atomically(run.config, config)
    sync_folder(run.folder)
    sync_folder(paths.runs_folder)
