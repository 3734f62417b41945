"""The engine: a policy, what finds, and what replaces. One engine serves any number of calls, one at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tunesmith_workers.deid.detector import Detector
from tunesmith_workers.deid.finding import Span
from tunesmith_workers.deid.made_up import MadeUp
from tunesmith_workers.deid.policy import Policy, load_policy
from tunesmith_workers.deid.session import Session
from tunesmith_workers.faults import BadConfig


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
        self._made_up = MadeUp()

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

    def texts(self, texts: Sequence[str], seed: int | None = None) -> tuple[list[str], dict[str, int]]:
        """The texts without what the policy treats, and how many findings of each kind that were."""
        outcome = self.session(seed).texts(texts)
        return outcome.texts, outcome.counts

    def session(self, seed: int | None = None) -> EngineSession:
        """For texts that come bit by bit: within a session the same original always gets the same replacement."""
        return EngineSession(self, Session(self.policy, self._made_up, seed))


class EngineSession:
    """One request, or one dataset: remembers what it put in place of what."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._session = session

    def texts(self, texts: Sequence[str]) -> Outcome:
        counts: Counter[str] = Counter()
        done: list[str] = []
        mapping: list[dict[str, str]] = []
        for text in texts:
            pairs: dict[str, str] = {}
            done.append(self._text(text, pairs, counts))
            mapping.append(pairs)
        return Outcome(done, dict(sorted(counts.items())), mapping)

    def _text(self, text: str, pairs: dict[str, str], counts: Counter[str]) -> str:
        parts: list[str] = []
        position = 0
        for span in self._engine.spans(text):
            if span.kind not in self._engine.policy.kinds:
                continue
            original = text[span.start : span.end]
            replacement = self._session.treat(span.kind, original)
            pairs[original] = replacement
            counts[span.kind] += 1
            parts += [text[position : span.start], replacement]
            position = span.end
        return "".join([*parts, text[position:]])
