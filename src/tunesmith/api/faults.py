"""Every fault of a value that should have a type, each with its place and the choices: what msgspec's first one leaves out.

Asked only after msgspec has refused a value, so none of it costs a good request anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect

from tunesmith.errors import Fault
from tunesmith.recipes.suggest import described, did_you_mean, shortened

NOT_EMPTY = r"[^\s\u001c-\u001f\u0085\ufeff]"
"""The pattern of texts that must have more than blanks in them.

Readers of the document take it as ECMA-262 does, where U+FEFF is a blank and the other five are none; here it is the other
way around. Named, they are blanks for both.
"""
_MOST_FAULTS = 100
_MOST_CHOICES = 30
_MSGSPEC_PLACE = re.compile(r"^(?P<message>.*?)(?: - at `\$\.?(?P<where>.*)`)?$", re.DOTALL)
_PLAIN_NAME = re.compile(r"\w[\w-]*")

_Lists: TypeAlias = inspect.ListType | inspect.VarTupleType | inspect.SetType | inspect.FrozenSetType


def faults_in(value: Any, wanted: Any, where: str = "") -> tuple[Fault, ...]:
    """What keeps decoded JSON from being of the type ``wanted``, at most 100 faults; empty where nothing does.

    Args:
        value: made of dict, list, str, int, float, bool and None.
        wanted: a type as msgspec understands it.
        where: the place of the value itself.
    """
    found = tuple(islice(_faults(value, type_info(wanted), where), _MOST_FAULTS))
    return found or _first_of_msgspec(value, wanted, where)


def type_info(wanted: Any) -> inspect.Type:
    """What msgspec knows of a type, without the notes that a parameter's description leaves around it."""
    return _plain(inspect.type_info(wanted))


def _plain(info: inspect.Type) -> inspect.Type:
    while isinstance(info, inspect.Metadata):
        info = info.type
    return inspect.UnionType(tuple(map(_plain, info.types))) if isinstance(info, inspect.UnionType) else info


def _faults(value: Any, wanted: inspect.Type, where: str) -> Iterator[Fault]:
    wanted = _plain(wanted)
    if isinstance(wanted, inspect.UnionType):
        wanted = _meant(value, wanted)
    if isinstance(wanted, inspect.StructType) and isinstance(value, dict):
        yield from _faults_of_fields(value, wanted, where)
    elif isinstance(wanted, _Lists) and isinstance(value, list):
        yield from _faults_of_length(len(value), wanted, where, "items")
        for number, item in enumerate(value):
            yield from _faults(item, wanted.item_type, f"{where}[{number}]")
    elif isinstance(wanted, inspect.DictType) and isinstance(value, dict):
        for name, item in value.items():
            yield from _faults(item, wanted.value_type, _below(where, name))
    else:
        yield from _faults_of_leaf(value, wanted, where)


def _meant(value: Any, union: inspect.UnionType) -> inspect.Type:
    """The member of a union that a value was probably meant for."""
    fitting = [one for one in union.types if _is_kind(value, one)]
    return fitting[0] if len(fitting) == 1 else union


def _is_kind(value: Any, wanted: inspect.Type) -> bool:
    """Whether the value is at least the kind of JSON that the type is written as."""
    if isinstance(wanted, inspect.EnumType | inspect.LiteralType):
        return any(isinstance(value, type(choice)) for choice in _choices(wanted))
    if isinstance(wanted, inspect.NoneType):
        return value is None
    kinds = _KINDS.get(type(wanted), (object, ""))[0]
    return isinstance(value, kinds) and (kinds in (bool, object) or not isinstance(value, bool))


def _faults_of_fields(value: Mapping[str, Any], wanted: inspect.StructType, where: str) -> Iterator[Fault]:
    fields = {field.encode_name: field for field in wanted.fields}
    for name, field in fields.items():
        if name in value:
            yield from _faults(value[name], field.type, _below(where, name))
        elif field.required:
            yield Fault(message="is required", where=_below(where, name), mend=f"send {_kind(field.type)}")
    if wanted.forbid_unknown_fields:
        for name in value:
            if name not in fields:
                mend = did_you_mean(name, fields) or f"there is {', '.join(fields)}"
                yield Fault(message="there is no such field", where=_below(where, name), mend=mend)


def _faults_of_leaf(value: Any, wanted: inspect.Type, where: str) -> Iterator[Fault]:
    if isinstance(wanted, inspect.EnumType | inspect.LiteralType):
        choices = _choices(wanted)
        if not any(value == choice and type(value) is type(choice) for choice in choices):
            mend = did_you_mean(value, [choice for choice in choices if isinstance(choice, str)])
            yield Fault(message=f"must be {_kind(wanted)}, not {described(value)}", where=where or None, mend=mend)
    elif not _is_kind(value, wanted):
        yield Fault(message=f"must be {_kind(wanted)}, not {described(value)}", where=where or None)
    elif isinstance(wanted, inspect.IntType | inspect.FloatType):
        yield from _faults_of_size(value, wanted, where)
    elif isinstance(wanted, inspect.StrType):
        yield from _faults_of_length(len(value), wanted, where, "characters")
        if wanted.pattern is not None and re.search(wanted.pattern, value) is None:
            wrong = "must not be empty" if wanted.pattern == NOT_EMPTY else f"must look like {wanted.pattern}"
            yield Fault(message=f"{wrong}, not {described(value)}", where=where or None)
    elif isinstance(wanted, inspect.UnionType) and not _converts(value, wanted):
        # It is of the kind of several members, and none of them takes it.
        yield Fault(message=f"must be {_kind(wanted)}, not {described(value)}", where=where or None)


def _faults_of_size(value: float, wanted: inspect.IntType | inspect.FloatType, where: str) -> Iterator[Fault]:
    wrong = (
        ("at least", wanted.ge, wanted.ge is not None and value < wanted.ge),
        ("more than", wanted.gt, wanted.gt is not None and value <= wanted.gt),
        ("at most", wanted.le, wanted.le is not None and value > wanted.le),
        ("less than", wanted.lt, wanted.lt is not None and value >= wanted.lt),
    )
    for words, bound, is_wrong in wrong:
        if is_wrong:
            yield Fault(message=f"must be {words} {bound}, not {described(value)}", where=where or None)


def _faults_of_length(length: int, wanted: Any, where: str, what: str) -> Iterator[Fault]:
    if wanted.max_length is not None and length > wanted.max_length:
        yield Fault(message=f"must have at most {wanted.max_length} {what}, and has {length}", where=where or None)
    if wanted.min_length is not None and length < wanted.min_length:
        yield Fault(message=f"must have at least {wanted.min_length} {what}, and has {length}", where=where or None)


def _kind(wanted: inspect.Type) -> str:
    """A type in words."""
    if isinstance(wanted, inspect.UnionType):
        return " or ".join(map(_kind, wanted.types))
    if isinstance(wanted, inspect.EnumType | inspect.LiteralType):
        choices = [json.dumps(choice) for choice in _choices(wanted)[:_MOST_CHOICES]]
        return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"
    return _KINDS.get(type(wanted), (object, "something else"))[1]


_KINDS: Mapping[type[inspect.Type], tuple[Any, str]] = {
    inspect.StrType: (str, "text"),
    inspect.DateTimeType: (str, "a time in ISO 8601"),
    inspect.IntType: (int, "a whole number"),
    inspect.FloatType: (int | float, "a number"),
    inspect.BoolType: (bool, "true or false"),
    inspect.NoneType: (type(None), "null"),
    inspect.StructType: (dict, "an object"),
    inspect.DictType: (dict, "an object"),
    inspect.ListType: (list, "a list"),
    inspect.VarTupleType: (list, "a list"),
    inspect.SetType: (list, "a list"),
    inspect.FrozenSetType: (list, "a list"),
    inspect.AnyType: (object, "any value"),
}
"""How a type is written in JSON, and what it is called."""


def _choices(wanted: inspect.EnumType | inspect.LiteralType) -> list[Any]:
    return [one.value for one in wanted.cls] if isinstance(wanted, inspect.EnumType) else list(wanted.values)


def _converts(value: Any, wanted: inspect.UnionType) -> bool:
    return any(not list(_faults(value, one, "")) for one in wanted.types)


def _below(where: str, name: str) -> str:
    shown = name if _PLAIN_NAME.fullmatch(name) and len(name) <= 100 else json.dumps(shortened(name))
    return f"{where}.{shown}" if where else shown


def _first_of_msgspec(value: Any, wanted: Any, where: str) -> tuple[Fault, ...]:
    """For a kind of fault that is not known here: msgspec's own words are better than none."""
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        found = _MSGSPEC_PLACE.fullmatch(str(error))
        message, place = (found["message"], found["where"]) if found else (str(error), None)
        return (Fault(message=message.replace("`", ""), where=".".join(filter(None, (where, place))) or None),)
    return ()
