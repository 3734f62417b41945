"""Patterns of strangers cost little: they are found, not found, given up on after a second, or refused beforehand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings

import pytest
from grader_parts import REGEX, changed, faults_of, flags_of, graded
from hypothesis import given, settings
from hypothesis import strategies as st

from support.server import clean_environment
from tunesmith_workers.rewards.patterns import BadPattern, matches, read_pattern

LONG = "a" * 50_000 + "!"


@pytest.mark.parametrize(
    "pattern", [r"(a+)+$", r"(a|aa)+$", r"(\w+\s?)*$", r"^(([a-z])+.)+[A-Z]([a-z])+$", r"(?:(?:x*a+)+y)"]
)
def test_a_search_without_end_is_given_up(pattern):
    """It is no score, and says so."""
    found = graded(changed(REGEX, pattern=pattern), LONG)
    assert flags_of(found) == {"unresponsive_reward_error"}
    assert "took longer than 1 s" in found.messages[0]


@pytest.mark.parametrize(
    "pattern",
    [
        "a{1000000000}",
        "a{20000}",
        "(?:a{1000}){1000}",
        "(?:" * 90 + "a" + ")+" * 90,
        "(?:" * 90 + "a" + "){1,2}" * 90,
        "(?:a{1,200}){1,200}",
        "[(]{9}(?:a{200}){200}",
        "[]](?:a{200}){200}",
        r"\[(?:a{200}){200}",
        "(?#[)(?:a{200}){200}(?#])",
        "(?x)#[\n(?:a{200}){200}#]\n",
        "(?x:#[\n(?:a{200}){200}#]\n)",
        "(?i-x:a)",
        "(a)" * 21,
        "(?R)",
        "(?:abc){e<=9}",
        r"\p{L}",
        "[[:alpha:]]",
        "[a--b]",
        "a{,}",
        ")",
        "(" * 200,
        "a{1}{2}",
        "*",
        "x" * 1001,
    ],
)
def test_a_pattern_that_is_too_large_or_of_another_dialect_is_refused(pattern):
    """When the grader is read, by its field."""
    assert set(faults_of(changed(REGEX, pattern=pattern))) == {"grader.pattern"}


def test_a_text_that_is_too_long_is_an_error():
    """It is not searched in part."""
    assert flags_of(graded(REGEX, "a" * 100_001)) == {"other_error"}


_pieces = st.sampled_from(
    [
        "a",
        "b",
        ".",
        r"\w",
        r"\[",
        "[ab]",
        "[^]a]",
        r"[\]x]",
        "(",
        "(?:",
        ")",
        "|",
        "*",
        "+",
        "?",
        "{2}",
        "{0,3}",
        "{2,}",
        "^",
        "$",
        r"\b",
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_pieces, max_size=12).map("".join), st.text("ab]x\n", max_size=20), st.booleans())
def test_what_is_read_finds_what_re_finds(pattern, text, full):
    """And only what re cannot read is refused, or what is too large."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            theirs = re.compile(pattern)
    except (re.error, Warning):
        with pytest.raises(BadPattern):
            read_pattern(pattern, full=full, where="grader.pattern")
        return
    try:
        ours = read_pattern(pattern, full=full, where="grader.pattern")
    except BadPattern as bad:
        assert "repeats to more" in str(bad)  # noqa: PT017  # either is right
        return
    assert matches(ours, text, "grader") == bool(theirs.fullmatch(text) if full else theirs.search(text))


_IN_LITTLE_MEMORY = """
import json, sys
from pathlib import Path
from tunesmith_workers.rewards.patterns import BadPattern, matches, read_pattern
from tunesmith_workers.rewards.sample import CannotGrade
def peak():
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])
read_pattern("x", full=False, where="x")
before = peak()
for pattern in json.loads(sys.argv[1]):
    try:
        compiled = read_pattern(pattern, full=False, where="x")
        try: matches(compiled, "ab" * 50_000, "x")
        except CannotGrade: pass
    except BadPattern: pass
print((peak() - before) // 1024)
"""


def test_patterns_take_little_memory():
    """The largest that are read, and searches that keep many places to go back to."""
    patterns = [
        "a{9990}",
        "(?:(?:a|b){90}){90}[cd]",
        "(?:(.)" + "(x)?" * 19 + ")*[cd]",
        "(?:" + "(" * 19 + "a|b" + ")" * 19 + ")*[cd]",
        "(?:(a)|(b)|a*?b*?)*[cd]",
        "|".join(f"ab{n}" for n in range(150)),
        "(?i)" + "ß" * 900,
    ]
    done = subprocess.run(
        [sys.executable, "-c", _IN_LITTLE_MEMORY, json.dumps(patterns)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert int(done.stdout) < 200  # MiB
