"""The fast way of reading rows: whatever it vouches for, the careful way says the same of it."""

from __future__ import annotations

import json

import pytest
from data_parts import GOOD, SHAPES, SHAREGPT, anything, processed, rows, texts, verdict, write
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith_workers.data.by_roles import teaches
from tunesmith_workers.data.fast import look_closely, sort_out
from tunesmith_workers.data.plain import KINDS
from tunesmith_workers.data.shapes import read, texts_of
from tunesmith_workers.process.faults import BadRows

_said = st.sampled_from(["hi", "hello", "", " ", "\x85", 'a "b"\\', "\u4eca\u5929", '"from": 1']) | texts
_role = st.sampled_from(["system", "developer", "user", "assistant", "tool", "human", "gpt", "observation", "wizard"])
_turns = st.one_of(
    st.tuples(_said, _said).map(lambda said: [("user", said[0]), ("assistant", said[1])]),
    st.tuples(_said, _said, _said).map(lambda said: list(zip(("system", "human", "gpt"), said, strict=True))),
    st.lists(st.tuples(_role, _said), max_size=6),
)
_messages = st.builds(
    lambda turns, beside: [{"role": role, "content": text, **beside} for role, text in turns],
    _turns,
    st.sampled_from([{}, {}, {"weight": 0}, {"weight": 1}, {"weight": 2}, {"name": "a", "refusal": None}]),
)
_sharegpt = _turns.map(lambda turns: [{"from": role, "value": text} for role, text in turns])
_beside = {"id": anything, "system": _said | st.none()}
_nearly_plain = st.one_of(
    st.fixed_dictionaries({"messages": _messages}, optional=_beside),
    st.fixed_dictionaries({"conversations": _messages | _sharegpt}, optional=_beside),
    st.fixed_dictionaries({"output": _said}, optional={"instruction": _said, "input": _said | st.none(), **_beside}),
    st.fixed_dictionaries({"prompt": _said, "completion": _said}, optional={"id": anything}),
    st.fixed_dictionaries({"prompt": _said, "chosen": _said, "rejected": _said}, optional={"id": anything}),
    st.fixed_dictionaries({"prompt": _said, "response": _said, "score": st.integers() | st.floats(-9, 9) | anything}),
    st.fixed_dictionaries({"prompt": _said}, optional={"id": anything}),
)
_lines = (_nearly_plain | rows).flatmap(
    lambda row: st.sampled_from(
        [
            json.dumps(row, ensure_ascii=False).encode(),
            json.dumps(row).encode(),
            json.dumps(row, separators=(",", ":")).encode() + b" \r",
            b"  " + json.dumps(row, separators=(",", ":")).encode(),
            json.dumps(row, ensure_ascii=False).encode()[:-1],
            json.dumps(row).encode() * 2,
            b"",
        ]
    )
)
_files = st.lists(_lines, min_size=1, max_size=10) | _lines.map(lambda line: [line] * 3)
"""Of many shapes, or of one."""


@settings(deadline=None, max_examples=300)
@given(lines=_files, shape=st.sampled_from([None, "messages", "instruction"]), shuffle=st.booleans())
def test_processing_gives_the_same_rows_and_the_same_report(tmp_path_factory, lines, shape, shuffle):
    """The same rows in the same order, the same reasons, the same counts; only blanks and the order of keys are free."""
    folder = tmp_path_factory.mktemp("both")
    path = folder / "a.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    if path.read_bytes().lstrip().startswith(b"["):
        return
    results = []
    for sorting in (sort_out, look_closely):
        try:
            report = processed(path, folder / "out", sorting=sorting, to_shape=shape, shuffle=shuffle)
        except BadRows as refusal:
            results.append(refusal.text)
            continue
        names = ("train.json", "val.json", "test.json", "rejected.jsonl")
        written = [[json.loads(line) for line in (folder / "out" / name).read_bytes().splitlines()] for name in names]
        results.append((report, written))
    assert results[0] == results[1]


_shapes = st.none() | st.lists(st.sampled_from(list(SHAPES)), min_size=1, max_size=4, unique=True)


@settings(deadline=None, max_examples=300)
@given(lines=_files, shapes=_shapes)
def test_the_verdict_is_the_same(tmp_path_factory, lines, shapes):
    """Every count, every length, every fault with its line; whichever shapes are taken."""
    path = tmp_path_factory.mktemp("both") / "a.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    fast, careful = (verdict(path, sorting=sorting, shapes=shapes) for sorting in (sort_out, look_closely))
    assert fast == careful
    assert shapes is None or not fast["stats"]["shapes"].keys() - set(shapes)


@given(some=st.lists(_nearly_plain | rows, min_size=1, max_size=8))
def test_what_is_vouched_for_says_what_the_careful_way_reads(some):
    """Row by row: the shape, the roles or fields, and the texts."""
    found = sort_out([json.dumps(row).encode() + b"\n" for row in some], teaches)
    vouched = [("messages", good.roles, good.columns, good.places) for good in found.good]
    vouched += [(plain.shape, plain.names, plain.columns, plain.places) for plain in found.plain]
    places = [place for *_, here in vouched for place in here]
    assert sorted([*places, *found.doubtful]) == list(range(len(some)))
    for shape, names, columns, here in vouched:
        for place, said in zip(here, zip(*columns, strict=True), strict=True):
            reading = read(some[place])
            assert reading.shape == shape
            assert texts_of(reading) == list(zip(names, said, strict=True))


@pytest.mark.parametrize("row", [*SHAPES.values(), SHAREGPT, {**SHAREGPT, "id": "a", "system": "be kind"}])
def test_plain_rows_of_every_shape_go_the_fast_way(row):
    """Alone and among others; otherwise the fast way would be right, and of no use."""
    line = json.dumps(row).encode() + b"\n"
    assert not sort_out([line] * 3, teaches).doubtful
    assert list(sort_out([line, b"\n", json.dumps(GOOD).encode(), line], teaches).doubtful) == [1]


def test_every_shape_has_a_fast_way():
    """So that a new shape is not forgotten."""
    assert {kind.shape for kind in KINDS} == SHAPES.keys()


def test_rows_that_go_out_as_they_came_keep_every_byte(tmp_path):
    """Also the order of their keys and how texts are escaped; only what stands around them goes."""
    row = (
        b'{"id": 1.50, "messages": [{"content": "\\u0068i", "role": "user"}, {"role": "assistant", "content": "ok"}] }'
    )
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([row, b" " + row + b" \r", row]))
    processed(path, tmp_path / "out", (1, 0, 0))
    assert (tmp_path / "out/train.json").read_bytes() == (row + b"\n") * 3
    array = write(tmp_path / "b.json", [])
    array.write_bytes(b"[" + row + b",\n" + row.replace(b", ", b",\n") + b"]")
    processed(array, tmp_path / "again", (1, 0, 0), shuffle=False)
    assert (tmp_path / "again/train.json").read_bytes() == row + b"\n" + row.replace(b" ", b"") + b"\n"


def test_many_rows_in_a_row_may_be_too_long(tmp_path):
    """However many there are in one block."""
    path = write(tmp_path / "a.jsonl", [{"prompt": "x" * 50}] * 3000 + [{"prompt": "a"}])
    found = verdict(path, longest_row=40)
    assert (found["valid_count"], found["error_count"]) == (1, 3000)
