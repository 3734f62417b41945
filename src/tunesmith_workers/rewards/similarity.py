"""How alike two texts are, from 0 to 1, by the metrics of OpenAI's text_similarity grader.

Not by ``cosine``: there it is the similarity of embeddings, for which this service has no model; counting words would be
another number under the same name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from tunesmith_workers.rewards.sample import CannotGrade
from tunesmith_workers.rewards.words import Rouge, Words, bleu_scorer, common_length, forget_texts, load_library

Similarity = Callable[[str, str], float]
"""Of the input and the reference."""

_LONGEST = 200_000
_MOST_PAIRS = 10_000_000_000
"""Of characters or words, where each of one text is compared with each of the other: about a second."""


def similarity(metric: str, *, where: str) -> Similarity:
    """The function behind a name of METRICS. Raises PackageMissing: it needs a package that is not installed."""
    return _MAKERS[metric](where)


def _fuzzy_match(where: str) -> Similarity:
    def score(text: str, reference: str) -> float:
        _bounded(len(text), len(reference), where)
        both = len(text) + len(reference)
        return 2 * common_length(reference, text) / both if both else 1.0

    return score


def _bleu(where: str) -> Similarity:
    load_library("sacrebleu.metrics", "bleu", where=where)

    def score(text: str, reference: str) -> float:
        _short_enough(text, reference, where)
        scorer = bleu_scorer([reference], one_row=True, where=where)
        found = float(scorer.sentence_score(text, [reference]).score)
        forget_texts(scorer)
        return min(found / 100, 1.0)  # 100.00000000000004 for a text that is the reference

    return score


def _gleu(where: str) -> Similarity:
    """Matching sequences of one to four words, by the longer side: the lesser of precision and recall.

    Source: Wu et al., "Google's Neural Machine Translation System" (2016), section 5.2. Words are those of BLEU.
    """
    load_library("sacrebleu.metrics", "gleu", where=where)

    def score(text: str, reference: str) -> float:
        _short_enough(text, reference, where)
        scorer = bleu_scorer([reference], one_row=True, where=where)
        ours, theirs = (_sequences(scorer.tokenizer(one).split()) for one in (text, reference))
        forget_texts(scorer)
        return (ours & theirs).total() / max(ours.total(), theirs.total(), 1)

    return score


def _sequences(words: list[str]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[at : at + n]) for n in range(1, 5) for at in range(len(words) - n + 1))


class _NoSynonyms:
    """In the place of WordNet, which is no package."""

    def synsets(self, _word: str) -> tuple[()]:
        return ()


def _meteor(where: str) -> Similarity:
    """METEOR of nltk on equal words and equal stems (Porter), without WordNet's synonyms.

    Source: Lavie and Agarwal, "METEOR: An Automatic Metric for MT Evaluation" (2007); alpha 0.9, beta 3, gamma 0.5.
    """
    library = load_library("nltk.translate.meteor_score", "meteor", where=where)
    split, synonyms = Words().tokenize, _NoSynonyms()

    def score(text: str, reference: str) -> float:
        _short_enough(text, reference, where)
        try:
            return float(library.single_meteor_score(split(reference), split(text), wordnet=synonyms))
        except RecursionError:
            # Its stemmer goes through a run of the letter y by calling itself.
            raise CannotGrade("other_error", f"{where}: meteor cannot stem a word of this text") from None

    return score


def _rouge(name: str) -> Callable[[str], Similarity]:
    def make(where: str) -> Similarity:
        rouge = Rouge([name], where=where)

        def score(text: str, reference: str) -> float:
            _short_enough(text, reference, where)
            return rouge.f1(reference, text)[name]

        return score

    return make


_MAKERS: Mapping[str, Callable[[str], Similarity]] = MappingProxyType(
    {
        "fuzzy_match": _fuzzy_match,
        "bleu": _bleu,
        "gleu": _gleu,
        "meteor": _meteor,
        **{f"rouge_{n}": _rouge(f"rouge{n}") for n in range(1, 6)},
        "rouge_l": _rouge("rougeL"),
    }
)
METRICS: Final = tuple(_MAKERS)


def _short_enough(text: str, reference: str, where: str) -> None:
    if max(len(text), len(reference)) > _LONGEST:
        raise CannotGrade("other_error", f"{where}: texts of up to {_LONGEST:,} characters are compared")


def _bounded(ours: int, theirs: int, where: str) -> None:
    if ours * theirs > _MOST_PAIRS:
        raise CannotGrade(
            "other_error", f"{where}: texts of {ours:,} and {theirs:,} characters are too long to be compared"
        )
