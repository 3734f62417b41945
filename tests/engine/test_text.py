"""What is streamed is what is said: whole characters, nothing of a stop text, and nothing missing at the end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.tiny_model import tiny_tokenizer
from tunesmith_workers.engine.text import Detokenizer

TOKENIZER = tiny_tokenizer()


def told(text: str, stops: list[str]) -> tuple[list[str], bool]:
    detokenizer = Detokenizer(TOKENIZER, stops)
    parts = [detokenizer.add([token]) for token in TOKENIZER(text)["input_ids"]]
    return [*parts, detokenizer.finish()], detokenizer.stopped


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_the_parts_make_up_the_text(text):
    parts, stopped = told(text, [])
    assert "".join(parts) == TOKENIZER.decode(TOKENIZER(text)["input_ids"], skip_special_tokens=True)
    assert not stopped
    if "\ufffd" not in text:
        assert all("\ufffd" not in part for part in parts)


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3))
def test_nothing_of_a_stop_text_is_told(text, stops):
    parts, stopped = told(text, stops)
    places = [text.find(stop) for stop in stops if stop in text]
    assert stopped == bool(places)
    found = "".join(parts)
    if not places:
        assert found == text
    else:
        # The earliest end wins: what is told is cut where the stop text that was complete first begins.
        assert text.startswith(found)
        assert not any(stop in found for stop in stops)


@pytest.mark.parametrize("text", ["日本語のテキスト", "👩‍👩‍👧‍👦 family", "naïve café"])
def test_characters_of_several_tokens_come_whole(text):
    parts, _ = told(text, [])
    assert "".join(parts) == text
    assert all("\ufffd" not in part for part in parts)


def test_special_tokens_are_not_text():
    detokenizer = Detokenizer(TOKENIZER, [])
    special = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
    assert detokenizer.add([special]) + detokenizer.finish() == ""
