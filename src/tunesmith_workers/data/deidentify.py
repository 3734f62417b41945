"""De-identifies rows: every text in them, whatever its field, but for what only names a role, a type or a tool.

Numbers are left alone. What finds and replaces is the engine's; this module knows no policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tunesmith_workers.data.shapes import RowFault
from tunesmith_workers.process.time_limit import TookTooLong, at_most

Row = dict[str, Any]

_KEPT = frozenset({"role", "from", "type", "tools", "tool_call_id"})
"""Keys whose texts are not anybody's words."""
ROW_SECONDS = 10.0
"""How long a short row may compute; a longer one has as much again for every so many characters."""
# An ordinary machine computes for less than a second at so much Chinese text, which takes longest.
_CHARACTERS = 10_000


class _Outcome(Protocol):
    @property
    def texts(self) -> list[str]: ...

    @property
    def counts(self) -> dict[str, int]: ...


class _Session(Protocol):
    def together(self, texts: Sequence[str]) -> _Outcome: ...


class Engine(Protocol):
    """What is needed of the de-identification engine."""

    @property
    def policy_id(self) -> str: ...

    @property
    def version(self) -> str: ...

    def session(self, seed: int | None = None) -> _Session: ...


class Policy(NamedTuple):
    """What provenance says of the policy that data went through."""

    id: str
    version: str


class Deidentifier:
    """Takes rows through one policy; within one file the same original always gets the same replacement."""

    def __init__(self, engine: Engine, seed: int, row_seconds: float = ROW_SECONDS) -> None:
        self.policy = Policy(engine.policy_id, engine.version)
        self.counts: Counter[str] = Counter()
        self._session = engine.session(seed)
        self._row_seconds = row_seconds

    @classmethod
    def load(
        cls,
        policy: str,
        *,
        policies_dir: Path | None,
        locale: str | None,
        seed: int,
        row_seconds: float = ROW_SECONDS,
    ) -> Deidentifier:
        """Raises WorkerFault when there is no such policy, or what it needs is not installed."""
        from tunesmith_workers.deid.engine import Engine as LoadedEngine  # noqa: PLC0415  # seconds of dictionaries

        return cls(LoadedEngine.load(policy, policies_dir=policies_dir, locale=locale), seed, row_seconds)

    def row(self, row: Row) -> Row:
        """The row without what the policy treats; what is found anywhere in it is replaced in all of it.

        Raises:
            RowFault: it took too long.
        """
        texts: list[str] = []
        _collect(row, texts)
        characters = sum(map(len, texts))
        seconds = self._row_seconds * (1 + characters / _CHARACTERS)
        try:
            with at_most(seconds):
                outcome = self._session.together(texts)
        except TookTooLong:
            raise RowFault(
                f"could not be de-identified within {seconds:g} s; it has {characters} characters", kind="took too long"
            ) from None
        self.counts.update(outcome.counts)
        replaced: Row = _replaced(row, iter(outcome.texts))
        return replaced


def _collect(value: Any, texts: list[str]) -> None:
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key not in _KEPT:
                _collect(item, texts)
    elif isinstance(value, list):
        for item in value:
            _collect(item, texts)


def _replaced(value: Any, texts: Any) -> Any:
    """The same value with the next texts in place of its own: walks exactly as ``_collect`` does."""
    if isinstance(value, str):
        return next(texts)
    if isinstance(value, dict):
        return {key: item if key in _KEPT else _replaced(item, texts) for key, item in value.items()}
    if isinstance(value, list):
        return [_replaced(item, texts) for item in value]
    return value
