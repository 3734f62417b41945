"""Fields of a grader that are templates."""

from __future__ import annotations

from typing import Final

from tunesmith_workers.rewards.fields import Fields
from tunesmith_workers.rewards.templates import BadTemplate, Template, read_template

ANSWER: Final = "{{ sample.output_text }}"


def template_of(fields: Fields, name: str, default: str | None = None) -> Template:
    value = fields.get(name)
    if value is None and default is None:
        fields.fault(name, "is required", mend=f"give it a text, such as {ANSWER}")
    elif value is not None and not isinstance(value, str):
        fields.fault(name, "must be a text")
    return checked_template(fields, name, value if isinstance(value, str) else default or "")


def checked_template(fields: Fields, name: str, text: str) -> Template:
    try:
        return read_template(text)
    except BadTemplate as fault:
        fields.fault(name, str(fault))
        return Template(())
