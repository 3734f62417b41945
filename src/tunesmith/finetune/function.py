"""A user's function as a reference that another process can load: its file, its module and its name.

A function of the script that was started is loaded from its file under another module name than ``__main__``, so what
stands below ``if __name__ == "__main__"`` does not run again.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec

from tunesmith.errors import InvalidInput, MissingReference

Function = Callable[..., Any]


class FunctionReference(msgspec.Struct, frozen=True, kw_only=True):
    """Where a function is found."""

    file: str
    module: str
    """Its dotted name; without a dot it is loaded from ``file``, whatever else goes by that name."""
    name: str
    """As ``__qualname__`` says: ``train``, or ``Trainer.train`` for a static method."""


def refer_to(function: Function) -> FunctionReference:
    """The reference of a function.

    Raises:
        InvalidInput: another process could not load it.
    """
    name = getattr(function, "__qualname__", "")
    where = "run_finetune_func"
    if not inspect.isfunction(function) or "<" in name:
        raise InvalidInput(
            f"{name or function!r} cannot be loaded by another process",
            where=where,
            mend="pass a function that is defined with `def` at the top level of a file",
        )
    file = inspect.getsourcefile(function)
    if file is None or not Path(file).is_file():
        raise InvalidInput(f"{name} comes from no file", where=where, mend="put it into a .py file")
    return FunctionReference(file=str(Path(file).resolve()), module=_module_name(function, file), name=name)


def _module_name(function: Function, file: str) -> str:
    if function.__module__ != "__main__":
        return function.__module__
    spec = sys.modules["__main__"].__spec__  # None for a script, set for `python -m package.module`
    return spec.name if spec is not None else Path(file).stem


def load(reference: FunctionReference) -> Function:
    """Import the function's module and answer the function.

    Raises:
        MissingReference: the file or the function is gone.
        Exception: whatever the module raises when it is imported.
    """
    if not Path(reference.file).is_file():
        raise MissingReference(f"{reference.file} is gone", where="run_finetune_func", mend="put the file back")
    found: Any = _module(reference)
    for part in reference.name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise MissingReference(
            f"{reference.file} has no function {reference.name} any more", where="run_finetune_func", mend="restart"
        )
    function: Function = found
    return function


def _module(reference: FunctionReference) -> ModuleType:
    *packages, _ = reference.module.split(".")
    root = Path(reference.file).parents[len(packages)]
    sys.path.insert(0, str(root))
    if packages:
        return importlib.import_module(reference.module)
    name = reference.module if reference.module not in sys.modules else f"users_{reference.module}"
    spec = importlib.util.spec_from_file_location(name, reference.file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def call(function: Function, offered: Mapping[str, Any]) -> Any:
    """Call with what the signature names of ``offered``, or with all of it where there is ``**kwargs``.

    Raises:
        InvalidInput: it wants something that is not offered.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return function(**offered)
    named = {parameter.name for parameter in parameters}
    unknown = [p.name for p in parameters if p.name not in offered and p.default is inspect.Parameter.empty]
    if unknown:
        raise InvalidInput(
            f"it wants {', '.join(unknown)}, which nobody gives it",
            where=getattr(function, "__qualname__", "run_finetune_func"),
            mend=f"its parameters may be: {', '.join(offered)}",
        )
    return function(**{name: value for name, value in offered.items() if name in named})
