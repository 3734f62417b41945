"""How texts are compared word by word, for the metrics of evaluations and for graders alike.

ROUGE is that of rouge-score with words of our own, BLEU that of sacrebleu; both are imported when asked for.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from tunesmith_workers.process.faults import PackageMissing

# Chinese, Japanese and Korean have no spaces between words: each character counts as one.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_CJK_CHARACTER = re.compile(f"[{_CJK}]")


class Words:
    """Splits text for ROUGE: as rouge-score does where it is ASCII, and all other letters count as well."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


class Rouge:
    """F1 of shared words, n-grams or the longest common subsequence, from 0 to 1."""

    def __init__(self, names: Sequence[str], *, where: str) -> None:
        """``names``: rouge1, rouge2 and so on up to rouge9, and rougeL. Raises PackageMissing."""
        self._has_longest = "rougeL" in names
        self._scorer: Any = None
        if counted := [name for name in names if name != "rougeL"]:
            library = load_library("rouge_score.rouge_scorer", counted[0], where=where)
            self._scorer = library.RougeScorer(counted, tokenizer=Words())

    def f1(self, expected: str, answer: str) -> Mapping[str, float]:
        scores = self._scorer.score(expected, answer) if self._scorer else {}
        found = {name: float(score.fmeasure) for name, score in scores.items()}
        if self._has_longest:
            # The library fills a table of all pairs of words, which takes seconds for long answers.
            ours, theirs = Words().tokenize(expected), Words().tokenize(answer)
            found["rougeL"] = 2 * common_length(ours, theirs) / max(len(ours) + len(theirs), 1)
        return found


def bleu_scorer(expected: Sequence[str], *, one_row: bool, where: str) -> Any:
    """The BLEU of sacrebleu for answers in the language of ``expected``; a single row rarely has four words in a row right."""
    library = load_library("sacrebleu.metrics", "bleu", where=where)
    return library.BLEU(tokenize="zh" if is_cjk(expected) else "13a", effective_order=one_row)


def forget_texts(scorer: Any) -> None:
    """Empty the caches of BLEU's tokenizers, which would keep 65,536 texts of a training in memory."""
    inner = load_library("sacrebleu.tokenizers.tokenizer_re", "bleu", where="sacrebleu").TokenizerRegexp
    kinds: tuple[Any, Any] = (type(scorer.tokenizer), inner)
    for kind in kinds:
        kind.__call__.cache_clear()


def is_cjk(texts: Sequence[str]) -> bool:
    """Whether most letters of these texts are Chinese, Japanese or Korean."""
    letters = sum(character.isalpha() for text in texts for character in text)
    return sum(len(_CJK_CHARACTER.findall(text)) for text in texts) * 2 > letters


def common_length(ours: Sequence[Hashable], theirs: Sequence[Hashable]) -> int:
    """The length of the longest common subsequence, a whole row of the table at a time as the bits of one number.

    Source: Hyyrö, "Bit-parallel LCS-length computation revisited" (2004).
    """
    places: dict[Hashable, int] = {}
    for place, one in enumerate(ours):
        places[one] = places.get(one, 0) | 1 << place
    full = (1 << len(ours)) - 1
    row = full
    for one in theirs:
        matches = row & places.get(one, 0)
        if matches:
            row = ((row + matches) | (row - matches)) & full
    return len(ours) - row.bit_count()


def load_library(module: str, metric: str, *, where: str) -> Any:
    """Raises PackageMissing."""
    try:
        with warnings.catch_warnings():
            # Their own use of what Python or a library deprecates is not for our users to mend.
            warnings.simplefilter("ignore")
            return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise PackageMissing(
            f"the metric {metric} needs the package {package}: {error}",
            where=where,
            mend="pip install 'tunesmith[evaluate]'",
        ) from error
