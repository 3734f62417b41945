"""The demo's data."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.demo import orders


def answers(rows) -> set[str]:
    return {row["messages"][-1]["content"] for row in rows}


@given(seeds=st.tuples(st.integers(0, 99), st.integers(0, 99)))
@settings(max_examples=20, deadline=None)
def test_held_out_orders_are_never_trained_on(seeds):
    """Whatever the seeds: no answer is on both sides, so scoring never asks for what was learned by heart."""
    assert not answers(orders.train(300, seeds[0])) & answers(orders.held_out(60, seeds[1]))


def test_the_same_seed_gives_the_same_orders():
    """The demo's numbers can be repeated."""
    assert orders.to_json_lines(orders.train(50, 3)) == orders.to_json_lines(orders.train(50, 3))
    assert orders.train(50, 3) != orders.train(50, 4)


@pytest.mark.parametrize("rows", [orders.train(), orders.held_out()], ids=["train", "held_out"])
def test_every_answer_can_be_read_off_its_order(rows):
    """Six keys, all different rows, and nothing in the answer that the sentence does not say."""
    assert len(answers(rows)) == len(rows)
    for row in rows:
        _, order, answer = (message["content"] for message in row["messages"])
        values = json.loads(answer)
        assert tuple(values) == orders.KEYS
        for key in ("customer", "size", "color", "city"):
            assert values[key].lower() in order.lower()
