"""A fine-tuning job as OpenAI's clients ask for it, and what it is to a run. Unknown keys are passed over."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from tunesmith.errors import Fault, InvalidInput, TooLarge
from tunesmith.openai import labels
from tunesmith.openai.hyperparameters import Requested, given
from tunesmith.openai.ids import upload_id
from tunesmith.openai.integrations import Integration
from tunesmith.openai.job_checks import usual_part
from tunesmith.recipes import Recipe, RecipeBook

RECIPES: Mapping[str, str] = {"supervised": "lora", "dpo": "dpo", "reinforcement": "grpo"}
"""The recipe of each method, where the request names none."""
_SHAPES: Mapping[str, str] = {"dpo": "preference", "reinforcement": "prompt"}
"""What rows the methods learn from."""
_MOST_METADATA = 16
_LONGEST_KEY, _LONGEST_VALUE = 64, 512
_LARGEST_LABEL = 64 * 1024


class MethodHyperparameters(Requested, frozen=True, kw_only=True):
    """Hyperparameters of a method; numbers, or `auto` for the rule in docs/openai.md."""

    beta: float | Literal["auto"] | None = None
    """Of `dpo`: how much it costs to leave the base model."""


class MethodConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a method is given."""

    hyperparameters: MethodHyperparameters | None = None
    """Those left out are `auto`."""
    grader: dict[str, Any] | None = None
    """Of `reinforcement`: how answers are scored."""


class JobMethod(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is fine-tuned."""

    type: Literal["supervised", "dpo", "reinforcement"]
    """`supervised` learns the answers in the rows."""
    supervised: MethodConfig | None = None
    """What it is given, for this type."""
    dpo: MethodConfig | None = None
    """The same."""
    reinforcement: MethodConfig | None = None
    """The same."""


class JobRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A fine-tuning job as a client asks for it."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
    """The base model: an alias such as one of OpenAI's names, or any other model reference."""
    training_file: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    """The id of a file."""
    validation_file: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    """The id of a file whose rows are never trained on."""
    suffix: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    """Becomes part of the fine-tuned model's name."""
    seed: int | None = None
    """The same seed on the same hardware gives the same model."""
    method: JobMethod | None = None
    """Without it `supervised`."""
    hyperparameters: MethodHyperparameters | None = None
    """The older way to give those of `supervised`."""
    integrations: Annotated[list[Integration], msgspec.Meta(max_length=1)] | None = None
    """Where measurements are sent as well: `[{"type": "wandb", "wandb": {"project": ...}}]`."""
    metadata: dict[str, str] | None = None
    """Up to 16 pairs to find the job by."""
    recipe: str | None = None
    """Of this service: the recipe, instead of the method's own."""
    train_config: str | dict[str, Any] | None = None
    """Of this service: a YAML file's path, or its content."""
    hyperparams: dict[str, Any] = {}
    """Of this service: overrides of the recipe's config."""
    experiment_id: str | None = None
    """Of this service: the experiment that the run belongs to."""
    notes: Annotated[str, msgspec.Meta(max_length=20_000)] = ""
    """Of this service: for people."""
    priority: Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)] = 0
    """Of this service: larger starts first."""


def key_of(request: JobRequest) -> str:
    """By which a repeat of the request is known."""
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()


def method_of(request: JobRequest) -> tuple[str, MethodConfig]:
    """The type of the method, and what it was given, in the old way or the new one."""
    if request.method is None:
        return "supervised", MethodConfig(hyperparameters=request.hyperparameters)
    kind = request.method.type
    config: MethodConfig = getattr(request.method, kind) or MethodConfig()
    if config.hyperparameters is None:
        config = msgspec.structs.replace(config, hyperparameters=request.hyperparameters)
    return kind, config


def recipe_for(request: JobRequest, recipes: RecipeBook) -> Recipe | None:
    """The recipe that trains by the method; None where a train config is to name it. Blocks on the disk.

    Raises:
        InvalidInput: there is none, or metadata that is too much.
    """
    _refuse_metadata(request.metadata or {})
    kind, _ = method_of(request)
    if request.recipe is not None:
        recipe = recipes.get(request.recipe)
        _refuse_other_method(kind, recipe)
        return recipe
    if kind == "supervised" and request.train_config is not None:
        return None
    try:
        return recipes.get(RECIPES[kind])
    except InvalidInput as error:
        raise InvalidInput(
            f"the method {kind} needs the recipe {RECIPES[kind]}, which is not here",
            where="method.type",
            mend="choose supervised, or name one of the recipes in the key `recipe`; GET /v1/recipes lists them",
        ) from error


def hyperparams_of(request: JobRequest, recipe: Recipe | None) -> dict[str, Any]:
    """What of the request is in the run's hyperparameters from the beginning."""
    _, config = method_of(request)
    values: dict[str, Any] = {}
    if config.hyperparameters is not None:
        values = given(config.hyperparameters, usual_part(recipe) if recipe is not None else 1)
        values |= _of_method(config.hyperparameters, recipe)
    return {**values, **request.hyperparams}


def _of_method(asked: MethodHyperparameters, recipe: Recipe | None) -> dict[str, Any]:
    """Those that only some methods have, which their recipe has to take."""
    if not isinstance(asked.beta, float):
        return {}
    if recipe is not None and not any(path.endswith(".beta") for path in recipe.schema):
        raise InvalidInput(
            f"recipe {recipe.name} has no such option",
            where="method.hyperparameters.beta",
            mend="leave it out, or choose the method dpo",
        )
    return {"beta": asked.beta}


def labels_of(request: JobRequest, seed: int) -> dict[str, str]:
    """What the door keeps with the run."""
    kind, config = method_of(request)
    asked = config.hyperparameters or MethodHyperparameters()
    method = {"type": kind, "hyperparameters": asked, "others": {"grader": config.grader} if config.grader else {}}
    found = {
        labels.JOB: "1",
        labels.MODEL: request.model,
        labels.SUFFIX: request.suffix or "",
        labels.SEED: str(seed),
        labels.METHOD: labels.encode(method),
        labels.TRAINING_FILE: upload_id(request.training_file),
    }
    if request.validation_file:
        found[labels.VALIDATION_FILE] = upload_id(request.validation_file)
    if request.metadata is not None:
        found[labels.METADATA] = labels.encode(request.metadata)
        found[labels.PAIRS] = " ".join(sorted(labels.digest_of(*pair) for pair in request.metadata.items()))
    if request.integrations:
        found[labels.INTEGRATIONS] = labels.encode(request.integrations)
    _refuse_large(found)
    return found


def _refuse_other_method(kind: str, recipe: Recipe) -> None:
    """A recipe that does not take the rows of the method trains by another one."""
    wanted = _SHAPES.get(kind)
    if wanted is not None and wanted not in recipe.data:
        raise InvalidInput(
            f"is {kind}, and recipe {recipe.name} takes no rows of the shape {wanted}",
            where="method.type",
            mend="leave `recipe` out, or choose supervised",
        )


def _refuse_large(found: Mapping[str, str]) -> None:
    """They are part of the run's record, which is written down at every change."""
    sizes = {labels.METHOD: "method", labels.INTEGRATIONS: "integrations"}
    for label, field in sizes.items():
        if len(found.get(label, "")) > _LARGEST_LABEL:
            raise TooLarge(f"is longer than {_LARGEST_LABEL} characters", where=field, mend="make it shorter")


def _refuse_metadata(metadata: Mapping[str, str]) -> None:
    faults = [
        Fault(message=f"is longer than {_LONGEST_KEY} characters", where=f"metadata.{key[:40]}")
        for key in metadata
        if len(key) > _LONGEST_KEY
    ]
    faults += [
        Fault(message=f"is longer than {_LONGEST_VALUE} characters", where=f"metadata.{key[:40]}")
        for key, value in metadata.items()
        if len(value) > _LONGEST_VALUE
    ]
    if len(metadata) > _MOST_METADATA:
        faults.append(Fault(message=f"has {len(metadata)} pairs, and may have {_MOST_METADATA}", where="metadata"))
    if faults:
        raise InvalidInput("the metadata cannot be kept", where="metadata", faults=tuple(faults))
