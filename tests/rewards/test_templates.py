"""Templates put in what a path names, once, and say which template names what is not there."""

from __future__ import annotations

import json

import pytest
from grader_parts import STRING_CHECK, changed, flags_of
from hypothesis import given
from hypothesis import strategies as st

from tunesmith_workers.rewards.grading import grade
from tunesmith_workers.rewards.reading import read_grader
from tunesmith_workers.rewards.sample import CannotGrade, Sample
from tunesmith_workers.rewards.templates import BadTemplate, read_template, render

SAMPLE = Sample(
    output_text='{"x": [1, {"y": "deep"}], "n": null}',
    item={"reference_answer": "blue", "a": {"b": [10, 20]}, "a key": "spaced", "颜色": "蓝", "n": 1.5, "t": True},
    output_tools=({"function": {"name": "look_up"}},),
)


def rendered(text: str, sample: Sample = SAMPLE) -> str:
    return render(read_template(text), sample, "grader.input")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("plain { text } }}", "plain { text } }}"),
        ("{{item.reference_answer}}", "blue"),
        ("{{   item.reference_answer\n}}!", "blue!"),
        ("{{ item.a.b[0] }} and {{ item.a.b[1] }}", "10 and 20"),
        ("{{ item.a }}", '{"b":[10,20]}'),
        ('{{ item["a key"] }}', "spaced"),
        ("{{ item.颜色 }}", "蓝"),
        ("{{ item.n }} {{ item.t }}", "1.5 true"),
        ("{{ sample.output_json.x[1].y }}", "deep"),
        ("{{ sample.output_json.n }}", "null"),
        ("{{ sample.output_tools[0].function.name }}", "look_up"),
        ("{{ sample.choices[0].message.role }}", "assistant"),
        ("{{ sample.choices[0].message.content }}", SAMPLE.output_text),
    ],
)
def test_a_path_is_replaced_by_what_it_names(template, text):
    """Texts as they are, everything else as JSON; space inside the braces is free."""
    assert rendered(template) == text


def test_what_is_put_in_is_never_searched_for_places_again():
    """An answer cannot name the reference."""
    assert (
        rendered("{{ sample.output_text }}", Sample(output_text="{{ item.secret }}", item={"secret": "s"}))
        == "{{ item.secret }}"
    )


def test_choices_are_those_of_the_completion_where_there_are_any():
    """Otherwise one is made of the answer."""
    sample = Sample(output_text="x", choices=({"message": {"content": "theirs"}},))
    assert rendered("{{ sample.choices[0].message.content }}", sample) == "theirs"


@pytest.mark.parametrize(
    "text",
    [
        "{{ }}",
        "{{ item }}",
        "{{ items.a }}",
        "{{ item.a b }}",
        "{{ item.a | upper }}",
        "{{ item.a() }}",
        "{{ item..a }}",
        "{{ item.a[-1] }}",
        "{{ item.a[x] }}",
        "{{ {{ item.a }} }}",
        "{{ sample.__class__ }}",
        "{{ sample.item }}",
        '{{ 1 + 1 }} {"a": {{"b": 1}}}',
        "{{ item" + ".a" * 40 + " }}",
        "{{ item.a }}" * 201,
        "{{" * 50_000,
        "x" * 100_001,
    ],
)
def test_what_is_no_path_is_refused_when_the_grader_is_read(text):
    """Templates are paths and nothing more."""
    with pytest.raises(BadTemplate):
        read_template(text)


@pytest.mark.parametrize(
    "path",
    [
        "item.nothing",
        "item.a.b[2]",
        "item.a[0]",
        "item.reference_answer.x",
        "item.reference_answer[0]",
        "item.n.__class__",
        "sample.output_json.z",
    ],
)
def test_what_a_sample_lacks_is_an_error_that_names_the_template(path):
    """Strings have no parts, and Python's own names lead nowhere."""
    grader = read_grader(changed(STRING_CHECK, input="{{ " + path + " }}"))
    found = grade(grader, Sample(output_text=SAMPLE.output_text, item={**SAMPLE.item, "reference": ""}))
    assert flags_of(found) == {"invalid_variable_error"}
    assert "grader.input: {{ " + path + " }} names" in found.messages[0]


@pytest.mark.parametrize("text", ["no JSON", "", '{"a": NaN}', "[" * 100_000, '"\\ud800"'])
def test_output_json_of_an_answer_that_is_none_is_flagged(text):
    """However it is broken."""
    with pytest.raises(CannotGrade) as refused:
        rendered("{{ sample.output_json.x }}", Sample(output_text=text))
    assert refused.value.flag == "sample_parse_error"


def test_a_text_that_becomes_too_long_is_an_error():
    """A short template can name a long value many times."""
    with pytest.raises(CannotGrade) as refused:
        rendered("{{ item.a }}" * 100, Sample(output_text="", item={"a": "x" * 50_000}))
    assert refused.value.flag == "other_error"


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=5), st.recursive(st.integers() | st.text(), st.lists), max_size=3
    )
)
def test_every_value_of_an_item_can_be_put_in(item):
    """And read back, where it is JSON."""
    for name, value in item.items():
        text = rendered("{{ item." + name + " }}", Sample(output_text="", item=item))
        assert (text if isinstance(value, str) else json.loads(text)) == value
