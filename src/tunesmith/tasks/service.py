"""Trainings, exports and evaluations as the train-task door asks for them: checked, planned, and then ordinary runs.

How a run is waited for is in ``waiting``, how options are spelled in ``arguments``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread

from tunesmith.errors import Fault, InvalidInput, MissingReference
from tunesmith.recipes import Recipe, RecipeBook
from tunesmith.records import (
    PUBLISH_FILE,
    PUBLISH_TO,
    Callback,
    DatasetReference,
    IdempotentCall,
    Run,
    RunKind,
)
from tunesmith.references import References
from tunesmith.tasks.arguments import Arguments, read_arguments
from tunesmith.tasks.plan import TaskPlan
from tunesmith.tasks.request import EvaluateRequest, ExportRequest, TrainRequest
from tunesmith.tasks.wording import in_words_of_door

STRATEGY = "tasks.strategy"
"""The label with what a task was asked for by."""
WARNINGS = "tasks.warnings"
"""The label with what of its config had no effect, a line each."""

_RECIPES = {"trl": "sft"}
_EXPORT, _EVALUATE, _MODEL_FILE = "export-onnx", "evaluate", "model.onnx"


class Outputs(Protocol):
    """Who promises places for the output of runs."""

    def promising(self, target: Path, where: str) -> AbstractAsyncContextManager[None]: ...


class TaskService:
    """Begins tasks."""

    def __init__(
        self,
        *,
        create_run: Callable[[TaskPlan], Awaitable[Run]],
        check_plan: Callable[[TaskPlan], Awaitable[object]],
        recipes: RecipeBook,
        references: References,
        outputs: Outputs,
        default_model: str,
    ) -> None:
        """
        Args:
            create_run: makes a run of a plan; raises what creating a run raises.
            check_plan: raises the same, and makes nothing.
            recipes: where strategies are looked up.
            references: what paths are checked with.
            outputs: promises the places for what runs make.
            default_model: what a training without a model starts from.
        """
        self._create_run = create_run
        self._check_plan = check_plan
        self._recipes = recipes
        self._references = references
        self._outputs = outputs
        self._default_model = default_model

    async def train(self, request: TrainRequest, call: IdempotentCall | None) -> Run:
        """Queue a training whose model is put into ``output_dir`` when it has succeeded.

        Raises:
            InvalidInput, MissingReference, Forbidden: with all that is wrong with the config at once.
            Conflict: there is something in the output folder, or another run is to put its output there.
            OutOfSpace: nothing was created.
        """
        recipe = await anyio.to_thread.run_sync(self._recipe, request.strategy)
        target = await anyio.to_thread.run_sync(self._references.output_folder, request.output_dir, "output_dir")
        arguments = read_arguments(request.config, recipe)
        with in_words_of_door(_TRAIN_WORDS, arguments.spelled):
            plan = TaskPlan(
                recipe=recipe.name,
                model=arguments.model or self._default_model or None,
                dataset=await self._dataset(request.dataset_path, "train"),
                hyperparams=arguments.options,
                notes=request.notes,
                priority=request.priority,
                callback=Callback(url=request.callback) if isinstance(request.callback, str) else request.callback,
                labels={
                    PUBLISH_TO: str(target),
                    STRATEGY: request.strategy,
                    **({WARNINGS: "\n".join(arguments.warnings)} if arguments.warnings else {}),
                },
                idempotency=call,
            )
            await self._refuse_faults(arguments, plan)
            async with self._outputs.promising(target, "output_dir"):
                return await self._create_run(plan)

    def _recipe(self, strategy: str) -> Recipe:
        try:
            recipe = self._recipes.get(_RECIPES.get(strategy, strategy))
        except MissingReference as error:
            raise MissingReference(
                f"there is no strategy {strategy[:100]!r}",
                where="strategy",
                mend=f"use trl (all weights), lora (an adapter), or a recipe: {error.mend}",
            ) from error
        if recipe.kind is not RunKind.TRAIN:
            raise InvalidInput(
                f"the recipe {recipe.name} trains nothing, it is of kind {recipe.kind}",
                where="strategy",
                mend="use trl (all weights) or lora (an adapter)",
            )
        return recipe

    async def _refuse_faults(self, arguments: Arguments, plan: TaskPlan) -> None:
        """Raise what could not be translated together with what is wrong with the rest."""
        if not arguments.faults:
            return
        faults = arguments.faults
        try:
            await self._check_plan(plan)
        except InvalidInput as error:
            faults += error.faults or (Fault(message=error.message, where=error.where, mend=error.mend),)
        number = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InvalidInput(f"the config for recipe {plan.recipe} has {number}", faults=faults)

    async def export(self, request: ExportRequest, call: IdempotentCall | None) -> Run:
        """Queue an export whose files are put at ``output_path`` when it has succeeded. Raises as ``train``."""
        target, labels = await anyio.to_thread.run_sync(self._export_target, request.output_path)
        options: dict[str, Any] = {"export.single_file": True} if PUBLISH_FILE in labels else {}
        if request.opset_version is not None:
            options["export.opset"] = request.opset_version
        plan = TaskPlan(
            recipe=_EXPORT,
            model=request.model_path,
            hyperparams=options,
            labels={PUBLISH_TO: str(target), **labels},
            idempotency=call,
        )
        with in_words_of_door(_MODEL_WORDS, {"export.opset": "opset_version"}, prefix=""):
            async with self._outputs.promising(target, "output_path"):
                return await self._create_run(plan)

    def _export_target(self, name: str) -> tuple[Path, dict[str, str]]:
        if not name.endswith(".onnx"):
            return self._references.output_folder(name, "output_path"), {}
        file = self._references.allowed(name, "output_path")
        self._references.output_folder(str(file.parent), "output_path")
        return file, {PUBLISH_FILE: _MODEL_FILE}

    async def evaluate(self, request: EvaluateRequest, call: IdempotentCall | None) -> Run:
        """Queue an evaluation. Raises as ``train``, but for the output."""
        given = {"evaluation.metrics": list(request.metrics) or None, "evaluation.batch_size": request.batch_size}
        options = {path: value for path, value in given.items() if value is not None}
        spelled = {path: path.rpartition(".")[2] for path in given}
        with in_words_of_door({**_MODEL_WORDS, **_DATASET_WORDS}, spelled, prefix=""):
            plan = TaskPlan(
                recipe=_EVALUATE,
                model=request.model_path,
                dataset=await self._dataset(request.dataset_path, "test"),
                hyperparams=options,
                idempotency=call,
            )
            return await self._create_run(plan)

    async def _dataset(self, name: str, split: str) -> DatasetReference:
        """The dataset by its file for ``split``, or for training; a folder that is not split stands for all of its files."""
        splits = dict.fromkeys((split, "train", ""))
        return await anyio.to_thread.run_sync(partial(self._first_there, name, tuple(splits)))

    def _first_there(self, name: str, splits: tuple[str, ...]) -> DatasetReference:
        *others, last = (DatasetReference(name=name, split=split) for split in splits)
        for reference in others:
            try:
                self._references.dataset(reference)
            except MissingReference as error:
                if error.where != "dataset.split":
                    raise
            else:
                return reference
        return last


_MODEL_WORDS = {"model": "model_path", "model.base": "model_path"}
_DATASET_WORDS = dict.fromkeys(("dataset", "dataset.name", "dataset.split", "data.train_file"), "dataset_path")
_TRAIN_WORDS = {**_DATASET_WORDS, "model": "config.model_path", "model.base": "config.model_path", "recipe": "strategy"}
