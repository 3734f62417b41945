"""Presidio's analyzer around our recognisers. Importing this takes seconds and needs the extra ``deid``.

Presidio is given an NLP engine of our own that loads no model: the reading of a text is made before, since it depends on
the locale, and travels in what presidio passes to every recogniser.
"""

from __future__ import annotations

from typing import Any

from tunesmith_workers.deid import libraries
from tunesmith_workers.deid.finding import Reading, Recogniser, Span
from tunesmith_workers.deid.kinds import KINDS

_presidio = libraries.load("presidio_analyzer")
_nlp = libraries.load("presidio_analyzer.nlp_engine")
_theirs = libraries.load("presidio_analyzer.predefined_recognizers")

_LANGUAGE = "und"
"""Presidio wants a language of every text and recogniser; ours look at the script themselves."""
_KIND_OF = {"IBAN_CODE": "BANK_ACCOUNT"}
_LEAST_SCORE = 0.3


class Analyzer:
    """Our recognisers and presidio's own for IBANs."""

    def __init__(self, recognisers: dict[str, Recogniser]) -> None:
        registry = _presidio.RecognizerRegistry(
            recognizers=[
                _Ours(recognisers),
                _theirs.IbanRecognizer(supported_language=_LANGUAGE),
            ],
            supported_languages=[_LANGUAGE],
        )
        self._engine = _presidio.AnalyzerEngine(
            registry=registry,
            nlp_engine=_NoModel(),
            supported_languages=[_LANGUAGE],
            context_aware_enhancer=_NoEnhancer(0, 0, 0, 0),
        )

    def find(self, reading: Reading) -> list[Span]:
        """What all recognisers found; it may overlap."""
        artifacts = _nlp.NlpArtifacts(
            entities=[], tokens=[], tokens_indices=[], lemmas=[], nlp_engine=None, language=_LANGUAGE
        )
        artifacts.reading = reading
        found = self._engine.analyze(
            text=reading.folded, language=_LANGUAGE, nlp_artifacts=artifacts, score_threshold=_LEAST_SCORE
        )
        return [Span(_KIND_OF.get(one.entity_type, one.entity_type), one.start, one.end, one.score) for one in found]


class _Ours(_presidio.EntityRecognizer):  # type: ignore[misc, name-defined]  # presidio ships no types
    """All recognisers of ours as a single one of presidio's, which spends as much on keeping each as ours need to look."""

    def __init__(self, recognisers: dict[str, Recogniser]) -> None:
        self._recognisers = tuple(recognisers.values())
        super().__init__(supported_entities=list(KINDS), name="Tunesmith", supported_language=_LANGUAGE)

    def load(self) -> None:
        """Nothing: it was built loaded."""

    def analyze(self, text: str, entities: list[str], nlp_artifacts: Any) -> list[Any]:  # noqa: ARG002  # presidio's
        reading = nlp_artifacts.reading
        return [_presidio.RecognizerResult(*span) for look in self._recognisers for span in look(reading)]


class _NoModel(_nlp.NlpEngine):  # type: ignore[misc, name-defined]
    """Stands where presidio would load a language model, and is never asked."""

    def load(self) -> None: ...

    def is_loaded(self) -> bool:
        return True

    def process_text(self, text: str, language: str) -> Any:
        raise NotImplementedError

    def process_batch(self, texts: Any, language: str, batch_size: int = 1, n_process: int = 1, **_: Any) -> Any:
        raise NotImplementedError

    def is_stopword(self, word: str, language: str) -> bool:  # noqa: ARG002  # presidio's
        return False

    def is_punct(self, word: str, language: str) -> bool:  # noqa: ARG002  # presidio's
        return False

    def get_supported_entities(self) -> list[str]:
        return []

    def get_supported_languages(self) -> list[str]:
        return [_LANGUAGE]


class _NoEnhancer(_presidio.ContextAwareEnhancer):  # type: ignore[misc, name-defined]
    """Our recognisers look at what surrounds a finding themselves."""

    def enhance_using_context(self, text: str, raw_results: Any, *_: Any, **__: Any) -> Any:  # noqa: ARG002  # presidio's
        return raw_results
