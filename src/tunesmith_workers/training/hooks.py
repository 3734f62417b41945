"""What we replace in transformers' Trainer must be there, take what it took, and be what Trainer itself calls.

A method that a newer transformers renames is not called any more, and nothing would say so: the training would run with
another loss, order or checkpoint than ours. Nothing of this is found out by running: it is read off the classes.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import CodeType
from typing import Any

import transformers

from tunesmith_workers.process.faults import WorkerFault


def refuse_other_hooks(
    ours: type, theirs: type, replaced: tuple[str, ...], version: str = transformers.__version__
) -> None:
    """Compare the methods ``replaced`` of ``theirs`` by ``ours``.

    Raises:
        WorkerFault: one of them does not exist, takes other arguments, or is not called by ``theirs``.
    """
    called = {name for function in _functions(theirs) for name in _names(function.__code__)}
    for name in replaced:
        reason = _misfit(getattr(ours, name), getattr(theirs, name)) if hasattr(theirs, name) else "does not exist"
        if reason is None and name not in called:
            reason = "is not called any more"
        if reason is not None:
            raise WorkerFault(
                f"{theirs.__name__}.{name} {reason} in transformers {version}, which this worker cannot train with",
                where=f"transformers {version}",
                mend="install the version of transformers that constraints.txt of Tunesmith names",
            )


def _misfit(ours: Any, theirs: Any) -> str | None:
    if not callable(theirs):
        return None
    taken, given = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    takes_any = any(parameter.kind is parameter.VAR_POSITIONAL for parameter in taken.values())
    if takes_any or list(taken) == list(given):
        return None
    return f"takes ({', '.join(given)}) and not ({', '.join(taken)})"


def _functions(of: type) -> Iterator[Any]:
    for base in of.__mro__:
        for value in vars(base).values():
            function = inspect.unwrap(value) if callable(value) else None
            if inspect.isfunction(function):
                yield function


def _names(code: CodeType) -> Iterator[str]:
    """All that a function calls or looks at, those within it included."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
