"""An option: one default of a recipe with the values it accepts, and the check of a value against it.

Values are never converted, except a whole number given for a number with decimals. Where a value came from, and
which option a name means, is decided in ``config``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, get_args

import msgspec

from tunesmith.errors import Fault
from tunesmith.recipes.suggest import described, did_you_mean, shortened

Type = Literal["int", "float", "bool", "str", "list", "mapping"]
TYPES: tuple[Type, ...] = get_args(Type)

ReferenceKind = Literal["model", "url"]
REFERENCE_KINDS: tuple[ReferenceKind, ...] = get_args(ReferenceKind)

WANTED: Mapping[Type, str] = MappingProxyType(
    {
        "int": "a whole number",
        "float": "a number",
        "bool": "true or false",
        "str": "text",
        "list": "a list",
        "mapping": "a mapping",
    }
)

_DEEPEST = 32
"""How deep a value may be nested; the YAML reader has the same limit."""


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """What one dotted path of a recipe's config accepts."""

    path: str
    type: Type
    default: Any
    optional: bool = False
    """Whether null is a value. An option with the default null that is not optional must be given by somebody."""
    min: float | None = None
    """Inclusive, for numbers."""
    max: float | None = None
    """Inclusive, for numbers."""
    choices: tuple[Any, ...] = ()
    """The only values allowed, or the only items where ``items`` is given; empty when there is no such list."""
    items: Type | None = None
    """The type of a list's items, where it matters."""
    reference: ReferenceKind | None = None
    """What the text, or each item, names: a model, which becomes a path or a hub id, or an address, which is vetted."""

    @property
    def required(self) -> bool:
        return self.default is None and not self.optional

    def check(self, value: Any, where: str) -> tuple[Any, list[Fault]]:
        """The value in the option's own type, and everything that is wrong with it (the value is then meaningless)."""
        if value is None:
            return None, [] if self.optional else [self._null_fault(where)]
        value, faults = _typed(value, self.type, where, self.default)
        if not faults and isinstance(value, list) and self.items:
            value, faults = _items(value, self.items, where)
        if not faults and isinstance(value, list | dict):
            faults = plain_faults(value, where)
        return value, faults or self._limit_faults(value, where)

    def _null_fault(self, where: str) -> Fault:
        mend = "give a value" if self.default is None else "leave it out to keep the default"
        return Fault(message=f"must be {WANTED[self.type]}, not null", where=where, mend=mend)

    def _limit_faults(self, value: Any, where: str) -> list[Fault]:
        if self.choices and isinstance(value, list) and self.items:
            chosen = [self._choice_faults(item, f"{where}[{number}]") for number, item in enumerate(value)]
            return [fault for faults in chosen for fault in faults]
        if self.choices:
            return self._choice_faults(value, where)
        if self.min is not None and value < self.min:
            return [Fault(message=f"must be at least {self.min:g}, not {value}", where=where)]
        if self.max is not None and value > self.max:
            return [Fault(message=f"must be at most {self.max:g}, not {value}", where=where)]
        return []

    def _choice_faults(self, value: Any, where: str) -> list[Fault]:
        if value in self.choices:
            return []
        names = [str(choice) for choice in self.choices]
        message = f"must be one of {', '.join(names)}; not {described(value)}"
        return [Fault(message=message, where=where, mend=did_you_mean(value, names))]


def type_of(value: Any) -> Type | None:
    """The option type of a default; None for null."""
    kinds: dict[type, Type] = {
        bool: "bool",
        int: "int",
        float: "float",
        str: "str",
        list: "list",
        tuple: "list",
        dict: "mapping",
    }
    return kinds.get(type(value))


def plain_faults(value: Any, where: str, *, depth: int = 0) -> list[Fault]:
    """What in a value cannot be written to a config file that every reader understands."""
    if isinstance(value, str):
        return _text_faults(value, where)
    if value is None or isinstance(value, int | float):
        return _number_faults(value or 0, where)
    if not isinstance(value, list | tuple | Mapping):
        kind = type(value).__name__
        return [Fault(message=f"cannot be written as YAML ({kind})", where=where, mend="use plain values")]
    if depth >= _DEEPEST:
        return [Fault(message=f"is nested more than {_DEEPEST} deep", where=where, mend="flatten it")]
    if isinstance(value, Mapping):
        children = [(f"{where}.{shortened(str(key))}", item) for key, item in value.items()]
        faults = [fault for key in value for fault in _text_faults(str(key), where)]
    else:
        children = [(f"{where}[{number}]", item) for number, item in enumerate(value)]
        faults = []
    return faults + [fault for place, item in children for fault in plain_faults(item, place, depth=depth + 1)]


def _typed(value: Any, wanted: Type, where: str, example: Any) -> tuple[Any, list[Fault]]:
    actual = type_of(value)
    if actual in ("int", "float", "str"):
        faults = plain_faults(value, where)
        if faults:
            return value, faults
    if actual == wanted:
        return list(value) if isinstance(value, tuple) else value, []
    if actual == "int" and wanted == "float":
        return float(value), []
    return value, [
        Fault(
            message=f"must be {WANTED[wanted]}, not {described(value)}", where=where, mend=_mend(value, wanted, example)
        )
    ]


def _mend(value: Any, wanted: Type, example: Any) -> str | None:
    if wanted in ("int", "float"):
        return _mend_number(value, example)
    if wanted == "bool":
        return "write true or false, without quotes"
    if wanted == "list":
        return "put it in brackets: [...]"
    return "put it in quotes" if wanted == "str" and isinstance(value, int | float) else None


def _mend_number(value: Any, example: Any) -> str:
    if isinstance(value, str) and (number := _number_in(value)):
        return f"send a number, without quotes: {number}"
    if isinstance(value, float) and value.is_integer():
        return f"write it without a decimal point: {int(value)}"
    return f"for example {example}" if example is not None else "send a number, without quotes"


def _number_in(text: str) -> str | None:
    text = text.strip()
    try:
        return text.replace("_", "") if len(text) <= 30 and math.isfinite(float(text)) else None
    except ValueError:
        return None


def _items(values: list[Any], wanted: Type, where: str) -> tuple[list[Any], list[Fault]]:
    checked, faults = [], []
    for number, value in enumerate(values):
        item, wrong = _typed(value, wanted, f"{where}[{number}]", None)
        checked.append(item)
        faults += wrong
    return checked, faults


def _text_faults(text: str, where: str) -> list[Fault]:
    if "\0" in text:
        return [Fault(message="holds a NUL character", where=where, mend="remove it")]
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        return [Fault(message="holds half of a character (a lone surrogate)", where=where, mend="send UTF-8 text")]
    return []


def _number_faults(number: float, where: str) -> list[Fault]:
    if isinstance(number, float) and not math.isfinite(number):
        return [Fault(message="must be a finite number, not NaN or infinity", where=where, mend="send a finite number")]
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        return [Fault(message="does not fit into 64 bits", where=where, mend="send a smaller number")]
    return []
