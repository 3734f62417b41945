"""The engine: a policy, what finds, and what replaces. One engine serves any number of calls, one at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith_workers.deid.detector import Detector
from tunesmith_workers.deid.finding import Span
from tunesmith_workers.deid.names import Part, parts_of_all
from tunesmith_workers.deid.policy import Policy, load_policy
from tunesmith_workers.deid.session import Session
from tunesmith_workers.deid.surrogates import Surrogates
from tunesmith_workers.process.faults import BadConfig


class Outcome(NamedTuple):
    """What became of some texts."""

    texts: list[str]
    counts: dict[str, int]
    """How many findings of each kind were treated; kinds without any are left out."""
    mapping: list[dict[str, str]]
    """For each text, what stood there and what stands there now."""


class Engine:
    """De-identifies texts as one policy says."""

    def __init__(self, policy: Policy, detector: Detector, locale: str | None = None) -> None:
        self.policy = policy
        self._detector = detector
        self._locale = locale or policy.locale
        self._surrogates = Surrogates()

    @classmethod
    def load(
        cls,
        policy: str = "default",
        policies_dir: Path | None = None,
        locale: str | None = None,
        *,
        detector: Detector | None = None,
    ) -> Engine:
        """An engine for the policy of this name. The first one of a process takes seconds; hand on its ``detector``.

        Args:
            policy: the id of a policy.
            policies_dir: where the operator's policies lie; shipped ones are always there.
            locale: ``zh-CN`` or ``en-US``, how to read what each country reads differently; None: each text by its script.
            detector: of another engine; saves loading the dictionaries again.

        Raises:
            UnknownPolicy, BadPolicy: with the nearest name, or all that is wrong.
            PackageMissing: the extra ``deid`` is not installed.
        """
        if locale not in (None, "zh-CN", "en-US"):
            raise BadConfig(f"there is no locale {locale!r}", where="locale", mend="it is zh-CN or en-US")
        return cls(load_policy(policy, policies_dir), detector or Detector.load(), locale)

    @property
    def policy_id(self) -> str:
        return self.policy.id

    @property
    def version(self) -> str:
        """The policy's version, as its file says."""
        return self.policy.version

    @property
    def detector(self) -> Detector:
        return self._detector

    def spans(self, text: str) -> list[Span]:
        """Everything that is found, whatever the policy does with it, in order and without overlaps."""
        return self._detector.spans(text, self._locale)

    def together(self, texts: Sequence[str]) -> list[list[Span]]:
        """The same for texts that belong together: what is found anywhere in them is found in all of them."""
        return self._detector.together(texts, self._locale)

    def texts(self, texts: Sequence[str], seed: int | None = None) -> tuple[list[str], dict[str, int]]:
        """The texts without what the policy treats, and how many findings of each kind that were."""
        outcome = self.session(seed).texts(texts)
        return outcome.texts, outcome.counts

    def session(self, seed: int | None = None) -> EngineSession:
        """For texts that come bit by bit: within a session the same original always gets the same replacement."""
        return EngineSession(self, Session(self.policy, self._surrogates, seed))


class EngineSession:
    """One request, or one dataset: remembers what it put in place of what."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session

    def texts(self, texts: Sequence[str]) -> Outcome:
        """Texts that have nothing to do with one another, such as those of a request."""
        outcomes = [self.together([text]) for text in texts]
        counts = Counter[str]()
        for outcome in outcomes:
            counts.update(outcome.counts)
        return Outcome(
            [outcome.texts[0] for outcome in outcomes],
            dict(sorted(counts.items())),
            [outcome.mapping[0] for outcome in outcomes],
        )

    def together(self, texts: Sequence[str]) -> Outcome:
        """Texts that belong together, such as the messages of a row: what is found in one is replaced in all, alike."""
        found = [
            [span for span in spans if span.kind in self._engine.policy.kinds] for spans in self._engine.together(texts)
        ]
        people = [
            _plain(text[span.start : span.end])
            for text, spans in zip(texts, found, strict=True)
            for span in spans
            if span.kind == "PERSON"
        ]
        row = _Row(self._session, parts_of_all(people))
        done = [_replaced(text, spans, row) for text, spans in zip(texts, found, strict=True)]
        counts = Counter(span.kind for spans in found for span in spans)
        return Outcome([text for text, _ in done], dict(sorted(counts.items())), [pairs for _, pairs in done])


class _Row:
    """What belongs together, as it is being replaced. A part of a full name follows it if that tells people apart still."""

    def __init__(self, session: Session, parts: Mapping[str, Part]) -> None:
        self._session = session
        self._parts = parts
        self._stands_for: dict[str, str] = {}
        """For what was put in place of parts, what it stands for."""

    def treat(self, kind: str, original: str) -> str:
        part = self._parts.get(original) if kind == "PERSON" else None
        made = self._session.treat_part(part) if part is not None else None
        if made is None or self._stands_for.setdefault(made, original) != original:
            made = self._session.treat(kind, original)
        return made


def _replaced(text: str, spans: Iterable[Span], row: _Row) -> tuple[str, dict[str, str]]:
    """The text without what was found, and what stands now in place of what."""
    pairs: dict[str, str] = {}
    pieces: list[str] = []
    position = 0
    for span in spans:
        written = text[span.start : span.end]
        original = _plain(written)
        made = row.treat(span.kind, original)
        # Within JSON, what was escaped is escaped again.
        pairs[written] = made if written == original else json.dumps(made)[1:-1]
        pieces += [text[position : span.start], pairs[written]]
        position = span.end
    return "".join([*pieces, text[position:]]), pairs


def _plain(written: str) -> str:
    """What is meant by something that may be escaped as within JSON."""
    if "\\" not in written:
        return written
    try:
        return str(json.loads(f'"{written}"'))
    except ValueError:
        return written
