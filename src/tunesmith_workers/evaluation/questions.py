"""What a row asks, and what should be answered: the last answer of a conversation, or a completion. Renders no tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from tunesmith_workers.examples.rows import Row, is_trained
from tunesmith_workers.models.chat_messages import render
from tunesmith_workers.models.chat_templates import require_template
from tunesmith_workers.process.faults import BadRows, listed


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """What the models are asked, and what they should say."""

    where: str
    text: str
    """For people and judges: the messages before the answer."""
    expected: str
    row: Row
    answered_at: int = 0
    """Which message of the conversation is the expected answer."""


def questions_of(rows: Sequence[Row], *, answers: bool) -> list[Question]:
    """One of each row; with ``answers``, every one of them has an expected answer.

    Raises:
        BadRows: a conversation has no answer; all of those are named.
    """
    faults = [row.where for row in rows if row.messages and _last_answer(row) is None] if answers else []
    if faults:
        raise BadRows(
            f"{len(faults)} conversations hold no assistant message to compare with:\n{listed(faults)}",
            where=faults[0],
            mend="add the expected answers",
        )
    return [_question(row) for row in rows]


def prompt_for(question: Question, tokenizer: Any) -> tuple[str, list[int]]:
    """The text that a model is given to go on from, and its tokens.

    Raises:
        BadConfig: the row is a conversation, and there is no chat template.
    """
    row = question.row
    if not row.messages:
        return row.prompt, list(tokenizer(row.prompt)["input_ids"])
    require_template(tokenizer)
    prompt = render(tokenizer, row.messages[: question.answered_at], row.tools, generation_prompt=True)
    return prompt, list(tokenizer(prompt, add_special_tokens=False)["input_ids"])


def _question(row: Row) -> Question:
    if not row.messages:
        return Question(where=row.where, text=row.prompt, expected=row.completion, row=row)
    last = _last_answer(row)
    before = row.messages[:last]
    lines = [f"{message['role']}: {_content(message)}" for message in before]
    text = _content(before[0]) if len(before) == 1 else "\n\n".join(lines)
    expected = "" if last is None else _content(row.messages[last])
    return Question(where=row.where, text=text, expected=expected, row=row, answered_at=len(before))


def _last_answer(row: Row) -> int | None:
    return max((at for at, message in enumerate(row.messages) if is_trained(message)), default=None)


def _content(message: Any) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else "" if content is None else msgspec.json.encode(content).decode()
