"""Graders are checked before anything is graded: every fault is named by its field, all at once."""

from __future__ import annotations

import json
import string
import subprocess
import sys

import pytest
from grader_parts import (
    EVERY,
    JSON_MATCH,
    MULTI,
    REGEX,
    SCORE_MODEL,
    SIMILARITY,
    STRING_CHECK,
    TEXT,
    changed,
    faults_of,
    reward,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from support.server import clean_environment
from tunesmith_workers.rewards.reading import read_grader
from tunesmith_workers.rewards.similarity import METRICS

JUDGE_MESSAGE = SCORE_MODEL["input"][0]


@pytest.mark.parametrize("grader", EVERY, ids=lambda one: one["type"])
def test_a_good_grader_of_every_type_is_read(grader):
    """And keeps its name."""
    assert read_grader(grader).name == grader["name"]


@pytest.mark.parametrize(
    ("grader", "where", "words"),
    [
        ([], "grader", "not a JSON object"),
        (None, "grader", "not a JSON object"),
        ({}, "grader.type", "is required; give one of string_check"),
        ({"type": ["multi"]}, "grader.type", "not one of"),
        ({"type": "string_chek"}, "grader.type", "did you mean string_check"),
        ({"type": "label_model"}, "grader.type", "use score_model"),
        (changed(STRING_CHECK, name=None), "grader.name", "is required"),
        (changed(STRING_CHECK, name="n" * 201), "grader.name", "1 to 200 characters"),
        (changed(STRING_CHECK, input=None), "grader.input", "is required"),
        (changed(STRING_CHECK, reference=3), "grader.reference", "must be a text"),
        (changed(STRING_CHECK, operation="equals"), "grader.operation", "not one of eq, ne, like, ilike"),
        (changed(STRING_CHECK, pass_threshold=1), "grader.pass_threshold", "no field of this grader"),
        (changed(STRING_CHECK, refrence="x"), "grader.refrence", "did you mean reference?"),
        (changed(STRING_CHECK, input="{{ item.x"), "grader.input", "without }}"),
        (changed(STRING_CHECK, input="{{ row.x }}"), "grader.input", "neither sample nor item"),
        (changed(STRING_CHECK, input="{{ sample.text }}"), "grader.input", "there are sample.output_text"),
        (changed(SIMILARITY, evaluation_metric="bleue"), "grader.evaluation_metric", "did you mean bleu?"),
        (changed(SIMILARITY, evaluation_metric="cosine"), "grader.evaluation_metric", "embeddings"),
        (changed(SIMILARITY, pass_threshold="high"), "grader.pass_threshold", "must be a number"),
        (changed(JSON_MATCH, keys=[]), "grader.keys", "list of 1 to 100 different texts"),
        (changed(JSON_MATCH, keys=["a", "a"]), "grader.keys", "different texts"),
        (changed(JSON_MATCH, keys=[{}]), "grader.keys", "different texts"),
        (changed(REGEX, pattern="("), "grader.pattern", "no regular expression"),
        (changed(REGEX, full="yes"), "grader.full", "true or false"),
        (changed(SCORE_MODEL, model=None), "grader.model", "is required"),
        (changed(SCORE_MODEL, range=[1, 0]), "grader.range", "the lower one first"),
        (changed(SCORE_MODEL, range=[0, True]), "grader.range", "two numbers"),
        (changed(SCORE_MODEL, input=[]), "grader.input", "list of 1 to 100 objects"),
        (changed(SCORE_MODEL, input=["x"]), "grader.input[0]", "not a JSON object"),
        (changed(SCORE_MODEL, input=[{**JUDGE_MESSAGE, "role": "judge"}]), "grader.input[0].role", "not one of user"),
        (changed(SCORE_MODEL, input=[{"role": "user", "content": 3}]), "grader.input[0].content", "must be a text"),
        (
            changed(SCORE_MODEL, input=[{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]),
            "grader.input[0].content[0]",
            "texts only",
        ),
        (
            changed(SCORE_MODEL, sampling_params={"temperature": 9}),
            "grader.sampling_params.temperature",
            "between 0 and 2",
        ),
        (
            changed(SCORE_MODEL, sampling_params={"max_tokens": 9}),
            "grader.sampling_params.max_tokens",
            "did you mean max_completions_tokens?",
        ),
        (changed(MULTI, graders={}), "grader.graders", "1 to 50 graders"),
        (changed(MULTI, graders={"same": MULTI}), "grader.graders.same.type", "not one of"),
        (changed(MULTI, graders={"a b": REGEX}), "grader.graders.a b", "no formula can have"),
        (changed(MULTI, graders={"min": REGEX}), "grader.graders.min", "no formula can have"),
        (changed(MULTI, graders={"x": {"type": "regex"}}), "grader.graders.x.pattern", "is required"),
        (changed(MULTI, calculate_output="same + dted"), "grader.calculate_output", "names dted"),
        (changed(MULTI, calculate_output=None), "grader.calculate_output", "is required"),
    ],
)
def test_every_fault_is_named_by_its_field(grader, where, words):
    """With what is wrong and how to fix it."""
    assert words in faults_of(grader)[where]


@pytest.mark.parametrize("place", ["alone", "in a multi grader"])
def test_no_code_of_a_request_is_run(place):
    """The refusal says so, and what to use instead."""
    python = {"type": "python", "name": "mine", "source": "def grade(sample, item): return 1.0"}
    inner = python if place == "alone" else changed(MULTI, graders={"mine": python}, calculate_output="mine")
    faults = faults_of(inner)
    where = "grader.type" if place == "alone" else "grader.graders.mine.type"
    assert "this service runs no code of requests" in faults[where]


def test_all_faults_are_told_together():
    """One request is enough to mend a grader."""
    broken = {
        "type": "multi",
        "graders": {"a": changed(REGEX, pattern="["), "b": changed(SIMILARITY, evaluation_metric="x", input="{{")},
        "calculate_output": "a +",
        "more": 1,
    }
    assert set(faults_of(broken)) == {
        "grader.name",
        "grader.graders.a.pattern",
        "grader.graders.b.evaluation_metric",
        "grader.graders.b.input",
        "grader.calculate_output",
        "grader.more",
    }


def test_a_multi_grader_may_hold_one_grader_by_its_own_name():
    """The types of OpenAI's client write it so."""
    assert reward(changed(MULTI, graders=STRING_CHECK, calculate_output="same / 2"), "x", "x") == 0.5


def test_a_grader_within_another_needs_no_second_name():
    """It is called by what the formula calls it."""
    grader = read_grader(changed(MULTI, graders={"dated": changed(REGEX, name=None)}, calculate_output="dated"))
    assert grader.graders["dated"].name == "dated"


_anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(METRICS),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(string.ascii_lowercase, max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(EVERY), st.data())
def test_nothing_that_is_sent_as_a_grader_breaks_the_reader(grader, data):
    """Whatever stands in its fields, it is read, or refused with the places."""
    names = data.draw(st.lists(st.sampled_from([*grader, "keys", "range", "sampling_params", "full"]), max_size=3))
    value = {**grader, **{name: data.draw(_anything, label=name) for name in names}}
    faults = faults_of(value)
    assert all(where.startswith("grader") and words for where, words in faults.items())
    assert faults or read_grader(value).name


def test_a_missing_package_is_named_with_the_grader_that_needs_it():
    """In an interpreter that cannot import it."""
    code = (
        "import json, sys; sys.modules['sacrebleu.metrics'] = None\n"
        "from tunesmith_workers.rewards.reading import read_grader\n"
        "from tunesmith_workers.process.faults import PackageMissing\n"
        "try: read_grader(json.loads(sys.argv[1]))\n"
        "except PackageMissing as fault: print(fault.text, fault.where, fault.mend)"
    )
    grader = json.dumps(changed(SIMILARITY, evaluation_metric="gleu"))
    done = subprocess.run(
        [sys.executable, "-c", code, grader],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "gleu needs the package sacrebleu" in done.stdout
    assert "grader.evaluation_metric pip install 'tunesmith[evaluate]'" in done.stdout


def test_a_request_full_of_faults_is_refused_with_a_few():
    """However many there are, the answer stays short."""
    assert len(faults_of({**STRING_CHECK, **{f"x{n}": n for n in range(50_000)}})) == 21
    many = [{"role": "user", "content": [0] * 50_000}] * 100
    assert len(faults_of(changed(SCORE_MODEL, input=many))) == 100


def test_content_in_parts_is_one_text():
    """As OpenAI's messages have it."""
    parts = [{"type": "input_text", "text": "Grade "}, TEXT, {"type": "output_text", "text": "."}]
    grader = changed(SCORE_MODEL, input=[{"role": "user", "content": parts, "type": "message"}])
    asked = []
    assert reward(grader, "blue", ask=lambda one: asked.append(one) or "1") == 1.0
    assert [message.content for message in asked[0].messages] == ["Grade blue."]
