"""What each type of grader gives, beside numbers worked out by hand or by the library that defines them."""

from __future__ import annotations

import math
import re

import pytest
import sacrebleu
from grader_parts import (
    EVERY,
    JSON_MATCH,
    REGEX,
    SIMILARITY,
    STRING_CHECK,
    changed,
    flags_of,
    graded,
    reward,
    similarity_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.gleu_score import sentence_gleu
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sacrebleu.tokenizers.tokenizer_re import TokenizerRegexp
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

from tunesmith_workers.rewards.similarity import METRICS
from tunesmith_workers.rewards.words import common_length

PAIRS = [
    ("the cat sat on a mat", "the cat sat on the mat"),
    (
        "It is a guide to action which ensures that the military obeys.",
        "It is a guide to action that ensures that the military will obey.",
    ),
    ("nothing of the kind", "a small red box"),
    ("", "a small red box"),
    ("a b c d e f g", "a b c d e f g"),
]
texts = st.text("ab cé天.", max_size=30)


@pytest.mark.parametrize(
    ("operation", "text", "reference", "score"),
    [
        ("eq", "blue", "blue", 1),
        ("eq", "Blue", "blue", 0),
        ("eq", "blue ", "blue", 0),
        ("ne", "blue", "blue", 0),
        ("ne", "Blue", "blue", 1),
        ("like", "the blue sky", "blue", 1),
        ("like", "the Blue sky", "blue", 0),
        ("like", "blue", "the blue sky", 0),
        ("ilike", "the BLUE sky", "blue", 1),
        ("ilike", "STRASSE", "straße", 1),
        ("ilike", "grey", "blue", 0),
    ],
)
def test_string_check_by_hand(operation, text, reference, score):
    """Like looks for the reference in the input; ilike without regard to case."""
    assert reward(changed(STRING_CHECK, operation=operation), text, reference) == score


@given(texts, texts)
def test_string_checks_agree_with_each_other(text, reference):
    """Ne is the complement of eq; what is equal is alike, and what is alike is so in any case."""
    scores = {
        name: reward(changed(STRING_CHECK, operation=name), text, reference) for name in ("eq", "ne", "like", "ilike")
    }
    assert scores["eq"] + scores["ne"] == 1
    assert scores["eq"] <= scores["like"] <= scores["ilike"]


def test_fuzzy_match_is_the_ratio_of_rapidfuzz():
    """Its documented example, and others by hand: twice the common subsequence over both lengths."""
    assert similarity_of("fuzzy_match", "this is a test", "this is a test!") == pytest.approx(0.9655172413793104)
    assert similarity_of("fuzzy_match", "kitten", "sitting") == pytest.approx(2 * 4 / 13)
    assert similarity_of("fuzzy_match", "", "") == 1.0
    assert similarity_of("fuzzy_match", "", "x") == 0.0
    assert similarity_of("fuzzy_match", "天气很好", "天气不好") == pytest.approx(0.75)


def table_length(ours: str, theirs: str) -> int:
    """The longest common subsequence by the textbook's table."""
    row = [0] * (len(theirs) + 1)
    for one in ours:
        before = row
        row = [0]
        for place, other in enumerate(theirs):
            row.append(before[place] + 1 if one == other else max(before[place + 1], row[place]))
    return row[-1]


@given(texts, texts)
def test_the_common_subsequence_is_that_of_the_table(ours, theirs):
    """Computed with the bits of one number."""
    assert common_length(ours, theirs) == table_length(ours, theirs) == common_length(theirs, ours)


@pytest.mark.parametrize(("text", "reference"), PAIRS)
def test_bleu_is_sacrebleus_sentence_score(text, reference):
    """From 0 to 1, with no more n than the answer is long."""
    theirs = sacrebleu.sentence_bleu(text, [reference], use_effective_order=True).score / 100
    assert similarity_of("bleu", text, reference) == pytest.approx(theirs)


@pytest.mark.parametrize(("text", "reference"), PAIRS)
@pytest.mark.parametrize("name", ["rouge1", "rouge2", "rouge3", "rouge4", "rouge5", "rougeL"])
def test_rouge_is_that_of_the_library(name, text, reference):
    """F1, for every length of n-gram and the longest common subsequence."""
    theirs = RougeScorer([name]).score(reference, text)[name].fmeasure
    assert similarity_of(f"rouge_{name[5:].lower()}", text, reference) == pytest.approx(theirs)


@pytest.mark.parametrize(("text", "reference"), PAIRS)
def test_gleu_is_that_of_nltk(text, reference):
    """On the words of sacrebleu."""
    words = Tokenizer13a()
    theirs = sentence_gleu([words(reference).split()], words(text).split())
    assert similarity_of("gleu", text, reference) == pytest.approx(theirs)


def test_gleu_by_hand():
    """The 'the the the' example of its authors' implementation: 2 of 22 sequences."""
    assert similarity_of("gleu", "the the the the the the the", "the cat is on the mat") == pytest.approx(2 / 22)


def test_meteor_by_hand():
    """Equal words, then equal stems; the penalty counts how often the order breaks."""
    # Six of six words in one run: F 1, penalty 0.5 * (1/6)^3.
    assert similarity_of("meteor", "the cat sat on the mat", "the cat sat on the mat") == pytest.approx(1 - 0.5 / 216)
    # cats ~ cat by its stem: the same number.
    assert similarity_of("meteor", "the cats sat on the mat", "the cat sat on the mat") == pytest.approx(1 - 0.5 / 216)
    # on the mat sat the cat: two words are at their places in every alignment; all six match.
    assert 0.5 <= similarity_of("meteor", "on the mat sat the cat", "the cat sat on the mat") < 1
    # P 1/2, R 1/4: F 10PR / (R + 9P) = 1.25/4.75, one run of one match: penalty one half.
    assert similarity_of("meteor", "red car", "a small red box") == pytest.approx(0.5 * (1.25 / 4.75))
    # Synonyms count as nothing.
    assert similarity_of("meteor", "automobile", "car") == 0.0


@pytest.mark.parametrize("metric", METRICS)
def test_similarity_is_between_0_and_1(metric):
    """For any two texts, and the same whatever is graded before."""
    grader = changed(SIMILARITY, evaluation_metric=metric)

    @settings(max_examples=60, deadline=None)
    @given(texts, texts)
    def promise(text, reference):
        assert 0 <= reward(grader, text, reference) <= 1

    promise()
    several = "one two three four five six"
    assert reward(grader, several, several) == pytest.approx(1, abs=0.01)
    assert reward(grader, several, "nothing in common") < 0.35


@pytest.mark.parametrize("metric", METRICS)
def test_long_texts_are_compared_or_refused(metric):
    """Whatever they hold, there is an answer: a score, or an error that says why there is none."""
    grader = changed(SIMILARITY, evaluation_metric=metric)
    for text, reference in (("y" * 60_000, "y" * 59_999), ("word " * 12_000, "words " * 12_000), ("ab" * 500_000, "b")):
        found = graded(grader, text, reference)
        assert 0 <= found.reward <= 1
        assert flags_of(found) <= {"other_error"}


@pytest.mark.parametrize("metric", ["bleu", "gleu"])
def test_no_text_is_kept_in_memory(metric):
    """A training grades hundreds of thousands; the library alone would keep them."""
    assert similarity_of(metric, "blue", "blue") == similarity_of(metric, "天气很好", "天气很好") == 1.0
    assert all(kind.__call__.cache_info().currsize == 0 for kind in (Tokenizer13a, TokenizerZh, TokenizerRegexp))


def test_short_texts_have_the_scores_of_the_definitions():
    """Equal texts without a pair of words have a ROUGE-2 of 0, and one word in common is half a METEOR."""
    assert similarity_of("rouge_2", "blue", "blue") == 0.0
    assert similarity_of("meteor", "blue", "blue") == 0.5
    assert similarity_of("bleu", "blue", "blue") == similarity_of("gleu", "blue", "blue") == 1.0


@pytest.mark.parametrize(
    ("text", "reference", "keys", "score"),
    [
        ('{"a": 1, "b": [2]}', {"b": [2.0], "a": 1}, None, 1),
        ('{"a": 1}', {"a": 1, "b": 2}, None, 0),
        ('{"a": true}', {"a": 1}, None, 0),
        ('```json\n{"a": 1}\n```', '{"a": 1}', None, 1),
        ("[1, 2]", [1, 2], None, 1),
        ("no JSON", {"a": 1}, None, 0),
        ('{"a": 1, "b": 3, "c": 9}', {"a": 1, "b": 2}, ["a", "b"], 0.5),
        ('{"a": {"x": [1, 2]}}', {"a": {"x": [1, 2]}, "b": 1}, ["a"], 1),
        ('{"a": 1}', {"a": 1}, ["a", "z"], 1),
        ('{"a": 1, "z": null}', {"a": 1}, ["a", "z"], 0.5),
        ("[1]", {"a": 1}, ["a"], 0),
        ("no JSON", {"a": 1}, ["a"], 0),
    ],
)
def test_json_match_of_graders_by_hand(text, reference, keys, score):
    """The same JSON or not; with keys, the share of these with the same value, or lacking in both."""
    assert reward(changed(JSON_MATCH, keys=keys), text, reference) == score


@pytest.mark.parametrize(("reference", "keys"), [("no JSON", None), ([1], ["a"])])
def test_a_reference_that_is_no_json_is_flagged(reference, keys):
    """It is the row's fault, not the answer's."""
    found = graded(changed(JSON_MATCH, keys=keys), "{}", reference)
    assert (flags_of(found), found.reward) == ({"sample_parse_error"}, 0.0)


@pytest.mark.parametrize(
    ("pattern", "text", "full", "score"),
    [
        (r"\d{4}", "in 2026", None, 1),
        (r"\d{4}", "in 2026", True, 0),
        (r"\d{4}", "2026", True, 1),
        (r"(?i)YES\b", "oh yes.", None, 1),
        (r"^answer: (\w+)$", "answer: blue\n", None, 1),
        (r"(?m)^b$", "a\nb", None, 1),
        (r"[^\]]+\}", "x}", True, 1),
        (r"(a|b)\1", "bb", True, 1),
        (r"颜色", "什么颜色", None, 1),
    ],
)
def test_regex_by_hand(pattern, text, full, score):
    """Anywhere in the input, or all of it; as Python's re has it."""
    assert reward(changed(REGEX, pattern=pattern, full=full), text) == score
    assert bool(re.fullmatch(pattern, text) if full else re.search(pattern, text)) == bool(score)


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(["{}", "[1]", "```", "0.5"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EVERY), texts | _values.map(str), _values, texts | _values.map(str))
def test_every_sample_has_a_finite_reward_or_a_reason(grader, text, reference, reply):
    """Whatever is in it, and whatever a judge says."""
    found = graded(grader, text, reference, lambda _: reply)
    assert math.isfinite(found.reward)
    assert found.failed == bool(flags_of(found)) == bool(found.messages)
    assert found.reward == 0 or not found.failed
