"""``tunesmith chat``: one answer, or a conversation on a terminal."""

from __future__ import annotations

import json

import pytest

from support.commands import Cli


@pytest.fixture
def cli(place, server):
    return Cli(place, {"TUNESMITH_URL": server.url})


def test_one_answer_is_printed_as_it_is(cli, client):
    body = {"messages": [{"role": "user", "content": "hello"}], "temperature": 0, "max_tokens": 5, "model": "small"}
    expected = client.post("/api/inference/chat", json=body).json()["message"]["content"]
    answer = cli("chat", "small", "-m", "hello", "--temperature", "0", "--max-tokens", "5")
    assert answer.returncode == 0, answer.stderr
    whole = cli("chat", "small", "-m", "hello", "--temperature", "0", "--max-tokens", "5", "--json")
    assert json.loads(whole.stdout)["message"]["content"] == expected


def test_a_model_that_is_not_there_is_told(cli):
    answer = cli("chat", "nowhere", "-m", "hello")
    assert answer.returncode == 1
    assert "there is no model 'nowhere'" in answer.stderr


def test_no_question_is_told(cli):
    answer = cli("chat", "small")  # standard input is empty
    assert answer.returncode == 1
    assert "no question" in answer.stderr
