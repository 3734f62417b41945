"""Metrics of answers, each beside numbers worked out by hand or by the library that defines it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from tunesmith_workers.evaluation.measured import Measured
from tunesmith_workers.evaluation.metrics import KINDS, chosen
from tunesmith_workers.evaluation.text_scores import text_metrics
from tunesmith_workers.process.faults import BadConfig
from tunesmith_workers.rewards.json_match import find_json, score_json

EXPECTED = ["the cat sat on the mat", "a small red box", "it rains in the city today"]
ANSWERS = ["the cat sat on a mat", "a small red box", "nothing of the kind"]


def measured(name: str, expected=EXPECTED, answers=ANSWERS) -> dict[str, Measured]:
    return {one.name: one for one in text_metrics([name], expected, answers)}


def test_exact_match_is_the_share_of_equal_texts():
    """Space around them is no difference."""
    found = measured("exact_match", ["a", "b", "c"], [" a\n", "B", "c d"])["exact_match"]
    assert found.overall == pytest.approx(1 / 3)
    assert found.by_row == (1.0, 0.0, 0.0)


def test_rouge_by_hand():
    """F1 of shared words, of pairs, and of the longest common subsequence, as a mean over rows."""
    expected, answers = ["the cat sat on the mat"], ["the cat sat on a mat"]
    assert measured("rouge1", expected, answers)["rouge1"].overall == pytest.approx(5 / 6)
    assert measured("rouge2", expected, answers)["rouge2"].overall == pytest.approx(3 / 5)
    assert measured("rougeL", expected, answers)["rougeL"].overall == pytest.approx(5 / 6)


@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_that_of_the_library(name):
    """On English text, punctuation and underscores included."""
    expected, answers = [*EXPECTED, "snake_case, v2.0 (Beta)!"], [*ANSWERS, "snake case: v2 beta"]
    theirs = [RougeScorer([name]).score(*pair)[name].fmeasure for pair in zip(expected, answers, strict=True)]
    assert measured(name, expected, answers)[name].by_row == pytest.approx(theirs)


def test_rouge_counts_letters_that_are_not_english():
    """Chinese by the character; the library itself sees no word in it."""
    assert RougeScorer(["rouge1"]).score("天气很好", "天气很好")["rouge1"].fmeasure == 0.0
    assert measured("rouge1", ["天气很好"], ["天气不好"])["rouge1"].overall == pytest.approx(0.75)
    assert measured("rouge1", ["un café noir"], ["un cafe noir"])["rouge1"].overall == pytest.approx(2 / 3)


def test_bleu_and_chrf_are_sacrebleus():
    """Of the whole corpus, not a mean over rows."""
    assert measured("bleu")["bleu"].overall == pytest.approx(sacrebleu.corpus_bleu(ANSWERS, [EXPECTED]).score)
    assert measured("chrf")["chrf"].overall == pytest.approx(sacrebleu.corpus_chrf(ANSWERS, [EXPECTED]).score)
    assert measured("bleu")["bleu"].by_row[1] == pytest.approx(100)


def test_bleu_by_hand():
    """Four of four words, three of three pairs, two of two triples, one of one; and one word too few."""
    found = measured("bleu", ["a small red box here"], ["a small red box"])["bleu"]
    assert found.overall == pytest.approx(100 * np.exp(1 - 5 / 4))


def test_bleu_of_chinese_counts_characters():
    """A sentence without spaces is not one word."""
    text, answer = ["我们明天去公园散步吧朋友"], ["我们明天去公园走走吧朋友"]
    theirs = sacrebleu.corpus_bleu(answer, [text], tokenize="zh").score
    assert measured("bleu", text, answer)["bleu"].overall == pytest.approx(theirs)
    assert theirs > 30


@pytest.mark.parametrize(
    ("expected", "answer", "share"),
    [
        ({"a": 1, "b": "x"}, '{"b": "x", "a": 1}', 1.0),
        ({"a": 1, "b": "x"}, '{"a": 1.0, "b": "y"}', 0.5),
        ({"a": 1, "b": "x"}, '{"a": 1}', 0.5),
        ({"a": 1}, '{"a": 1, "b": 2}', 0.5),
        ({"a": {"b": 1, "c": [1, 2]}}, '{"a": {"b": 1, "c": [1, 3]}}', 2 / 3),
        ({"a": {"b": 1}}, '{"a.b": 1}', 0.0),
        ({"a": True}, '{"a": 1}', 0.0),
        ({"a": None}, '{"a": null}', 1.0),
        ({"a": []}, '{"a": []}', 1.0),
        ([1, 2], "[1, 2]", 1.0),
        ({"a": "1"}, '{"a": 1}', 0.0),
    ],
)
def test_json_match_by_hand(expected, answer, share):
    """Nested fields by their path; numbers by value; a field too many is as wrong as one too few."""
    score = score_json(expected, answer)
    assert score.share == pytest.approx(share)
    assert score.valid
    assert not score.wrapped


@pytest.mark.parametrize(
    "answer",
    [
        '```json\n{"a": 1}\n```',
        'Here it is:\n```\n{"a": 1}\n```\nAnything else?',
        'The answer [as asked] is {"a": 1}.',
        '{"a": 1} and {"b": 2}',
    ],
)
def test_text_around_json_is_allowed_for_and_told(answer):
    """The JSON counts, and so does that it was wrapped."""
    score = score_json({"a": 1}, answer)
    assert (score.share, score.valid, score.wrapped) == (1.0, True, True)


@pytest.mark.parametrize(
    "answer", ["", "no", "```" + "\n" * 50_000, '{"a": ', '{"a": NaN}', "[" * 100_000, "{" * 10_000, "1" * 5000]
)
def test_what_is_no_json_has_no_field_right(answer):
    """However long or deep it is."""
    score = score_json({"a": 1}, answer)
    assert (score.share, score.valid) == (0.0, False) or not isinstance(find_json(answer).value, dict)


def test_json_match_says_how_many_are_json():
    """Rows whose expected answer is no JSON are left out."""
    found = measured(
        "json_match", ['{"a": 1}', '{"a": 1}', '{"a": 1}', "text"], ['{"a": 1}', '```\n{"a": 2}\n```', "?", "text"]
    )
    assert found["json_match"].overall == pytest.approx(1 / 3)
    assert found["json_valid"].overall == pytest.approx(2 / 3)
    assert found["json_wrapped"].overall == pytest.approx(1 / 3)
    assert found["json_match"].rows == 3


def test_wrong_names_are_refused_at_once():
    """With the nearest right ones."""
    with pytest.raises(BadConfig) as refused:
        chosen(["loss", "rogueL", "exactmatch", "qqq"], has_judge=False)
    assert "rogueL; did you mean rougeL" in refused.value.text
    assert "exactmatch; did you mean exact_match" in refused.value.text
    assert "qqq" in refused.value.text
    assert all(name in refused.value.mend for name in KINDS)


def test_a_missing_package_is_named_with_the_command_that_installs_it():
    """In an interpreter that cannot import it."""
    code = (
        "import sys; sys.modules['sacrebleu.metrics'] = None\n"
        "from tunesmith_workers.evaluation.text_scores import require_packages\n"
        "from tunesmith_workers.process.faults import PackageMissing\n"
        "try: require_packages(['exact_match', 'bleu'])\n"
        "except PackageMissing as fault: print(fault.text, fault.mend)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert "bleu needs the package sacrebleu" in done.stdout
    assert "pip install 'tunesmith[evaluate]'" in done.stdout
