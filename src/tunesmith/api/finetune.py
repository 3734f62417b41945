"""The finetune door: POST /finetune trains with the function this server was started with, or with a built-in recipe."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import anyio
import anyio.to_thread
import msgspec
import structlog
from litestar import post
from litestar.params import JSONBody

from tunesmith.api.access import NEEDS_WRITE
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.errors import (
    Conflict,
    Fault,
    Forbidden,
    InvalidInput,
    MissingReference,
    OutOfSpace,
    TunesmithError,
    Unavailable,
)
from tunesmith.files import DATA_SUFFIXES, NO_ROOM
from tunesmith.finetune import (
    LOG,
    MODEL,
    OUTPUT_LOG_PATH,
    OUTPUT_MODEL_PATH,
    PUBLISH_TO,
    RECIPE,
    REQUEST_SHA256,
    TASK_ID,
    CustomizedInput,
    Data,
    FinetuneRequest,
    Job,
    Model,
    ParamDict,
    Training,
    digest_of,
    is_address,
    labels_of,
    make_folder,
    new_folder,
    read_request,
    show_log,
    write_job,
)
from tunesmith.paths import StatePaths
from tunesmith.recipes import Recipe
from tunesmith.records import Callback, CallbackEvent, DatasetReference, Run, RunState, utc_now
from tunesmith.runs import RunRequest

_log = structlog.get_logger()
_BUILT_IN = {"full": "sft", "lora": "lora"}
_FILES = {"validation_file": "valid_dataset_path", "test_file": "test_dataset_path"}
_DATASETS = "input_content.customized_input"
_SPLITS = {
    "train_dataset_path": ("train",),
    "valid_dataset_path": ("valid", "validation", "val"),
    "test_dataset_path": ("test",),
}
_TOLD = (CallbackEvent.METRICS, CallbackEvent.FINAL)


class FinetuneBody(msgspec.Struct, frozen=True, kw_only=True):
    """The request, as far as the document says it. What is really checked, and all at once, is the JSON itself."""

    task_id: Annotated[Any, msgspec.Meta(description="comes back in every callback and names a folder")] = None
    call_back_api: Annotated[Any, msgspec.Meta(description="http(s) address of the receiver")] = None
    input_content: Annotated[
        Any,
        msgspec.Meta(
            description="`customized_input` with `train_dataset_path`, `valid_dataset_path` and `test_dataset_path`: "
            "files, folders or http(s) addresses"
        ),
    ] = None
    param_dict: Annotated[
        Any,
        msgspec.Meta(
            description="`finetune_mode` (`full` or `lora`), `config_param` (an object), `show_frequecy` (or "
            "`show_frequency`), `measurement` (`step` or `epoch`), `total_epoch_number`, `batch_size`, `lr`"
        ),
    ] = None


class FinetuneAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What was begun, now or by an earlier request for the task; all else comes by callback."""

    task_id: str
    run_id: str
    status: RunState
    output_model_path: str
    output_log_path: str


@post("/finetune", opt=NEEDS_WRITE, tags=["Finetune"], status_code=200)
async def finetune(request: HttpRequest, data: JSONBody[FinetuneBody]) -> FinetuneAnswer:
    """Train, and tell `call_back_api` every `show_frequecy` steps or epochs, and at the end. A bad request names every fault.

    Every field is required, and no other is allowed. Repeating a request under the same `task_id` begins nothing: it answers
    with the run that is there. Another request under that id is refused.
    """
    del data  # a struct keeps no more than its own fields, and stops at the first fault
    services = services_of(request)
    given: dict[str, Any] = await request.json()
    wanted, faults = read_request(given)
    if wanted is None:
        await _refer(services, given, faults)
    assert wanted is not None  # or it had faults, and they were raised
    # Shielded, so that whoever waits for the turn sees what was begun, also when the client that asked has gone.
    return await asyncio.shield(_begin_once(services, wanted, given))


async def _begin_once(services: Services, wanted: FinetuneRequest, given: dict[str, Any]) -> FinetuneAnswer:
    """The task as it is on record, or begun now."""
    async with services.finetune_turns.turn(wanted.task_id):
        earlier = services.runs.book.of_task(wanted.task_id)
        if earlier is not None:
            return _repeated(wanted, earlier)
        datasets = await _refer(services, given, [])
        begin = _built_in(services, wanted, datasets) if services.function is None else _own(services, wanted, datasets)
        return _answer(await begin)


def _repeated(wanted: FinetuneRequest, earlier: Run) -> FinetuneAnswer:
    """Raises Conflict: the task is another one. Its data may be gone by now: a repeat is not checked again."""
    if earlier.labels.get(REQUEST_SHA256) != digest_of(wanted):
        raise Conflict(
            f"task {wanted.task_id} was begun with another request, as run {earlier.id}",
            where="task_id",
            mend="choose a new task_id for a new task",
        )
    return _answer(earlier)


async def _refer(services: Services, data: dict[str, Any], shape_faults: list[Fault]) -> dict[str, str]:
    """The datasets, local ones as full paths. Looks at whatever can be looked at, and raises with all faults at once."""
    found: list[TunesmithError] = []
    url = data.get("call_back_api")
    if isinstance(url, str) and url:
        found += await _vetted(services, url, "call_back_api")
    content = data.get("input_content")
    given = content.get("customized_input") if isinstance(content, dict) else None
    named = {
        name: dataset
        for name in CustomizedInput.__struct_fields__
        if isinstance(given, dict) and isinstance(dataset := given.get(name), str) and dataset
    }
    datasets: dict[str, str] = {}
    for name, dataset in named.items():
        where = f"{_DATASETS}.{name}"
        if is_address(dataset):
            found += await _vetted(services, dataset, where)
            datasets[name] = dataset
            continue
        try:
            # A function gets what was named. What a built-in recipe reads are rows.
            datasets[name] = str(await anyio.to_thread.run_sync(services.references.file_or_folder, dataset, where))
            if services.function is None:
                shared = list(named.values()).count(dataset) > 1
                datasets[name] = await anyio.to_thread.run_sync(_rows_of, services, name, datasets[name], shared)
        except (MissingReference, Forbidden) as error:
            found.append(error)
    _refuse(shape_faults, found)
    return datasets


def _rows_of(services: Services, name: str, place: str, shared: bool) -> str:  # noqa: FBT001  # private, called by position
    """What a built-in recipe reads of a file or folder: all data files of a folder, in the order of their names.

    A folder that is named more than once is one dataset with its splits, such as ``train.jsonl``: if it has them.
    """
    where = f"{_DATASETS}.{name}"
    folder = Path(place)
    if not folder.is_dir():
        return place
    for split in _SPLITS[name] if shared else ():
        for suffix in DATA_SUFFIXES:
            with suppress(MissingReference):
                return str(services.references.file(str(folder / f"{split}{suffix}"), where))
    return str(services.references.whole_folder(folder, where))


async def _vetted(services: Services, url: str, where: str) -> list[TunesmithError]:
    try:
        await services.client.vet(url)
    except InvalidInput as error:
        return [InvalidInput(error.message, where=where, mend=error.mend)]
    return []


def _refuse(shape_faults: list[Fault], found: list[TunesmithError]) -> None:
    if not shape_faults and not found:
        return
    faults = shape_faults + [Fault(message=one.message, where=one.where, mend=one.mend) for one in found]
    kinds = {type(one) for one in found}
    # Where all of it is of one kind, the status says which.
    kind = InvalidInput if shape_faults or len(kinds) != 1 else kinds.pop()
    raise kind(
        "the request has " + ("one fault" if len(faults) == 1 else f"{len(faults)} faults"), faults=tuple(faults)
    )


async def _own(services: Services, wanted: FinetuneRequest, datasets: dict[str, str]) -> Run:
    door = services.function
    assert door is not None, "asked only where there is one"
    place = await _place(services, door.model_name, wanted.task_id)
    output, log = str(place / MODEL), str(place / LOG)
    params = wanted.param_dict
    job = Job(
        model=Model(path=door.model_path, output_path=output, log_path=log),
        data=Data(
            train=datasets["train_dataset_path"],
            valid=datasets["valid_dataset_path"],
            test=datasets["test_dataset_path"],
            max_download_bytes=services.settings.max_download_bytes,
            allow_private_urls=services.settings.allow_private_urls,
        ),
        training=Training(
            file=door.function.file,
            module=door.function.module,
            function=door.function.name,
            show_frequency=params.show_frequecy,
            measurement=params.measurement,
            total_epoch_number=params.total_epoch_number,
            param_dict=msgspec.to_builtins(params),
        ),
    )
    request = RunRequest(
        recipe=RECIPE,
        notes=f"finetune task {wanted.task_id}",
        filled=write_job(job),
        callback=Callback(url=wanted.call_back_api, events=_TOLD, shape="finetune", task_id=wanted.task_id),
        labels=labels_of(wanted, place),
    )
    return await _create(services, request, [place])


async def _place(services: Services, model_name: str, task_id: str) -> Path:
    finetuned = (services.settings.finetuned_dir or StatePaths(services.settings.state_dir).finetuned).resolve()
    return await anyio.to_thread.run_sync(_make_place, finetuned / model_name, task_id, utc_now())


def _make_place(folder: Path, task_id: str, now: datetime) -> Path:
    place = folder / f"{now:%Y%m%d%H%M%S}_{task_id}"
    try:
        (place / MODEL).mkdir(parents=True)
    except FileExistsError as error:
        raise Conflict(
            f"task {task_id} was begun in this very second", where="task_id", mend="wait for it, or name another"
        ) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise OutOfSpace("no room for the output", where=str(place), mend="free some space") from error
        raise
    return place


async def _built_in(services: Services, wanted: FinetuneRequest, datasets: dict[str, str]) -> Run:
    model = wanted.param_dict.config_param.get("model") or services.settings.default_model
    if not isinstance(model, str):
        raise InvalidInput("must be text", where="param_dict.config_param.model", mend="name a model reference")
    recipe = await anyio.to_thread.run_sync(services.recipes.get, _BUILT_IN[wanted.param_dict.finetune_mode])
    downloads = new_folder(StatePaths(services.settings.state_dir))
    try:
        local = await _fetched(services, datasets, downloads)
        place = await _place(services, _name_of(model) or recipe.name, wanted.task_id)
    except BaseException:
        await _remove(downloads)
        raise
    run = await _create(services, _request_for(recipe, model, wanted, local, place), [downloads, place])
    try:
        await anyio.to_thread.run_sync(show_log, services.paths.run(run.id).log.resolve(), place)
    except OSError as error:
        # The run is on its way; the log is put there once more at its end.
        _log.warning("log_not_shown", run_id=run.id, place=str(place), reason=str(error))
    return run


def _request_for(recipe: Recipe, model: str, wanted: FinetuneRequest, local: dict[str, str], place: Path) -> RunRequest:
    params = wanted.param_dict
    by_epoch = params.measurement == "epoch"
    train = local["train_dataset_path"]
    return RunRequest(
        recipe=recipe.name,
        model=model or None,
        dataset=DatasetReference(name=train, split="" if Path(train).is_dir() else "train"),
        hyperparams={
            "training.num_train_epochs": float(params.total_epoch_number),
            "training.per_device_train_batch_size": params.batch_size,
            "training.learning_rate": params.lr,
            **{name: value for name, value in params.config_param.items() if name != "model"},
        },
        train_config=_how_often(params, recipe),
        notes=f"finetune task {wanted.task_id}",
        filled={
            f"data.{knob}": local[dataset] for knob, dataset in _FILES.items() if knob in recipe.config.get("data", {})
        },
        callback=Callback(
            url=wanted.call_back_api,
            events=_TOLD,
            every_epochs=params.show_frequecy if by_epoch else None,
            every_steps=None if by_epoch else params.show_frequecy,
            shape="finetune",
            task_id=wanted.task_id,
        ),
        labels={**labels_of(wanted, place), PUBLISH_TO: str(place)},
    )


async def _create(services: Services, request: RunRequest, made: list[Path]) -> Run:
    """The run, or nothing of the folders that were made for it; raises what ``RunService.create`` raises."""
    try:
        return await services.runs.creator.create(request)
    except Unavailable:
        raise  # it may be on record, as after a cancellation, and needs them then: the next start knows
    except Exception:
        await _remove(*made)
        raise


async def _remove(*folders: Path) -> None:
    with anyio.CancelScope(shield=True):
        for folder in folders:
            await anyio.to_thread.run_sync(partial(shutil.rmtree, folder, ignore_errors=True))


def _how_often(params: ParamDict, recipe: Recipe) -> dict[str, dict[str, Any]]:
    """So that there is something to tell at each step or epoch. A train config: ``config_param`` comes above it, and wins."""
    every = params.show_frequecy
    by_epoch = params.measurement == "epoch"
    wanted = {
        # A divisor, so that there is a loss at each step that is told of.
        "training": {"logging_steps": 1 if by_epoch else max(step for step in range(1, 6) if every % step == 0)},
        "evaluation": {"strategy": "epoch"} if by_epoch else {"strategy": "steps", "steps": every},
    }
    return {
        section: {name: value for name, value in knobs.items() if f"{section}.{name}" in recipe.schema}
        for section, knobs in wanted.items()
        if section in recipe.config
    }


def _name_of(model: str) -> str:
    """What a model is called below the finetuned folder: the last part of its reference."""
    last = model.rstrip("/").rpartition("/")[2]
    return "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in last).lstrip(".-")[:100]


async def _fetched(services: Services, datasets: dict[str, str], folder: Path) -> dict[str, str]:
    """Local files as they are. A built-in recipe reads its data when it is queued, so addresses are fetched before."""
    local = dict(datasets)
    for name, dataset in datasets.items():
        if is_address(dataset):
            await anyio.to_thread.run_sync(make_folder, folder)
            suffix = ".json" if dataset.partition("?")[0].endswith(".json") else ".jsonl"
            into = folder / f"{name}{suffix}"
            got = await services.client.download(dataset, into, max_bytes=services.settings.max_download_bytes)
            local[name] = str(got.path.resolve())
    return local


def _answer(run: Run) -> FinetuneAnswer:
    return FinetuneAnswer(
        task_id=run.labels[TASK_ID],
        run_id=run.id,
        status=run.state,
        output_model_path=run.labels[OUTPUT_MODEL_PATH],
        output_log_path=run.labels[OUTPUT_LOG_PATH],
    )


HANDLERS = [finetune]
