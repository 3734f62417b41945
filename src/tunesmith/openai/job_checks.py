"""Validating a job's files: every row can be used by its method, and "auto" becomes numbers. See ``hyperparameters``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import anyio.to_thread
import msgspec

from tunesmith.contract.manifest import value_at
from tunesmith.errors import Fault
from tunesmith.openai.hyperparameters import (
    ACCUMULATION,
    BATCH,
    EPOCHS,
    LEARNING_RATE,
    LOGGING_STEPS,
    SAVE_STEPS,
    Basis,
    Requested,
    choose,
    chosen_in,
)
from tunesmith.openai.integrations import integrations_of
from tunesmith.openai.labels import METHOD, RESOLVED, TRAINING_FILE, VALIDATION_FILE, encode
from tunesmith.recipes import Origin, Recipe, RecipeBook
from tunesmith.records import FileCheck, Run

_NEEDED = (EPOCHS, BATCH, ACCUMULATION, LEARNING_RATE)
_OPTIONS = (*_NEEDED, SAVE_STEPS, LOGGING_STEPS)
_MOST_TOLD = 5


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """The method of a job, with its hyperparameters, as the door keeps it with the run."""

    type: str
    hyperparameters: Requested = Requested()


decode_method = msgspec.json.Decoder(Method).decode


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    fault: Fault | None = None
    values: Mapping[str, Any] = {}
    labels: Mapping[str, str] = {}
    warnings: tuple[str, ...] = ()


class Verdicts(Protocol):
    """What is in files, once somebody has looked."""

    def verdict(self, upload_id: str) -> Awaitable[FileCheck]: ...


class JobChecks:
    """Looks at the files of jobs, and decides what they left open."""

    def __init__(self, files: Verdicts, recipes: RecipeBook, parameters_of: Callable[[Path], int | None]) -> None:
        """``parameters_of`` counts those of the model in a folder; called in a thread."""
        self._files = files
        self._recipes = recipes
        self._parameters_of = parameters_of

    async def check(self, run: Run, config: Mapping[str, Any], origins: Mapping[str, Origin]) -> Checked:
        """Wait for the look at its files, and judge.

        Raises:
            NotFound: a file is not there any more.
            InvalidInput: the recipe is not there any more.
        """
        recipe = await anyio.to_thread.run_sync(self._recipes.get, run.recipe)
        rows = 0
        for label, param in ((VALIDATION_FILE, "validation_file"), (TRAINING_FILE, "training_file")):
            if label in run.labels:
                found = await self._files.verdict(run.labels[label])
                fault = _fault_of(found, recipe, param)
                if fault is not None:
                    return Checked(fault=fault)
                rows = found.rows
        base = value_at(config, "model.adapter_base") or value_at(config, "model.base")
        basis = Basis(
            rows=rows,
            parameters=await anyio.to_thread.run_sync(self._parameters_of, Path(str(base))),
            batch=usual_batch(recipe),
            part=usual_part(recipe),
            learning_rate=_number(recipe.config, LEARNING_RATE) or 1.0,
        )
        chosen = _chosen(decode_method(run.labels[METHOD]).hyperparameters, basis, config, origins)
        asked = integrations_of(run, config, origins)
        return msgspec.structs.replace(chosen, values={**chosen.values, **asked.values}, warnings=asked.warnings)


def usual_batch(recipe: Recipe) -> int:
    """Rows of one optimizer step, where a request says nothing of it."""
    return usual_part(recipe) * int(_number(recipe.config, ACCUMULATION) or 1)


def usual_part(recipe: Recipe) -> int:
    """Rows that are computed at a time, where a request says nothing of it."""
    return int(_number(recipe.config, BATCH) or 1)


def _number(config: Mapping[str, Any], path: str) -> float | None:
    found = value_at(config, path)
    return found if isinstance(found, int | float) else None


def _chosen(requested: Requested, basis: Basis, config: Mapping[str, Any], origins: Mapping[str, Origin]) -> Checked:
    options = {path: found for path in _OPTIONS if (found := _number(config, path)) is not None}
    if not set(_NEEDED) <= set(options):
        return Checked()  # a recipe that has no such options keeps its own ways
    decided = {path for path in options if origins.get(path, Origin.RECIPE) is not Origin.RECIPE}
    values = choose(requested, basis, options, decided)
    chosen = chosen_in({**options, **values}, basis)
    return Checked(values=values, labels={RESOLVED: encode(chosen)})


def _fault_of(check: FileCheck, recipe: Recipe, param: str) -> Fault | None:
    if not check.ok:
        told = "; ".join(check.told[:_MOST_TOLD])
        more = check.faults - min(len(check.told), _MOST_TOLD)
        told += f"; and {more} more" if more > 0 else ""
        count = f"{check.faults} of {check.rows} rows cannot be used: " if check.rows else ""
        return Fault(message=f"{count}{told}", where=param, mend="mend these lines, and upload the file again")
    wrong = sorted(set(check.shapes) - set(recipe.data))
    if wrong:
        return Fault(
            message=f"has rows of the shape {', '.join(wrong)}, and recipe {recipe.name} takes {', '.join(recipe.data)}",
            where=param,
            mend="choose another method, or convert the rows; docs/data.md shows each shape",
        )
    return None
