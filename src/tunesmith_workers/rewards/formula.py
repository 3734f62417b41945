"""The formula of a multi grader: numbers, names of graders, + - * / ^ and a few functions. It is read, never run as code.

Every step has to give a finite number: a division by zero or an overflow is an error, not a score.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

import msgspec

LONGEST_FORMULA: Final = 1000
_DEEPEST = 50
_KNOWN = re.compile(r"[\w\s.+\-*/^(),]*")

_OPERATORS: Mapping[type[ast.operator], Callable[[float, float], float]] = MappingProxyType(
    # math.pow, for ** makes complex numbers of roots of negative ones
    {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv, ast.Pow: math.pow}
)
_OF_ONE: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {"abs": abs, "floor": math.floor, "ceil": math.ceil, "exp": math.exp, "sqrt": math.sqrt, "log": math.log}
)
_OF_SEVERAL: Mapping[str, Callable[..., float]] = MappingProxyType({"min": min, "max": max})
FUNCTIONS: Final = (*_OF_SEVERAL, *_OF_ONE)


class BadFormula(ValueError):
    """The formula cannot be read; the words say why."""


class NotFinite(ArithmeticError):
    """The formula has no finite value for these scores."""


class Formula(msgspec.Struct, frozen=True):
    """A formula that was read and checked."""

    tree: ast.expr
    names: frozenset[str]
    """The graders that it needs."""


def read_formula(text: str) -> Formula:
    """Raises BadFormula."""
    if len(text) > LONGEST_FORMULA:
        raise BadFormula(f"is longer than {LONGEST_FORMULA:,} characters")
    if not _KNOWN.fullmatch(text):
        [*_, stranger] = [character for character in text if not _KNOWN.fullmatch(character)]
        raise BadFormula(f"has {stranger!r}, which no formula has")
    try:
        # In Python, ^ binds less than + and is no power.
        tree = ast.parse(" ".join(text.split()).replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadFormula("is no formula such as 0.5 * first + 0.5 * min(second, third)") from None
    return Formula(tree, frozenset(_checked(tree, 0)))


def evaluate(formula: Formula, scores: Mapping[str, float]) -> float:
    """The value for these scores, which has to be there for every name. Raises NotFinite."""
    return _value(formula.tree, scores)


def _checked(node: ast.expr, depth: int) -> Iterator[str]:
    """The names in it. Raises BadFormula: something in it is none of a formula's parts."""
    if depth > _DEEPEST:
        raise BadFormula(f"is nested more than {_DEEPEST} deep")
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            _checked_number(number)
        case ast.Name(id=name):
            yield name
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=inner):
            yield from _checked(inner, depth + 1)
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            yield from _checked(left, depth + 1)
            yield from _checked(right, depth + 1)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            _checked_call(name, len(args))
            for one in args:
                yield from _checked(one, depth + 1)
        case _:
            raise BadFormula(
                f"has {ast.unparse(node)[:80]}; a formula has numbers, names, + - * / ^ and {', '.join(FUNCTIONS)}"
            )


def _checked_number(number: float) -> None:
    try:
        if math.isfinite(float(number)):
            return
    except OverflowError:
        pass
    raise BadFormula("has a number that is too large")


def _checked_call(name: str, count: int) -> None:
    if name not in FUNCTIONS:
        raise BadFormula(f"calls {name[:80]}; the functions are {', '.join(FUNCTIONS)}")
    if not count or (name in _OF_ONE and count != 1):
        raise BadFormula(f"calls {name} with {count} values; it takes {'one' if name in _OF_ONE else 'one or more'}")


def _value(node: ast.expr, scores: Mapping[str, float]) -> float:
    try:
        found = float(_computed(node, scores))
    except (ZeroDivisionError, OverflowError, ValueError):
        raise NotFinite(ast.unparse(node)[:80]) from None
    if not math.isfinite(found):
        raise NotFinite(ast.unparse(node)[:80])
    return found


def _computed(node: ast.expr, scores: Mapping[str, float]) -> float:
    match node:
        case ast.Constant(value=int() | float() as number):
            return number
        case ast.Name(id=name):
            return scores[name]
        case ast.UnaryOp(op=sign, operand=inner):
            return -_value(inner, scores) if isinstance(sign, ast.USub) else _value(inner, scores)
        case ast.BinOp(left=left, op=operation, right=right):
            return _OPERATORS[type(operation)](_value(left, scores), _value(right, scores))
        case ast.Call(func=ast.Name(id=name), args=args):
            values = [_value(one, scores) for one in args]
            return _OF_ONE[name](values[0]) if name in _OF_ONE else _OF_SEVERAL[name](values)
    raise AssertionError(ast.dump(node))  # _checked lets nothing else through
