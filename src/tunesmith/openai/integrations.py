"""Where a job's measurements are sent as well, as OpenAI's clients ask for it, and what that is to a recipe's config. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from tunesmith.contract.manifest import value_at
from tunesmith.openai.ids import job_id
from tunesmith.openai.labels import INTEGRATIONS, MODEL
from tunesmith.recipes import Origin
from tunesmith.records import Run

_PROJECT, _NAME, _ENTITY, _TAGS = (f"reporting.wandb.{name}" for name in ("project", "name", "entity", "tags"))
_LONGEST_TAG = 64
"""At wandb."""

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
_Part = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[^/\\#?%:]+$")]
"""Of an address at wandb."""
_Tag = Annotated[str, msgspec.Meta(min_length=1, max_length=_LONGEST_TAG)]


class WandbIntegration(msgspec.Struct, frozen=True, kw_only=True):
    """A run at Weights & Biases."""

    project: _Part
    """It is made if it is not there."""
    name: _Name | None = None
    """Of the run; without it the job's id."""
    entity: _Part | None = None
    """The user or team; without it the default one of the key that runs are given."""
    tags: Annotated[list[_Tag], msgspec.Meta(max_length=50)] = []
    """Beside `tunesmith/finetune`, `tunesmith/<base model>` and `tunesmith/<job id>`."""


class Integration(msgspec.Struct, frozen=True, kw_only=True):
    """A service that is sent what a job measures."""

    type: Literal["wandb"]
    wandb: WandbIntegration
    """Of that type."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the integrations of a job are to its run."""

    values: Mapping[str, Any] = {}
    """For its config, by dotted path."""
    warnings: tuple[str, ...] = ()


_decode = msgspec.json.Decoder(list[Integration]).decode


def integrations_of(run: Run, config: Mapping[str, Any], origins: Mapping[str, Origin]) -> Asked:
    """What the config is to say for the run to be reported. What the request's ``hyperparams`` say of it stays."""
    if INTEGRATIONS not in run.labels:
        return Asked()
    if value_at(config, _PROJECT) is msgspec.UNSET:
        unused = f"recipe {run.recipe} does not report to wandb: the integration has no effect"
        return Asked(warnings=(f"{unused} (take a recipe with the option {_PROJECT}, such as lora)",))
    wandb = _decode(run.labels[INTEGRATIONS])[0].wandb
    base = run.labels.get(MODEL, "").rstrip("/")
    own = ("finetune", base.rpartition("/")[2] if base.startswith("/") else base, job_id(run.id))
    tags = [*wandb.tags, *(f"tunesmith/{tag}"[:_LONGEST_TAG] for tag in own)]
    values = {
        _PROJECT: wandb.project,
        _NAME: wandb.name or job_id(run.id),
        _ENTITY: wandb.entity,
        _TAGS: list(dict.fromkeys(tags)),
    }
    return Asked(values={path: value for path, value in values.items() if origins.get(path) is not Origin.HYPERPARAMS})
