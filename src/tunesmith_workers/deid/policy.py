"""Policies: which kinds are looked for and what is done with each. YAML files, shipped ones and those of the operator.

All that is wrong with a file is gathered and told at once. A policy that is broken is never replaced by another.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import msgspec
import yaml

from tunesmith_workers.deid.kinds import KINDS
from tunesmith_workers.process.faults import WorkerFault

Action = Literal["mask", "replace", "hash", "redact"]
Locale = Literal["zh-CN", "en-US"]

LOCALES: tuple[Locale, ...] = ("zh-CN", "en-US")
SHIPPED = Path(__file__).parent / "policies"

_ACTIONS: Mapping[str, tuple[str, ...]] = {
    "mask": ("first", "last", "character"),
    "replace": (),
    "hash": ("length",),
    "redact": (),
}
"""Every action with its options."""
_KEYS = ("id", "version", "summary", "locale", "salt", "kinds")
_MAX_BYTES = 64 * 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class Treatment(msgspec.Struct, frozen=True, kw_only=True):
    """What is done with findings of one kind."""

    action: Action
    first: int = 0
    """How many characters a mask leaves at the beginning."""
    last: int = 0
    character: str = "*"
    length: int = 12
    """How many hexadecimal digits of a hash are shown."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that can be used."""

    id: str
    version: str
    kinds: dict[str, Treatment]
    summary: str = ""
    locale: Locale | None = None
    salt: str = ""
    """A secret that makes replacements and hashes the same in every request; never shown."""


class PolicyFault(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong with a policy file."""

    message: str
    where: str
    mend: str | None = None


class BadPolicy(WorkerFault):
    """A policy file cannot be used; ``faults`` says everything that is wrong with it."""

    def __init__(self, name: str, faults: tuple[PolicyFault, ...]) -> None:
        lines = [f"{one.where}: {one.message}" + (f" ({one.mend})" if one.mend else "") for one in faults]
        super().__init__(
            f"the policy {name} cannot be used: " + "; ".join(lines), where="policy_id", mend="mend its file"
        )
        self.faults = faults


class UnknownPolicy(WorkerFault):
    """There is no policy of that name."""


def load_policy(name: str, folder: Path | None) -> Policy:
    """The policy of this name; one in ``folder`` goes before a shipped one.

    Raises:
        UnknownPolicy: with the nearest name.
        BadPolicy: with every fault of its file.
    """
    files = policy_files(folder)
    if name not in files:
        close = difflib.get_close_matches(name[:100], files, n=1)
        mend = f"did you mean {close[0]}?" if close else f"there are {', '.join(files)}"
        raise UnknownPolicy(f"there is no policy {name[:100]!r}", where="policy_id", mend=mend)
    policy, faults = read_policy(files[name])
    if policy is None:
        raise BadPolicy(name, faults)
    return policy


def policy_files(folder: Path | None) -> dict[str, Path]:
    """Every policy file by name, broken ones too."""
    folders = [SHIPPED, *([folder] if folder is not None and folder.is_dir() else [])]
    found = {path.stem: path for place in folders for path in sorted(place.glob("*.yaml"))}
    return dict(sorted(found.items()))


def read_policy(path: Path) -> tuple[Policy | None, tuple[PolicyFault, ...]]:
    """The policy, or None and what is wrong with it."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        # Every scalar as text, so that a version 1.10 stays 1.10.
        given = yaml.load(_short(content), _TextLoader)  # noqa: S506  # builds text, lists and mappings only
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error) or type(error).__name__
        fault = PolicyFault(message=f"cannot be read: {reason}", where=path.name, mend="write it as a YAML mapping")
        return None, (fault,)
    faults = tuple(_faults(given, path))
    return (None, faults) if faults else (_policy(given), ())


def _short(content: bytes) -> bytes:
    if len(content) > _MAX_BYTES:
        raise ValueError(f"longer than {_MAX_BYTES} bytes")
    return content


class _TextLoader(yaml.BaseLoader):
    """Plain YAML: no aliases, which can expand without end, and no key twice."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it uses an alias (*name): write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002  # PyYAML's
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            raise yaml.YAMLError(f"it gives the key {twice[0]} twice")
        return super().construct_mapping(node, deep)


def _faults(given: Any, path: Path) -> Iterator[PolicyFault]:
    if not isinstance(given, dict):
        yield PolicyFault(message="is not a mapping", where=path.name, mend=f"its keys are {', '.join(_KEYS)}")
        return
    yield from _unknown(given, _KEYS, "")
    for key in ("id", "version"):
        if not isinstance(given.get(key), str) or not given[key]:
            yield PolicyFault(message="is missing", where=key, mend=f"write `{key}: ...` at the top")
    name = given.get("id")
    if isinstance(name, str) and name and not _NAME.fullmatch(name):
        yield PolicyFault(message="is no name", where="id", mend="use up to 64 letters, digits, -, _ and .")
    elif isinstance(name, str) and name and name != path.stem:
        yield PolicyFault(message=f"must be the file's name, {path.stem}", where="id", mend="change one of the two")
    for key in ("summary", "salt"):
        if not isinstance(given.get(key, ""), str):
            yield PolicyFault(message="must be text", where=key)
    if "locale" in given and given["locale"] not in LOCALES:
        yield _choice(given["locale"], LOCALES, "locale")
    yield from _kinds_faults(given.get("kinds"))


def _kinds_faults(kinds: Any) -> Iterator[PolicyFault]:
    if not isinstance(kinds, dict) or not kinds:
        yield PolicyFault(message="names no kind", where="kinds", mend="write `kinds: {PERSON: {action: redact}}`")
        return
    yield from _unknown(kinds, KINDS, "kinds.")
    for kind, treatment in kinds.items():
        where = f"kinds.{kind}"
        if not isinstance(treatment, dict):
            yield PolicyFault(message="must be a mapping", where=where, mend=f"write `{kind}: {{action: redact}}`")
            continue
        action = treatment.get("action")
        if not isinstance(action, str) or action not in _ACTIONS:
            yield _choice(action, _ACTIONS, f"{where}.action")
            continue
        yield from _unknown(treatment, ("action", *_ACTIONS[action]), f"{where}.")
        yield from _option_faults(treatment, where)


def _option_faults(treatment: dict[str, Any], where: str) -> Iterator[PolicyFault]:
    for option, least, most in (("first", 0, 64), ("last", 0, 64), ("length", 6, 64)):
        value = treatment.get(option)
        if value is not None and not (isinstance(value, str) and value.isdecimal() and least <= int(value[:9]) <= most):
            yield PolicyFault(message=f"must be a whole number from {least} to {most}", where=f"{where}.{option}")
    character = treatment.get("character", "*")
    if not isinstance(character, str) or len(character) != 1 or character.isalnum():
        yield PolicyFault(message="must be one character that is no letter or digit", where=f"{where}.character")


def _unknown(given: Mapping[Any, Any], known: Iterable[str], prefix: str) -> Iterator[PolicyFault]:
    for key in given:
        if not isinstance(key, str) or key not in known:
            yield _choice(key, known, f"{prefix}{key}", "there is no such key")


def _choice(value: Any, known: Iterable[str], where: str, message: str | None = None) -> PolicyFault:
    names = list(known)
    folded = {name.casefold(): name for name in names}
    close = difflib.get_close_matches(str(value).casefold()[:100], folded, n=1)
    mend = f"did you mean {folded[close[0]]}?" if close else f"it can be {', '.join(names)}"
    if message is None:
        message = "is missing" if value is None else f"cannot be {str(value)[:60]!r}"
    return PolicyFault(message=message, where=where[:200], mend=mend)


def _policy(given: Mapping[str, Any]) -> Policy:
    return Policy(
        id=given["id"],
        version=given["version"],
        summary=given.get("summary", ""),
        locale=cast(Locale | None, given.get("locale")),
        salt=given.get("salt", ""),
        kinds={kind: _treatment(treatment) for kind, treatment in given["kinds"].items()},
    )


def _treatment(given: Mapping[str, str]) -> Treatment:
    numbers = {name: int(given[name]) for name in ("first", "last", "length") if name in given}
    return Treatment(action=cast(Action, given["action"]), character=given.get("character", "*"), **numbers)
