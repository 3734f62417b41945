"""Answers that came from elsewhere are scored as those of loaded models are."""

from __future__ import annotations

import json

import pytest
from training_parts import Told, chat

from tunesmith_workers.evaluation.given_answers import score, write_questions
from tunesmith_workers.process.config import AnswersConfig, Folders, as_config
from tunesmith_workers.process.faults import BadConfig, BadRows

ROWS = [
    chat(f"the colour of {thing}?", colour)
    for thing, colour in (("grass", "green"), ("sky", "blue"), ("snow", "white"))
]


@pytest.fixture
def prepared(write_rows, tmp_path):
    """A config for rows and the answers of some models, and its folders."""

    def make(rows, metrics=("exact_match",), **answers):
        path = write_rows(rows)
        models = []
        for name, said in answers.items():
            lines = [{"where": f"{path}:{at}", "answer": one, "more": 1} for at, one in enumerate(said, 1)]
            file = write_rows(lines, f"{name}.jsonl")
            models.append({"model": name, "label": f"the {name} one", "answers": str(file)})
        content = {"data": {"train_file": str(path)}, "evaluation": {"metrics": list(metrics), "models": models}}
        folders = Folders(run=tmp_path, output=tmp_path / "output", resume_from=None)
        return as_config(AnswersConfig, content, "test"), folders

    return make


def report_of(folders):
    return json.loads((folders.output / "report.json").read_bytes())


def test_the_second_is_compared_with_the_first(prepared, capfdbinary):
    """On the rows that both have answered; how many are left out is said."""
    config, folders = prepared(ROWS, old=["red", "blue", None], new=["green", " blue ", "white"])
    score(config, folders)
    told = Told(capfdbinary.readouterr().out)
    assert told.said("1 of 3 rows were not answered")
    report = report_of(folders)
    assert report["rows"] == 2
    assert [one["metrics"]["exact_match"]["value"] for one in report["models"]] == [0.5, 1.0]
    assert [one["label"] for one in report["models"]] == ["the old one", "the new one"]
    assert report["comparisons"][0]["difference"] == 0.5
    assert "the colour of grass?" in (folders.output / "report.html").read_text()
    assert json.loads((folders.output / "predictions.jsonl").read_text().splitlines()[0])["predicted"] == "red"


def test_one_alone_is_scored(prepared):
    """When the other does not answer any more."""
    config, folders = prepared(ROWS, new=["green", "blue", "black"])
    score(config, folders)
    assert report_of(folders)["comparisons"] == []


def test_questions_are_asked_as_they_stand(prepared):
    """Up to the last answer that counts, with tools and calls in OpenAI's form and without the words of training files."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    talk = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [call], "weight": 0},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
        {"role": "assistant", "content": "one", "weight": 1},
        {"role": "user", "content": "thanks"},
        {"role": "assistant", "content": "no", "weight": 0},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    config, folders = prepared([{"messages": talk, "tools": tools}, {"prompt": "a", "completion": "b"}])
    write_questions(config, folders)
    first, second = [json.loads(line) for line in (folders.output / "questions.jsonl").read_text().splitlines()]
    assert first["messages"][0] == talk[0]
    assert first["messages"][1]["tool_calls"] == [call]
    assert len(first["messages"]) == 3
    assert all("weight" not in message for message in first["messages"])
    assert first["tools"] == tools
    assert second["messages"] == [{"role": "user", "content": "a"}]


def test_what_cannot_be_scored_is_refused(prepared):
    """Metrics of probabilities, and models without one row in common."""
    config, folders = prepared(ROWS, metrics=("loss", "exact_match"))
    with pytest.raises(BadConfig, match="loss cannot be computed from answers alone"):
        write_questions(config, folders)
    config, folders = prepared(ROWS, old=["red", None, None], new=[None, "blue", "white"])
    with pytest.raises(BadRows, match="no row that every model has answered"):
        score(config, folders)
