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

from tunesmith.errors import Conflict, Fault, InvalidInput, MissingReference, OutOfSpace, TooLarge
from tunesmith.files import NO_ROOM, place_of, sync_folder, write_atomically
from tunesmith.paths import StatePaths
from tunesmith.recipes import (
    Recipe,
    RecipeBook,
    ResolvedConfig,
    recipe_name_from,
    resolve,
    start_command,
    to_yaml,
)
from tunesmith.records import Callback, Checkpoint, Clock, DatasetReference, Progress, Resources, Run, RunState, new_id
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
_FILE_KNOBS = ("data.validation_file", "data.test_file", "data.chat_template")
_LARGEST_SEED = 2**32 - 1
_MOST_HYPERPARAM_BYTES = 64 * 1024


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A run as a door asks for it."""

    experiment_id: str | None = None
    task_type: str | None = None
    recipe: str | None = None
    model: str | None = None
    dataset: DatasetReference | None = None
    hyperparams: Mapping[str, Any] = {}
    train_config: str | Path | Mapping[str, Any] | None = None
    """A path as a caller wrote it, a file that the door itself found, or the content."""
    resources: Resources = Resources()
    notes: str = ""
    priority: int = 0
    seed: int | None = None
    callback: Callback | None = None
    filled: Mapping[str, Any] = {}
    """What the door itself sets in the config, by dotted path. Never what a caller wrote: it is not checked."""
    parent_run_id: str | None = None
    resume_from: Checkpoint | None = None
    finetuned_place: str | None = None


class ResumeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From where, and with what changed. Without either of the first two, from the newest complete checkpoint."""

    ckpt_path: str | None = None
    checkpoint_id: str | None = None
    override_hyperparams: Mapping[str, Any] = {}
    notes: str = ""


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a request comes to: everything that a run would start with."""

    recipe: Recipe
    config: ResolvedConfig
    dataset: DatasetReference | None
    train_config: str | None
    """The path of the train config, if it is a file."""
    warnings: tuple[str, ...]


class Checkpoints(Protocol):
    """What runs need to know of checkpoints."""

    def present_of(self, run_id: str) -> list[Checkpoint]: ...

    def newest_of(self, run_id: str) -> Checkpoint | None: ...

    def misfits(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> tuple[Fault, ...]: ...


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
        config_for: Callable[[str | None, str], tuple[Path, str] | None] = lambda *_: None,
    ) -> None:
        """``config_for`` answers, for a run's dataset and recipe, the train config it gets without naming one, and whose
        that is; asked from threads.
        """
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
        self._config_for = config_for
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
        run, config = await anyio.to_thread.run_sync(self._prepare, request)
        if run.dataset is not None:
            self._references.refuse_if_gone(run.dataset)
        # Nothing was awaited since: whoever deletes a dataset sees this run in `unfinished`, or was seen just now.
        self._creating[run.id] = run
        try:
            return await self._record(run, config)
        finally:
            del self._creating[run.id]

    def unfinished(self) -> list[Run]:
        """Every run that is not final, those among them that are just being created."""
        return [*self._creating.values(), *self.book.unfinished()]

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
        return await anyio.to_thread.run_sync(self._resolved, request)

    def _resolved(self, request: RunRequest) -> Resolved:
        _check_size(request.hyperparams)
        train_config = self._train_config(request.train_config)
        recipe = self._recipe(request, train_config)
        named, place = request.train_config, "train_config"
        chosen = self._chosen_config(request, recipe)
        if chosen is not None:
            train_config, named, place = chosen
        model, dataset = self._resolve_references(request, recipe)
        filled = self._filled(request, model, dataset)
        config = resolve(
            recipe,
            train_config=train_config,
            request=request.hyperparams,
            filled=filled,
            places=(place, "hyperparams"),
        )
        self._check_files(recipe, config, filled, request)
        unasked = f"no train_config was named, so the {place} is used; train_config {{}} uses none"
        return Resolved(
            recipe=recipe,
            config=config,
            dataset=dataset,
            train_config=str(named) if isinstance(named, str | Path) else None,
            warnings=(unasked,) if chosen is not None else (),
        )

    def _prepare(self, request: RunRequest) -> tuple[Run, bytes]:
        resolved = self._resolved(request)
        recipe, config = resolved.recipe, resolved.config
        if request.resume_from is not None:
            self._refuse_misfit(InvalidInput, request.resume_from, config)
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
            dataset=resolved.dataset,
            hyperparams=dict(request.hyperparams),
            train_config=resolved.train_config,
            resources=Resources(gpu_type=request.resources.gpu_type, count=demand.gpus),
            notes=request.notes,
            priority=request.priority,
            seed=request.seed,
            command=start_command(recipe, self._paths.run(run_id).config.resolve()),
            warnings=(*warnings, *resolved.warnings),
            callback=request.callback,
            parent_run_id=request.parent_run_id,
            resume_from=request.resume_from.path if request.resume_from else None,
            finetuned_place=request.finetuned_place,
        )
        return run, to_yaml(config)

    def _refuse_misfit(
        self, kind: type[InvalidInput | Conflict], checkpoint: Checkpoint, config: Mapping[str, Any]
    ) -> None:
        faults = self._checkpoints.misfits(checkpoint, config)
        if faults:
            raise kind(
                f"checkpoint {Path(checkpoint.path).name} does not fit: nothing would go on from where it was",
                faults=faults,
            )

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

    def _train_config(self, given: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        if isinstance(given, Path):
            return self._read_config(given, given.name)
        if not isinstance(given, str):
            return given
        return self._read_config(self._references.file(given, "train_config"), given)

    def _chosen_config(self, request: RunRequest, recipe: Recipe) -> tuple[Mapping[str, Any], str, str] | None:
        """Content, path and description of the train config that a run gets without naming one."""
        if request.train_config is not None:
            return None
        found = self._config_for(request.dataset.name if request.dataset is not None else None, recipe.name)
        if found is None:
            return None
        path, owner = found
        return self._read_config(path, str(path)), str(path), f"train config of {owner}"

    def _read_config(self, path: Path, source: str) -> Mapping[str, Any]:
        try:
            with path.open("rb") as file:
                text = file.read(self._max_train_config_bytes + 1)
        except OSError as error:
            raise MissingReference(
                f"{source!r} cannot be read: {error.strerror}", where="train_config", mend="check its permissions"
            ) from error
        content = load_yaml(text, source=source, max_bytes=self._max_train_config_bytes)
        if not isinstance(content, dict):
            raise InvalidInput(
                "a train config is a mapping of sections", where=source, mend="`tunesmith recipes show NAME` shows one"
            )
        return content

    def _recipe(self, request: RunRequest, train_config: Mapping[str, Any] | None) -> Recipe:
        named = request.recipe or (recipe_name_from(train_config) if train_config else None)
        if named:
            return self._recipes.get(named)
        if request.task_type:
            return self._recipes.get(_ALIGNMENT.get(request.task_type, request.task_type))
        raise InvalidInput("no recipe is named", where="recipe", mend="set recipe; GET /v1/recipes lists them")

    def _resolve_references(self, request: RunRequest, recipe: Recipe) -> tuple[str | None, DatasetReference | None]:
        if not recipe.data:
            return None, None
        missing: list[MissingReference | None] = []
        model, dataset = None, None
        try:
            model = self._model(request)
        except MissingReference as error:
            missing.append(error)
        try:
            dataset = self._dataset(request, recipe)
        except MissingReference as error:
            missing.append(error)
        gather(*missing)
        return model, dataset

    def _model(self, request: RunRequest) -> str:
        if not request.model:
            raise MissingReference("no model is named", where="model", mend="set model, or the experiment's base_model")
        return self._references.model(request.model)

    def _dataset(self, request: RunRequest, recipe: Recipe) -> DatasetReference:
        if request.dataset is None:
            raise MissingReference("no dataset is named", where="dataset", mend='set dataset: {"name": "path.jsonl"}')
        dataset = self._references.dataset(request.dataset)
        if "validation_file" not in recipe.config.get("data", {}):
            return dataset
        return msgspec.structs.replace(dataset, validation_path=self._references.validation_beside(dataset))

    def _filled(self, request: RunRequest, model: str | None, dataset: DatasetReference | None) -> dict[str, Any]:
        filled: dict[str, Any] = {}
        if model is not None:
            filled["model.base"] = model
        if dataset is not None:
            filled["data.train_file"] = dataset.path
            if dataset.validation_path is not None:
                filled["data.validation_file"] = dataset.validation_path
        if request.seed is not None:
            if not 0 <= request.seed <= _LARGEST_SEED:
                raise InvalidInput(f"must lie between 0 and {_LARGEST_SEED}", where="seed", mend="choose another")
            filled["training.seed"] = request.seed
        return {**filled, **request.filled}

    def _check_files(
        self, recipe: Recipe, config: ResolvedConfig, filled: Mapping[str, Any], request: RunRequest
    ) -> None:
        """Files that the config names beside the dataset must lie under the allowed roots as well."""
        for path in _FILE_KNOBS:
            named = _value(config, path)
            # What a recipe's author, a door or an earlier request has set was vetted then.
            before = request.train_config if request.resume_from is not None else None
            trusted = path in filled or named in (_value(recipe.config, path), _value(before, path))
            if isinstance(named, str) and not trusted and ("/" in named or Path(named).exists()):
                self._references.file(named, path)

    def _demand(self, recipe: Recipe, wanted: Resources) -> tuple[Demand, tuple[str, ...]]:
        if wanted.count is not None and wanted.count < 0:
            raise InvalidInput("cannot be negative", where="resources.count", mend="0 asks for none")
        count = wanted.count
        if count is None:
            count = max(recipe.resources.gpus, 1) if wanted.gpu_type else recipe.resources.gpus
        if self._slots.gpus or not count:
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
            Conflict: it is not running, has nothing to go on from, or ended before it heard of the pause.
        """
        run = self.book.get(run_id)
        if run.state is RunState.PAUSED:
            return run
        if run.state not in (RunState.STARTING, RunState.RUNNING):
            raise Conflict(f"run {run_id} is {run.state}: only a running one can be paused", where="run_id")
        await anyio.to_thread.run_sync(self._refuse_pause_without_checkpoint, run)
        await self._scheduler.cancel(run_id, PAUSE)
        run = await self.book.wait(run_id, lambda run: run.state.final or run.state is RunState.PAUSED)
        if run.state is not RunState.PAUSED:
            raise Conflict(f"run {run_id} ended before it could be paused: it {run.state}", where="run_id")
        return run

    def _refuse_pause_without_checkpoint(self, run: Run) -> None:
        has_one = run.resume_from is not None or self._checkpoints.newest_of(run.id) is not None
        if not has_one and not self._saves_when_stopped(run):
            raise Conflict(
                f"run {run.id} has written no checkpoint, and recipe {run.recipe} writes none when it is asked to stop: "
                "it would begin again from its start",
                where="run_id",
                mend="wait for its first checkpoint, or cancel it; for a function of your own see docs/finetune.md",
            )

    def _saves_when_stopped(self, run: Run) -> bool:
        try:
            return self._recipes.get(run.recipe).saves_when_stopped
        except InvalidInput:
            return True  # its folder is gone or was broken since: nobody knows better

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
            config = self._config_of(run_id)
            await anyio.to_thread.run_sync(self._refuse_misfit, Conflict, newest, config)
        resume_from = newest.path if newest else run.resume_from
        return await self.book.move(run_id, RunState.QUEUED, resume_from=resume_from, process=None)

    async def resume(self, run_id: str, request: ResumeRequest) -> Run:
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
        config = self._config_of(run_id)
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
                resume_from=checkpoint,
            )
        )

    def _config_of(self, run_id: str) -> dict[str, Any]:
        config: dict[str, Any] = load_yaml(self._paths.run(run_id).config.read_bytes(), source=f"{run_id}/config.yaml")
        return config

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
        """What was noticed when it was created, and why it will not start where it is queued now."""
        if run.state is not RunState.QUEUED:
            return run.warnings
        try:
            self._slots.check(Demand(gpus=run.resources.count or 0, gpu_type=run.resources.gpu_type))
        except InvalidInput as error:
            return (*run.warnings, f"it cannot start here: it {error.message}; cancel it, or put the GPUs back")
        return run.warnings

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


def _value(config: object, path: str) -> Any:
    section, _, knob = path.partition(".")
    found = config.get(section) if isinstance(config, Mapping) else None
    return found.get(knob) if isinstance(found, Mapping) else None


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
