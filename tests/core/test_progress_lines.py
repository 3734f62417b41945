"""The line format: whatever a process prints is read as what it is, and nothing it prints can raise."""

from __future__ import annotations

import io
import json
import math
import sys
from contextlib import redirect_stdout

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tunesmith.contract.events import KINDS, emit, read_line

finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(
    st.characters(blacklist_characters="'\"\\", blacklist_categories=("Cs", "Cc")), min_size=1, max_size=20
).filter(lambda name: name != "tunesmith" and name.isprintable())
almost_events = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists)


def printed(kind: str, **fields: object) -> bytes:
    """What ``emit`` puts on standard output, without the newline."""
    raw = io.BytesIO()
    with redirect_stdout(io.TextIOWrapper(raw, encoding="utf-8")):
        emit(kind, **fields)
        sys.stdout.flush()
        return raw.getvalue().removesuffix(b"\n")


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda inner: b"{" + inner + b"}"))
@example(b"{[]: 1, 'epoch': 1}")
@example(b"{{}: 1, 'epoch': 1, 'loss': 1}")
@example(b"{'epoch': 1, 'loss': 1" + b"0" * 400 + b"}")
@example(b"{'epoch': 1, 'l\\d': 1}")
@example(b"{'epoch': 1, 'loss': 1if 1}")
@example(b"{'epoch': 1, '\\ud800': 1}")
@example(b"{'epoch': 1, 'x': " + b"-" * 15_000 + b"1}")
@example(b"{'epoch': 1, 'x': " + b"(" * 8_000 + b"}")
@example(b'{"tunesmith": "metrics", "step": ' + b"9" * 5_000 + b"}")
@example(b'{"tunesmith": "metrics", "x": ' + b"[" * 60_000 + b"}")
@example(b'{"tunesmith": "metrics", "x": "\\ud800"}')
@example(b'{"tunesmith": ["metrics"]}')
def test_no_line_can_raise(line):
    """A tail that stops at an odd line would lose the rest of the run: any bytes are an event or log."""
    event = read_line(line)
    if event is not None:
        kind, fields = event
        assert kind in KINDS
        assert msgspec.json.encode(fields)


@given(st.dictionaries(names, almost_events, max_size=5), st.sampled_from(sorted(KINDS)))
def test_what_json_line_is_read_can_be_written_again(fields, kind):
    """Every event goes into files and streams, so whatever is read as one can be encoded."""
    line = json.dumps({"tunesmith": kind, **fields}).encode()
    event = read_line(line)
    if event is not None:
        assert event[0] == kind
        assert msgspec.json.decode(msgspec.json.encode(event[1])) is not None


@given(
    st.dictionaries(names.filter(lambda name: name not in ("at", "kind")), finite | st.text(max_size=20), max_size=5)
)
def test_what_is_emitted_is_read_back(fields):
    """Both sides of the format agree, whatever the names and values."""
    event = read_line(printed("metrics", **fields))
    assert event is not None
    kind, read = event
    assert kind == "metrics"
    assert read.pop("at") > 0
    assert read.keys() == fields.keys()
    for name, value in fields.items():
        assert read[name] == (value if isinstance(value, float) else value.encode(errors="replace").decode())


def test_numbers_that_json_lacks_become_null():
    """A diverged loss does not break the line: NaN and infinity are null, also inside."""
    event = read_line(printed("metrics", loss=math.nan, parts=[math.inf, {"x": -math.inf}], step=3))
    assert event is not None
    assert event[1]["loss"] is None
    assert event[1]["parts"] == [None, {"x": None}]
    assert event[1]["step"] == 3


def test_a_text_that_is_no_unicode_can_be_emitted():
    """A file name with odd bytes in an error message must not hide the error."""
    event = read_line(printed("message", level="error", text="cannot read \udcff.jsonl"))
    assert event is not None
    assert event[1]["text"] == "cannot read ?.jsonl"


def test_an_event_is_one_line():
    """A newline inside a text does not end the event."""
    line = printed("message", text="first\nsecond\r\nthird")
    assert b"\n" not in line
    event = read_line(line)
    assert event is not None
    assert event[1]["text"] == "first\nsecond\r\nthird"


@given(
    st.dictionaries(names.filter(lambda name: name != "epoch"), finite, min_size=1, max_size=6),
    st.floats(0, 100),
    st.booleans(),
)
def test_trainer_dicts_are_metrics(values, epoch, as_text):
    """What transformers prints is read without a change to the trainer, numbers as numbers or as text."""
    values = {**values, "epoch": epoch}
    shown = {name: str(value) if as_text else value for name, value in values.items()}
    assert read_line(str(shown).encode()) == ("metrics", values)


def test_a_trainer_dict_keeps_its_numbers_beside_what_is_none():
    """One value that is no number hides neither the others nor the line."""
    line = b"{'loss': nan, 'grad_norm': '0.25', 'note': 'warm', 'flag': True, 'left': None, 'epoch': 1.5}"
    assert read_line(line) == ("metrics", {"grad_norm": 0.25, "epoch": 1.5})


@pytest.mark.parametrize(
    "line",
    [
        b"{'loss': 0.5}",
        b"{'epoch': 1.0}",
        b"{'a': {'epoch': 1}, 'loss': 2}",
        b"{'loss': 0.5, 'epoch': 1.0} and more",
        b"{'loss': 0.5 'epoch': 1.0}",
        b"{}",
        b"{ }",
        b"{",
        b"",
        b"\r",
        b'{"epoch": 1, "loss": 2, "tunesmith": "no-such-kind"}',
        b'{"tunesmith": "metrics"',
        b'["tunesmith"]',
        b"loss: 0.5, epoch: 1.0",
        b"{'epoch': 1, 'loss': 2, 'text': '" + b"x" * 20_000 + b"'}",
    ],
)
def test_other_lines_are_log(line):
    """Only events and dicts that name the epoch beside something else are more than log."""
    assert read_line(line) is None


@pytest.mark.parametrize(
    "prefix", [b"", b"  ", b"\r", b" 12%|#    | 3/25\r", b"\r\r 3/25 [00:01<00:09]\r", b"\xff\xfe\r"]
)
@pytest.mark.parametrize("suffix", [b"", b"\r", b"  "])
def test_a_progress_bar_on_the_same_line_is_passed_over(prefix, suffix):
    """Tqdm rewinds with a carriage return; the event printed after it is still found."""
    assert read_line(prefix + b'{"tunesmith":"progress","step":3}' + suffix) == ("progress", {"step": 3})
    assert read_line(prefix + b"{'loss': 1.0, 'epoch': 2.0}" + suffix) == ("metrics", {"loss": 1.0, "epoch": 2.0})


def test_deep_nesting_is_log():
    """An event that one part of the service could read and another could not write is refused at the door."""
    deep = b'{"tunesmith":"result","x":' + b"[" * 500 + b"]" * 500 + b"}"
    assert read_line(deep) is None
    wide = b'{"tunesmith":"result","x":[' + b",".join([b"[1]"] * 500) + b"]}"
    assert read_line(wide) is not None
