"""What a trained model is called where OpenAI's clients ask for it: ``ft:<base>:<organization>:<suffix>:<id>``.

The id is that of the run, so such a name is a model reference like any other: what stands before the id is for people. A
checkpoint's name goes on with ``:ckpt-step-<step>``. Pure.
"""

from __future__ import annotations

import re
from typing import NamedTuple

ORGANIZATION = "tunesmith"
_PREFIX = "ft:"
_RUN = "run_"
_NAME = re.compile(r"ft:[^\0]*:(?P<id>[0-9a-z]{26})(?::ckpt-step-(?P<step>[0-9]{1,12}))?")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9._-]+")


class FineTuned(NamedTuple):
    """What such a name stands for."""

    run_id: str
    step: int | None
    """Of the checkpoint; None: what the run has made in the end."""


def fine_tuned_name(base: str, suffix: str, run_id: str, *, step: int | None = None) -> str:
    """The name of what a run makes, or of its checkpoint at a step. ``base`` is what the request called the base model.

    Fine-tuned once more, a model keeps the name of the base that it had the first time.
    """
    plain = _first_base(base).replace(":", "-").rstrip("/")
    shown = plain.rpartition("/")[2] if plain.startswith(("/", ".", "~")) else plain
    name = f"{_PREFIX}{shown}:{ORGANIZATION}:{suffix_in_names(suffix)}:{run_id.removeprefix(_RUN)}"
    return name if step is None else f"{name}:ckpt-step-{step}"


def _first_base(base: str) -> str:
    plain = base.removeprefix(_PREFIX)
    return plain.partition(":")[0] if read_fine_tuned(base) is not None else plain


def suffix_in_names(suffix: str) -> str:
    """A suffix as it stands in names: small letters, digits, full stops, hyphens and underscores."""
    return _NOT_IN_NAMES.sub("-", suffix.lower()).strip("-")


def read_fine_tuned(name: str) -> FineTuned | None:
    """What it stands for; None: it is no such name."""
    found = _NAME.fullmatch(name) if name.startswith(_PREFIX) else None
    if found is None:
        return None
    return FineTuned(f"{_RUN}{found['id']}", int(found["step"]) if found["step"] is not None else None)
