"""Formulas are read, never run as code, and give finite numbers or an error."""

from __future__ import annotations

import contextlib
import math

import pytest
from grader_parts import MULTI, REGEX, STRING_CHECK, changed, flags_of, graded, reward
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_workers.rewards.formula import BadFormula, NotFinite, evaluate, read_formula

SCORES = {"a": 0.5, "b": 2.0, "c": -1.0, "质量": 0.25}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.8 * a + 0.2 * b", 0.8),
        ("(a + b) / 2", 1.25),
        ("a + b ^ 2", 4.5),
        ("2 ^ 3 ^ 2", 512),
        ("2 * b ^ 2", 8),
        ("-b ^ 2", -4),
        ("b ** 2", 4),
        ("+a - -a", 1),
        ("min(a, b, c)", -1),
        ("max(a)", 0.5),
        ("abs(c) + floor(a) + ceil(a)", 2),
        ("exp(0) + sqrt(4) + log(1)", 3),
        ("1e-1 + .5", 0.6),
        (" a\n  + b ", 2.5),
        ("质量 * 2", 0.5),
        ("1 - a", 0.5),
    ],
)
def test_a_formula_by_hand(text, value):
    """^ is a power, and binds as in school; min and max take any number."""
    assert evaluate(read_formula(text), SCORES) == pytest.approx(value)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "a.real",
        "a[0]",
        "[a for a in b]",
        "lambda: 1",
        "a if b else c",
        "a and b",
        "not a",
        "~a",
        "a == b",
        "a; b",
        "a := 1",
        "a // b",
        "a % b",
        "'text'",
        "1j",
        "True",
        "None",
        "f(a)",
        "min()",
        "sqrt(a, b)",
        "min(*a)",
        "abs(x=a)",
        "min(a)(b)",
        "a b",
        "",
        "(",
        "1e999",
        "9" * 400,
        "a +",
        "-" * 900 + "1",
        "(" * 400 + "a" + ")" * 400,
        "+".join(["a"] * 400),
        "abs(" * 100 + "a" + ")" * 100,
        "a" * 1001,
        "\x00",
    ],
)
def test_what_is_no_formula_is_refused_when_it_is_read(text):
    """Python that is more than a sum, what is too deep, and numbers that are too large."""
    with pytest.raises(BadFormula):
        read_formula(text)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9",
        "9^9^9^9",
        "1 / (a - a)",
        "0 / 0",
        "exp(1000)",
        "log(0)",
        "log(c)",
        "sqrt(c)",
        "c ^ 0.5",
        "0 ^ c",
        "1e308 * 10",
    ],
)
def test_a_step_without_a_finite_value_is_an_error(text):
    """At once, however large it would become; infinity never goes on into the next step."""
    with pytest.raises(NotFinite):
        evaluate(read_formula(f"1 / (1 + {text})"), SCORES)


@given(st.text("ab+-*/^().,0123456789 minaxsqrt", max_size=60))
def test_any_text_is_a_finite_number_or_refused(text):
    """And nothing else."""
    with contextlib.suppress(BadFormula, NotFinite):
        assert math.isfinite(evaluate(read_formula(text), dict.fromkeys(read_formula(text).names, 0.5)))


def test_a_multi_grader_combines_scores_and_tells_each():
    """The reward is the formula's; the parts are beside it."""
    found = graded(MULTI, "2026-12-01", "2026-12-01")
    assert (found.reward, found.sub_rewards, flags_of(found)) == (1.0, {"same": 1.0, "dated": 1.0}, set())
    assert reward(MULTI, "on 2026-12-01", "2026-12-01") == 0.25


def test_a_formula_without_a_value_is_flagged_and_worth_nothing():
    """The message has the scores that it happened with."""
    found = graded(changed(MULTI, calculate_output="dated / same"), "x", "y")
    assert (found.reward, found.failed, flags_of(found)) == (0.0, True, {"formula_parse_error"})
    assert "grader.calculate_output: dated / same has no finite value" in found.messages[0]


def test_a_part_without_a_score_leaves_the_whole_without_one():
    """No number is made up for it; the others are still told."""
    broken = changed(STRING_CHECK, reference="{{ item.nothing }}")
    found = graded(changed(MULTI, graders={"same": broken, "dated": REGEX}), "2026-12-01")
    assert (found.reward, found.failed) == (0.0, True)
    assert found.sub_rewards == {"same": None, "dated": 1.0}
    assert flags_of(found) == {"invalid_variable_error"}
    assert "grader.graders.same.reference" in found.messages[0]
