"""A fine-tuning job as OpenAI tells of it, and what it is here: a request for a job, a name, a train config. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tunesmith.errors import TunesmithError
from tunesmith.openai import hyperparameters, job_request
from tunesmith.references import suffix_in_names

IMPORTED_FROM = "imported_from"
"""The key of a job's metadata that has the old job's id."""
TRAINING, VALIDATION = "train.jsonl", "validation.jsonl"
"""What its files are called here, so that a dataset's splits find them."""

_SHARED = ("n_epochs", "batch_size", "learning_rate_multiplier")
_SUPERVISED = "supervised"
_MOST_METADATA = 16


class OldJob(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of a job. Whatever else OpenAI tells is passed over."""

    id: str
    created_at: int = 0
    """Unix seconds."""
    model: str = ""
    status: str = ""
    training_file: str = ""
    validation_file: str | None = None
    fine_tuned_model: str | None = None
    seed: int | None = None
    metadata: dict[str, str] | None = None
    method: dict[str, Any] | None = None
    hyperparameters: dict[str, Any] | None = None
    """The older form, also of jobs that have a method."""
    integrations: list[dict[str, Any]] | None = None
    user_provided_suffix: str | None = None

    @property
    def files(self) -> dict[str, str]:
        """The ids of its files, by what they are called here."""
        named = {TRAINING: self.training_file, VALIDATION: self.validation_file}
        return {name: file for name, file in named.items() if file}

    @property
    def kind(self) -> str:
        """The type of its method."""
        return str((self.method or {}).get("type") or _SUPERVISED)

    @property
    def suffix(self) -> str:
        """As it was given; what stands in the fine-tuned model's name where the job does not say it."""
        if self.user_provided_suffix:
            return self.user_provided_suffix
        parts = (self.fine_tuned_model or "").split(":")
        return parts[-2] if len(parts) >= 5 and parts[0] == "ft" else ""

    @property
    def dataset_name(self) -> str:
        """What its dataset is called here: no other job's is called that."""
        suffix = suffix_in_names(self.suffix)
        return f"{suffix}-{self.id}" if suffix else self.id


def read_job(value: Any) -> OldJob:
    """A job from what was told of it.

    Raises:
        TunesmithError: it does not look like one.
    """
    try:
        return msgspec.convert(value, OldJob)
    except msgspec.ValidationError as error:
        raise TunesmithError(f"what was told of a job is none: {error}") from None


def method_of(job: OldJob, *, auto: bool) -> dict[str, Any]:
    """Its method as it is asked for here. With ``auto``, the numbers that have a rule here are left to that rule."""
    told = (job.method or {}).get(job.kind)
    config = dict(told) if isinstance(told, Mapping) else {}
    given = config.get("hyperparameters")
    if not isinstance(given, Mapping):
        given = job.hyperparameters or {}
    kept = {name: value for name, value in given.items() if value is not None}
    if auto:
        kept |= dict.fromkeys(_SHARED, "auto")
    others = {name: value for name, value in config.items() if value is not None and name != "hyperparameters"}
    return {"type": job.kind, job.kind: {**others, "hyperparameters": kept}}


def request_for(job: OldJob, *, model: str, files: Mapping[str, str], auto: bool) -> dict[str, Any]:
    """The same job, to be asked for here. ``files`` are those of this service, by name."""
    request: dict[str, Any] = {
        "model": model,
        "training_file": files[TRAINING],
        "method": method_of(job, auto=auto),
        "notes": f"imported from OpenAI's {job.id}",
    }
    metadata = {**(job.metadata or {}), IMPORTED_FROM: job.id}
    if len(metadata) > _MOST_METADATA:
        metadata.pop(IMPORTED_FROM)
    request["metadata"] = metadata
    if VALIDATION in files:
        request["validation_file"] = files[VALIDATION]
    if job.suffix:
        request["suffix"] = job.suffix
    if job.seed is not None:
        request["seed"] = job.seed
    return request


def recipe_of(job: OldJob) -> str | None:
    """The recipe that trains by its method; None where the method is none that is known here."""
    return job_request.RECIPES.get(job.kind)


def train_config_for(job: OldJob, recipe: Mapping[str, Any], *, auto: bool) -> dict[str, Any]:
    """What of the job a train config can say: the numbers that do not depend on the base model's size.

    ``recipe`` is a recipe as the service shows it.
    """
    given = method_of(job, auto=auto)[job.kind]["hyperparameters"]
    try:
        requested = msgspec.convert(given, hyperparameters.Requested)
    except msgspec.ValidationError:
        requested = hyperparameters.Requested()
    options = recipe["config"].get("training", {})
    usual = [options.get(path.partition(".")[2]) for path in (hyperparameters.BATCH, hyperparameters.ACCUMULATION)]
    batch, parts = (number if isinstance(number, int) else 1 for number in usual)
    values = hyperparameters.given(requested, batch * parts)
    training = {path.partition(".")[2]: value for path, value in values.items()}
    if job.seed is not None:
        training["seed"] = job.seed % 2**32
    return {
        "job": {"type": recipe["name"]},
        "training": {name: value for name, value in training.items() if name in options},
    }
