"""A stream of an engine, cut anywhere: every event comes whole, and calls the model as it was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.errors import Unavailable
from tunesmith.inference import completions

INSIDE, OUTSIDE = "state.models.small-0a1b2c3d4e5f", 'ft:"gpt"/ä:org::01k9'
TEXTS = st.one_of(
    st.text(), st.sampled_from([f'"model":"{INSIDE}"', "\n\n", "data: [DONE]", "\\", '\\"', INSIDE, OUTSIDE])
)


def event(text: str, model: str) -> bytes:
    chunk = {"id": "chatcmpl-1", "model": model, "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({place % (len(stream) + 1) for place in places} | {len(stream)})
    return [stream[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def passed_on(pieces: list[bytes]) -> list[bytes]:
    async def come() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def collected() -> list[bytes]:
        inside, outside = completions._field(INSIDE), completions._field(OUTSIDE)
        return [part async for part in completions._events(come(), inside, outside)]

    return anyio.run(collected)


@given(st.lists(TEXTS, max_size=6), st.lists(st.integers(min_value=0), max_size=30))
def test_every_event_is_renamed_wherever_the_stream_is_cut(texts: list[str], places: list[int]) -> None:
    """What is passed on is what an engine that knew the outer name would have said, in whole events."""
    parts = passed_on(cut(b"".join(event(text, INSIDE) for text in texts) + b"data: [DONE]\n\n", places))
    assert b"".join(parts) == b"".join(event(text, OUTSIDE) for text in texts) + b"data: [DONE]\n\n"
    assert all(part.endswith(b"\n\n") for part in parts)


@given(st.lists(TEXTS, min_size=1, max_size=4), st.lists(st.integers(min_value=0), max_size=10))
def test_a_stream_that_breaks_off_is_never_taken_for_whole(texts: list[str], places: list[int]) -> None:
    """However much of it came, also if it says itself that it is done."""
    with pytest.raises(Unavailable):
        passed_on(cut(b"".join(event(text, INSIDE) for text in texts), places))
