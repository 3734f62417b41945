"""Finds personal data in a text, one finding for each place. What is done about it is decided elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from tunesmith_workers.deid import libraries
from tunesmith_workers.deid.finding import Reading, Span, read
from tunesmith_workers.deid.propagation import propagate
from tunesmith_workers.deid.recognisers import build_recognisers


class Finder(Protocol):
    """What runs the recognisers."""

    def find(self, reading: Reading) -> list[Span]: ...


class Detector:
    """Dictionaries and recognisers, ready. Loading takes seconds and some 300 MB; nothing in it changes afterwards."""

    def __init__(self, cutter: Any, finder: Finder) -> None:
        self._cutter = cutter
        self._finder = finder

    @classmethod
    def load(cls) -> Detector:
        """
        Raises:
            PackageMissing: the extra ``deid`` is not installed.
        """
        from tunesmith_workers.deid.analyzer import Analyzer  # noqa: PLC0415  # seconds, which reading policies needs not

        cutter = libraries.load_cutter()
        return cls(cutter, Analyzer(build_recognisers(cutter.word_tag_tab)))

    def spans(self, text: str, locale: str | None = None) -> list[Span]:
        """What is found in ``text``, in order, without overlaps."""
        return self.together([text], locale)[0]

    def together(self, texts: Sequence[str], locale: str | None = None) -> list[list[Span]]:
        """The same for texts that belong together: what is found anywhere in them is found in all of them."""
        readings = [read(text, self._cut, locale) for text in texts]
        found = [_without_overlaps(self._finder.find(reading)) for reading in readings]
        return propagate([reading.folded for reading in readings], found)

    def _cut(self, text: str) -> Iterator[tuple[str, str]]:
        guesses = len(text) <= _SHORT or not self._is_gibberish(text)
        return ((pair.word, pair.flag) for pair in self._cutter.lcut(text, HMM=guesses))

    def _is_gibberish(self, text: str) -> bool:
        """Whether many characters in a row make no word. Guessing at them costs jieba a millisecond each."""
        in_a_row = 0
        for word in self._cutter.tokenizer.cut(text, HMM=False):
            in_a_row = in_a_row + 1 if len(word) == 1 else 0
            if in_a_row > _MOST_IN_A_ROW:
                return True
        return False


_SHORT = 100
_MOST_IN_A_ROW = 24


def _without_overlaps(found: Iterable[Span]) -> list[Span]:
    """The surest and then the longest of those that overlap."""
    kept: list[Span] = []
    taken: set[int] = set()
    for span in sorted(found, key=lambda one: (-one.score, one.start - one.end, one.start)):
        places = range(span.start, span.end)
        if taken.isdisjoint(places):
            taken.update(places)
            kept.append(span)
    return sorted(kept, key=lambda one: one.start)
