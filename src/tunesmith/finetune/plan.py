"""The run that a task comes to: of a built-in recipe, or of a function of somebody's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.finetune.job import RECIPE, Data, FunctionDoor, Job, Model, Training, write_job
from tunesmith.finetune.labels import PUBLISH_TO, labels_of
from tunesmith.finetune.publish import LOG, MODEL
from tunesmith.finetune.request import FinetuneRequest, ParamDict
from tunesmith.recipes import Recipe
from tunesmith.records import Callback, CallbackEvent, DatasetReference

_FILES = {"validation_file": "valid_dataset_path", "test_file": "test_dataset_path"}
TOLD = (CallbackEvent.METRICS, CallbackEvent.FINAL)


class RunPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked for with, in the words of a request for one."""

    recipe: str
    notes: str
    callback: Callback
    labels: Mapping[str, str]
    model: str | None = None
    dataset: DatasetReference | None = None
    hyperparams: Mapping[str, Any] = {}
    train_config: Mapping[str, Any] | None = None
    filled: Mapping[str, Any] = {}


def plan_for_recipe(recipe: Recipe, model: str, wanted: FinetuneRequest, local: dict[str, str], place: Path) -> RunPlan:
    params = wanted.param_dict
    by_epoch = params.measurement == "epoch"
    train = local["train_dataset_path"]
    return RunPlan(
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
            f"data.{option}": local[dataset]
            for option, dataset in _FILES.items()
            if option in recipe.config.get("data", {})
        },
        callback=Callback(
            url=wanted.call_back_api,
            events=TOLD,
            every_epochs=params.show_frequecy if by_epoch else None,
            every_steps=None if by_epoch else params.show_frequecy,
            shape="finetune",
            task_id=wanted.task_id,
        ),
        labels={**labels_of(wanted, place), PUBLISH_TO: str(place)},
    )


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
        section: {name: value for name, value in options.items() if f"{section}.{name}" in recipe.schema}
        for section, options in wanted.items()
        if section in recipe.config
    }


def plan_for_function(
    door: FunctionDoor,
    wanted: FinetuneRequest,
    datasets: dict[str, str],
    place: Path,
    *,
    max_download_bytes: int,
    allow_private_urls: bool,
) -> RunPlan:
    """What calls the function of a server that was started with one."""
    output, log = str(place / MODEL), str(place / LOG)
    params = wanted.param_dict
    job = Job(
        model=Model(path=door.model_path, output_path=output, log_path=log),
        data=Data(
            train=datasets["train_dataset_path"],
            valid=datasets["valid_dataset_path"],
            test=datasets["test_dataset_path"],
            max_download_bytes=max_download_bytes,
            allow_private_urls=allow_private_urls,
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
    return RunPlan(
        recipe=RECIPE,
        notes=f"finetune task {wanted.task_id}",
        filled=write_job(job),
        callback=Callback(url=wanted.call_back_api, events=TOLD, shape="finetune", task_id=wanted.task_id),
        labels=labels_of(wanted, place),
    )
