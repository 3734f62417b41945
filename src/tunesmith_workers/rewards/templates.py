"""Texts with places for what is graded: ``{{ sample.output_text }}``, ``{{ item.answers[0].text }}``.

Paths only: nothing is computed, and what is put in is never searched for places again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from tunesmith_workers.rewards.sample import SAMPLE_NAMES, CannotGrade, Sample

LONGEST_TEMPLATE: Final = 100_000
LONGEST_RENDERED: Final = 1_000_000
"""In characters, of a template with everything put in."""
_MOST_PLACES = 200
_MOST_STEPS = 32
_OPEN, _CLOSE = "{{", "}}"
_NAMESPACES = ("sample", "item")
_STEP = re.compile(r"""\.([\w-]{1,200})|\[(\d{1,6})\]|\["([^"{}]{1,200})"\]""")
_encode = msgspec.json.Encoder().encode


class BadTemplate(ValueError):
    """The template cannot be read; the words say why."""


class Place(msgspec.Struct, frozen=True):
    """Where a value goes."""

    namespace: str
    steps: tuple[str | int, ...]
    text: str
    """As it was written, for messages."""


class Template(msgspec.Struct, frozen=True):
    """Text and places in turn."""

    parts: tuple[str | Place, ...]

    @property
    def is_plain(self) -> bool:
        return not any(isinstance(part, Place) for part in self.parts)


def read_template(text: str) -> Template:
    """Raises BadTemplate: a place is not closed, or names something that no sample has."""
    if len(text) > LONGEST_TEMPLATE:
        raise BadTemplate(f"is longer than {LONGEST_TEMPLATE:,} characters")
    parts = tuple(_parts(text))
    if sum(isinstance(part, Place) for part in parts) > _MOST_PLACES:
        raise BadTemplate(f"has more than {_MOST_PLACES} places")
    return Template(parts)


def render(template: Template, sample: Sample, where: str) -> str:
    """The text for one sample; a value that is no text is put in as JSON.

    Raises:
        CannotGrade: the sample lacks something that the template names, or the text becomes too long.
    """
    rendered: list[str] = []
    length = 0
    for part in template.parts:
        text = part if isinstance(part, str) else _text(_value(part, sample, where))
        length += len(text)
        if length > LONGEST_RENDERED:
            raise CannotGrade("other_error", f"{where}: is longer than {LONGEST_RENDERED:,} characters")
        rendered.append(text)
    return "".join(rendered)


def _parts(text: str) -> Iterator[str | Place]:
    start = 0
    while (opening := text.find(_OPEN, start)) >= 0:
        closing = text.find(_CLOSE, opening)
        if closing < 0:
            raise BadTemplate(f"has a {_OPEN} without {_CLOSE}: {_shown(text[opening:])}")
        if opening > start:
            yield text[start:opening]
        yield _place(text[opening + len(_OPEN) : closing].strip())
        start = closing + len(_CLOSE)
    if start < len(text):
        yield text[start:]


def _place(path: str) -> Place:
    namespace = next((name for name in _NAMESPACES if path.startswith(name)), None)
    if namespace is None:
        raise BadTemplate(f"has {_shown(path)}, which begins with neither sample nor item")
    steps: list[str | int] = []
    at = len(namespace)
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise BadTemplate(f"has {_shown(path)}, which is no path such as item.answers[0].text")
        steps.append(int(step[2]) if step[2] else step[1] or step[3])
        at = step.end()
    if not steps or len(steps) > _MOST_STEPS:
        raise BadTemplate(f"has {_shown(path)}: a path has 1 to {_MOST_STEPS} steps after {namespace}")
    if namespace == "sample" and steps[0] not in SAMPLE_NAMES:
        names = ", ".join(f"sample.{name}" for name in SAMPLE_NAMES)
        raise BadTemplate(f"has {_shown(path)}, which no sample has; there are {names}")
    return Place(namespace, tuple(steps), path)


def _value(place: Place, sample: Sample, where: str) -> Any:
    steps = place.steps
    if place.namespace == "sample":
        value, steps = sample.value(str(steps[0]), where), steps[1:]
    else:
        value = sample.item
    for step in steps:
        try:
            value = _inside(value, step)
        except LookupError:
            raise CannotGrade(
                "invalid_variable_error",
                f"{where}: {{{{ {place.text} }}}} names {step!r}, which this sample does not have",
            ) from None
    return value


def _inside(value: Any, step: str | int) -> Any:
    if isinstance(value, Mapping) and isinstance(step, str):
        return value[step]
    if isinstance(value, list | tuple) and isinstance(step, int):
        return value[step]
    raise LookupError


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _encode(value).decode()


def _shown(text: str) -> str:
    return repr(text[:80])
