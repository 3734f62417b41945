"""Prompts for methods that have the model answer: read from prompt rows, and from OpenAI's files for reinforcement."""

from __future__ import annotations

import pytest
from openai_parts import CHAT, REINFORCEMENT, WEATHER

from tunesmith_workers.examples.prompts import read_prompts
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.models.chat_messages import render
from tunesmith_workers.process.faults import BadRows


def test_a_prompt_has_its_messages_and_the_whole_row(write_rows, tokenizer):
    """What is asked is rendered for an answer; what a judge needs stays beside it."""
    path = write_rows(
        [{**REINFORCEMENT, "tools": [WEATHER]}, {"prompt": "once upon"}, {"prompt": CHAT["messages"][:2]}]
    )
    asked, text, told = read_prompts(path)
    assert [message["role"] for message in asked.messages] == ["developer", "user"]
    assert asked.item["reference_answer"] == {"stars": 3}
    assert asked.tools == (WEATHER,)
    assert asked.where == f"{path}:1"
    rendered = render(tokenizer, asked.messages, generation_prompt=True)
    assert rendered.endswith("Two stars and another one<|im_end|>\n<|im_start|>assistant\n")
    assert (text.text, text.messages) == ("once upon", ())
    assert list(told.messages) == CHAT["messages"][:2]
    assert len(read_prompts(path, 2)) == 2


def test_a_row_with_its_answer_is_no_prompt(write_rows):
    """It is named by its line; and a row for reinforcement is no row for training."""
    path = write_rows([REINFORCEMENT, CHAT, {"prompt": ""}])
    with pytest.raises(
        BadRows, match=r"(?s)2 rows.*rows\.jsonl:2: messages\[2\] is the assistant's.*rows\.jsonl:3: prompt is empty"
    ):
        read_prompts(path)
    with pytest.raises(BadRows, match=r"rows\.jsonl:1: has no assistant message"):
        read_rows(path)
