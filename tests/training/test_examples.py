"""Judging the rows before anything is trained: lengths, shares, held-out rows."""

from __future__ import annotations

import pytest
from training_parts import COLOURS, Told, chat, config_and_folders

from support.tiny_model import CHATML
from tunesmith_workers.examples.prepare import prepare
from tunesmith_workers.models.chat_templates import choose_template
from tunesmith_workers.models.loading import load_tokenizer
from tunesmith_workers.process.faults import BadRows


@pytest.fixture
def prepared(write_rows, write_config):
    def prepared(rows, **sections):
        config, _ = config_and_folders(write_config(write_rows(rows), **sections))
        tokenizer = load_tokenizer(config.base)
        choose_template(tokenizer, config.data.chat_template)
        return prepare(config, tokenizer)

    return prepared


LONG_ANSWER = chat("a", "word " * 100)
LONG_QUESTION = chat("word " * 100, "b")


def test_truncating_cuts_long_rows_and_drops_those_left_without_an_answer(prepared, capfdbinary):
    """Both are counted in the log; a row that is all prompt after the cut teaches nothing."""
    train, _ = prepared([LONG_ANSWER, LONG_QUESTION, chat("a", "b")], data={"max_length": 64})
    assert (len(train.rows), train.cut, train.dropped) == (2, 1, 1)
    assert train.longest == 64
    assert Told(capfdbinary.readouterr().out).said("1 cut to 64 tokens, 1 dropped")


def test_dropping_leaves_long_rows_out(prepared):
    """What remains is unchanged."""
    train, _ = prepared([LONG_ANSWER, LONG_QUESTION, chat("a", "b")], data={"max_length": 64, "overlong": "drop"})
    assert (len(train.rows), train.cut, train.dropped) == (1, 0, 2)


def test_long_rows_can_be_an_error(prepared):
    """It names the first of them and how long the longest is."""
    with pytest.raises(BadRows, match="2 rows are longer than 64 tokens") as refused:
        prepared([chat("a", "b"), LONG_ANSWER, LONG_QUESTION], data={"max_length": 64, "overlong": "error"})
    assert refused.value.where.endswith("rows.jsonl:2")


def test_no_row_left_is_refused(prepared):
    """Training on nothing would look like success."""
    with pytest.raises(BadRows, match="no training row is left"):
        prepared([LONG_QUESTION], data={"max_length": 16})


def test_nothing_trained_is_refused(prepared):
    """A row of which nothing would be learned ends the run before it starts, and is named."""
    turns = chat("a", "b")["messages"]
    with pytest.raises(BadRows, match=r"rows\.jsonl:2: has weight 0 on every assistant message"):
        prepared([chat("a", "b"), {"messages": [turns[0], {**turns[1], "weight": 0}]}])


def test_everything_trained_is_refused_unless_meant(prepared):
    """A mask without effect means that the prompts were not recognised."""
    rows = [{"prompt": "", "completion": "once upon a time"}]
    with pytest.raises(BadRows, match="of the tokens are trained") as refused:
        prepared(rows)
    assert "all" in refused.value.mend
    train, _ = prepared(rows, data={"train_on": "all"})
    assert train.share_trained > 0.9


def test_answers_without_an_end_are_refused(prepared, tmp_path):
    """A model trained on them would never stop talking."""
    file = tmp_path / "endless.jinja"
    file.write_text(CHATML.replace("<|im_end|>", ""))
    with pytest.raises(BadRows, match="no end token"):
        prepared([chat("a", "b")], data={"chat_template": str(file)})


def test_the_share_of_trained_tokens_is_told(prepared, capfdbinary):
    """It is in the log and in the events, as a percentage."""
    train, _ = prepared(COLOURS)
    assert 0.05 < train.share_trained < 0.5
    assert Told(capfdbinary.readouterr().out).said(f"{train.share_trained:.1%} of them trained")


def test_held_out_rows_are_never_trained_on(prepared):
    """They are the same ones for the same seed, and missing from the training rows."""
    rows = [chat(f"question {number}", f"answer {number}") for number in range(40)]
    train, validation = prepared(rows, evaluation={"holdout_share": 0.25})
    assert (len(train.rows), len(validation.rows)) == (30, 10)
    assert not {row.where for row in train.rows} & {row.where for row in validation.rows}
    again, _ = prepared(rows, evaluation={"holdout_share": 0.25})
    assert [row.where for row in again.rows] == [row.where for row in train.rows]
