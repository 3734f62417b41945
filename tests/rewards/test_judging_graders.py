"""Models as judges: what they are asked, and which of their replies are a score."""

from __future__ import annotations

import pytest
from grader_parts import MULTI, SCORE_MODEL, STRING_CHECK, changed, flags_of, graded, reward
from llguidance import LLMatcher

from tunesmith_workers.rewards.grading import grade, questions
from tunesmith_workers.rewards.judge import Unanswered
from tunesmith_workers.rewards.reading import read_grader
from tunesmith_workers.rewards.sample import Sample


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("0.7", 0.7),
        (" 1\n", 1.0),
        ("1e-1", 0.1),
        (".5", 0.5),
        ('{"result": 0.25}', 0.25),
        ('{"steps": ["it is short"], "result": 1}', 1.0),
        ('{"result": "0.5"}', 0.5),
        ('```json\n{"result": 0.5}\n```', 0.5),
        ("<think>Is it 1? No, 0.</think>0.5", 0.5),
        ("Is it 1? No, 0.\n</think>\n\n0.5", 0.5),
    ],
)
def test_a_reply_is_a_number_or_json_with_a_result(reply, score):
    """What a model thinks aloud before it is no part of the reply."""
    assert reward(SCORE_MODEL, "blue", "blue", lambda _: reply) == score


@pytest.mark.parametrize(
    "reply",
    [
        "", "good", "7 of 10", "0.5.", "nan", "inf", "1e999", '{"score": 1}', '{"result": true}', '{"result": null}',
        '{"result": [1]}', "[1]", "<think>0.5", '{"result": ' + "9" * 400 + "}", "9" * 5000, "x" + " " * 200_000 + "1", "```" + "\n" * 50_000,
    ],
)  # fmt: skip
def test_a_reply_without_a_score_is_flagged(reply):
    """Nothing is guessed at."""
    found = graded(SCORE_MODEL, "blue", "blue", lambda _: reply)
    assert (found.reward, flags_of(found)) == (0.0, {"model_grader_parse_error"})
    assert "grader: the reply" in found.messages[0]


@pytest.mark.parametrize(("reply", "score"), [("1", 1), ("5", 5), ("0.99", None), ("6", None), ("-1", None)])
def test_a_score_out_of_range_is_flagged_and_never_moved_into_it(reply, score):
    """Its ends belong to the range."""
    found = graded(changed(SCORE_MODEL, range=[1, 5]), "x", ask=lambda _: reply)
    assert found.reward == (score or 0.0)
    assert flags_of(found) == (set() if score else {"model_grader_parse_error"})


@pytest.mark.parametrize(
    ("reply", "flag", "details"),
    [
        (Unanswered(refusal="I grade no poems"), "model_grader_refusal_error", None),
        (Unanswered(error="503 for a minute"), "model_grader_server_error", "grader: 503 for a minute"),
        (Unanswered(), "model_grader_server_error", "grader: the model gave no answer"),
    ],
)
def test_a_judge_that_does_not_answer_is_flagged(reply, flag, details):
    """A refusal is told from a server that fails."""
    found = graded(SCORE_MODEL, "x", ask=lambda _: reply)
    assert (found.reward, flags_of(found)) == (0.0, {flag})
    assert found.errors.model_grader_server_error_details == details


def test_a_judge_is_asked_with_everything_put_in():
    """Once for each grader, with the parameters that were given, and the form that its reply should have."""
    asked = []
    grader = changed(SCORE_MODEL, range=[0, 10], sampling_params={"temperature": 0, "seed": 3, "top_p": None})
    assert reward(grader, "blue", {"answer": "sky"}, lambda one: asked.append(one) or "7") == 7
    [one] = asked
    assert [(message.role, message.content) for message in one.messages] == [
        ("system", "Answer with a number."),
        ("user", 'Grade blue beside {"answer":"sky"}.'),
    ]
    assert (one.model, one.sampling_params) == ("judge-1", {"temperature": 0, "seed": 3})
    schema = one.response_format["json_schema"]["schema"]
    assert schema["properties"]["result"] == {"type": "number", "minimum": 0.0, "maximum": 10.0}


def test_the_questions_of_many_samples_can_be_asked_at_once():
    """They are those that grading asks; the same prompt has the same key, and another one another."""
    other = changed(SCORE_MODEL, model="judge-2")
    grader = read_grader(
        changed(MULTI, graders={"a": SCORE_MODEL, "b": other, "c": STRING_CHECK}, calculate_output="a + b + c")
    )
    samples = [Sample(output_text=text, item={"reference": "x"}) for text in ("x", "y", "x")]
    keys = [[one.key for one in questions(grader, sample)] for sample in samples]
    assert keys[0] == keys[2]
    assert len({key for pair in keys for key in pair}) == 4
    answers = {key: "0.5" for pair in keys for key in pair}
    assert [grade(grader, sample, lambda one: answers[one.key]).reward for sample in samples] == [2.0, 1.0, 2.0]


@pytest.mark.parametrize("score_range", [[0, 1], [-5, 2.5], [1, 10]])
def test_an_engine_can_be_held_to_the_form_of_a_reply(score_range):
    """By what the built-in one is held with."""
    [one] = questions(
        read_grader(changed(SCORE_MODEL, range=score_range)), Sample(output_text="", item={"reference": ""})
    )
    assert (
        LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(one.response_format["json_schema"]["schema"]))
        == ""
    )


def test_what_asking_raises_comes_through():
    """A training that is stopped while a judge answers is stopped."""

    def ask(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        graded(SCORE_MODEL, "x", ask=ask)
