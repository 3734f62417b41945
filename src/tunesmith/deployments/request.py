"""A deployment as a client asks for it, and what becomes of it: everything is checked before anything is started."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated

import msgspec

from tunesmith.deployments.arguments import EngineArguments
from tunesmith.deployments.engines import EngineChoice, Engines, name_of
from tunesmith.errors import Fault, InvalidInput
from tunesmith.recipes.suggest import shortened
from tunesmith.records import EngineKind, ServedAdapter
from tunesmith.references import ResolvedModel

Text = Annotated[str, msgspec.Meta(max_length=500)]
Reference = Annotated[str, msgspec.Meta(min_length=1, max_length=4096)]
_MOST_CHARACTERS = 20_000
_PATH = re.compile(r"/(?!/)(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


class DeploymentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is to be served, and how."""

    model_path: Reference
    """Any model reference."""
    model_version: Text | None = None
    """A version, for people."""
    tags: Annotated[tuple[Text, ...], msgspec.Meta(max_length=100)] = ()
    extra_args: (
        Annotated[str, msgspec.Meta(max_length=_MOST_CHARACTERS)]
        | Annotated[tuple[str, ...], msgspec.Meta(max_length=100)]
        | None
    ) = None
    """Options for the engine, as one text that is split as a shell would, or as a list. They never meet a shell, and only those
    that tune the engine are allowed."""
    preferred_gpu: Annotated[int, msgspec.Meta(ge=0, le=1023)] | Text | None = None
    """A GPU by its index, UUID or name; any that is free when null."""
    health_path: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    """Where the engine tells of its health; `/health` when null."""
    engine: EngineChoice = "auto"
    """`auto` is vLLM where it can be started and there is a GPU, else the built-in engine."""
    name: Annotated[str, msgspec.Meta(max_length=100)] | None = None
    """A name that is a model reference as well, so it must mean nothing else."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a request comes to."""

    resolved: ResolvedModel
    engine: EngineKind
    arguments: tuple[str, ...]
    preferred_gpu: str | None
    health_path: str

    @property
    def path(self) -> str:
        """What the engine loads."""
        return self.resolved.base or self.resolved.path

    @property
    def served_name(self) -> str:
        return name_of(self.resolved.path)

    @property
    def adapters(self) -> tuple[ServedAdapter, ...]:
        if not self.resolved.adapter:
            return ()
        return (ServedAdapter(name=self.served_name, path=self.resolved.path, rank=self.resolved.rank),)


class Planner:
    """Checks requests. Reads folders."""

    def __init__(
        self,
        *,
        resolve: Callable[[str, str], ResolvedModel],
        engines: Engines,
        arguments: EngineArguments,
        other_meaning: Callable[[str], str | None],
    ) -> None:
        """``other_meaning`` says what a name means already where a model is named, or None."""
        self._resolve = resolve
        self._engines = engines
        self._arguments = arguments
        self._other_meaning = other_meaning

    def plan(self, request: DeploymentRequest, resolved: ResolvedModel | None = None) -> Plan:
        """``resolved`` is the model, if that is known already.

        Raises:
            InvalidInput: a field cannot be used.
            MissingReference: there is no such model.
            Forbidden: it lies outside the allowed roots.
        """
        health_path = request.health_path if request.health_path is not None else "/health"
        faults = [fault for fault in (self._name_fault(request.name), _path_fault(health_path)) if fault is not None]
        faults += [
            Fault(message=f"{shortened(tag)!r} is empty or holds control characters", where=f"tags[{place}]")
            for place, tag in enumerate(request.tags)
            if not tag.strip() or not tag.isprintable()
        ]
        if faults:
            raise InvalidInput("the deployment cannot be made like this", faults=tuple(faults))
        engine = self._engines.choose(request.engine)
        preferred = request.preferred_gpu
        arguments = self._arguments.split(request.extra_args or "", engine)
        resolved = resolved or self._resolve(request.model_path, "model_path")
        return Plan(
            engine=engine,
            arguments=arguments,
            resolved=resolved,
            preferred_gpu=str(preferred) if preferred not in (None, "") else None,
            health_path=health_path,
        )

    def _name_fault(self, name: str | None) -> Fault | None:
        if name is None:
            return None
        if not name.strip() or "/" in name or "\\" in name or not name.isprintable() or name in (".", ".."):
            message = "must not be empty, nor hold slashes or control characters"
            return Fault(
                message=message, where="name", mend="the name is a part of the deployment's address; use - or _"
            )
        meaning = self._other_meaning(name)
        if meaning is None:
            return None
        return Fault(message=f"{name!r} is {meaning} already", where="name", mend="choose another name")


def _path_fault(path: str) -> Fault | None:
    if _PATH.fullmatch(path):
        return None
    return Fault(
        message=f"{shortened(path)!r} is not a path on the engine",
        where="health_path",
        mend="begin it with one slash, such as /health; spaces and the like are written as %20",
    )
