"""The first rows of a file, looked at before a run is queued: what is refused there would have ended the run."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from data_parts import SHAPES, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.datasets.first_rows import data_faults, shape_of
from tunesmith.recipes.recipe import DATA_SHAPES
from tunesmith_workers.data.shapes import RowFault
from tunesmith_workers.data.shapes import shape_of as workers_shape_of
from tunesmith_workers.examples.prompts import read_prompts
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.process.faults import BadRows

LORA = ("messages", "conversations", "instruction", "prompt_completion")
CHAT = b'{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}'


def faults(path: Path, shapes=LORA) -> list[tuple[str, str]]:
    found = data_faults(path, shapes, name="mine.jsonl", recipe="lora")
    assert all(fault.mend for fault in found)
    return [(str(fault.where), fault.message) for fault in found]


@pytest.mark.parametrize(
    ("content", "where", "said"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "mine.jsonl", "a PNG file"),
        (b"PK\x03\x04\x14\x00", "mine.jsonl", "a zip file"),
        (gzip.compress(CHAT, mtime=0), "mine.jsonl", "a gzip file"),
        (b"PAR1\x15\x04", "mine.jsonl", "a Parquet file"),
        ("hällo".encode("utf-16"), "mine.jsonl", "UTF-16"),
        (b"", "mine.jsonl", "is empty"),
        (b" \n\n", "mine.jsonl", "holds no rows"),
        (b"[ ]", "mine.jsonl", "holds no rows"),
        (b'{\n  "messages": [\n    {}\n  ]\n}\n', "mine.jsonl:1", "one JSON object over several lines"),
        (b'{"messages": [],\n "id": 1}\n', "mine.jsonl:1", "one JSON object over several lines"),
        (CHAT + b'\n{"messages": [],\n "id": 1}\n', "mine.jsonl:2", "one JSON object over several lines"),
        (b"prompt,completion\na,b\n", "mine.jsonl:1", "not valid JSON"),
        (CHAT + b"\n{oops\n", "mine.jsonl:2", "not valid JSON"),
        (CHAT + b"\n\xe4\n", "mine.jsonl:2", "not UTF-8"),
        (CHAT + b"\n[1]\n", "mine.jsonl:2", "not a JSON object"),
        (CHAT + b'\n\n{"text": 1}\n', "mine.jsonl:3", "no known shape (its keys: text)"),
        (CHAT + b'\n{"prompt": "a", "chosen": "b", "rejected": "c"}', "mine.jsonl:2", "has the shape preference"),
        (b'{"messages": {}}', "mine.jsonl:1", "must be a list"),
        (b"[" + CHAT + b",\n 3]", "mine.jsonl:2", "not a JSON object"),
        (b"[" + CHAT + b"\n" + CHAT + b"]", "mine.jsonl:2", "a comma or ] is missing"),
        (b"[" + CHAT + b",\n]", "mine.jsonl:2", "not valid JSON"),
        (b"[" + CHAT, "mine.jsonl:1", "is not closed"),
        (b'[{"messages": [], "x": NaN}]', "mine.jsonl:1", "NaN"),
        (b"[" * 100_000, "mine.jsonl:1", "nested too deeply"),
        (b'{"a":' * 30_000 + b"\n", "mine.jsonl:1", "nested too deeply"),
    ],
)
def test_what_cannot_be_trained_is_named_with_its_line(tmp_path, content, where, said):
    """By the name that the file was given, with what is wrong; and a training refuses every one of them, too."""
    path = tmp_path / "data.bin"
    path.write_bytes(content)
    (found,) = faults(path)
    assert found[0] == where
    assert said in found[1]
    with pytest.raises(BadRows):
        read_rows(path)


def test_a_table_is_told_by_its_name(tmp_path):
    """CSV has no first bytes of its own; the mend is the command that converts it."""
    path = tmp_path / "data.bin"
    path.write_bytes(b"prompt,completion\na,b\n")
    (fault,) = data_faults(path, LORA, name="orders.csv", recipe="lora")
    assert fault.where == "orders.csv"
    assert "a CSV file" in fault.message
    assert "tunesmith data process" in str(fault.mend)


def test_messages_to_be_answered_are_prompts_where_prompts_are_taken(tmp_path):
    """As in OpenAI's files for reinforcement; to a recipe that takes answers, and with an answer at their end, they are not."""
    path = tmp_path / "asked.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "a"}], "reference_answer": "b"}\n' + CHAT.decode())
    assert faults(path, ("prompt",)) == [("mine.jsonl:2", "has the shape messages, and recipe lora takes prompt")]
    assert faults(path, ("messages", "prompt")) == []


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_good_rows_are_not_refused(tmp_path, ending, mark):
    """Every shape, with any line ends, with a byte order mark or without, as lines and as an array."""
    lines, array = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text(mark + ending.join(json.dumps(row) for row in SHAPES.values()), newline="")
    array.write_text(mark + json.dumps(list(SHAPES.values()), indent=2), newline="")
    assert faults(lines, DATA_SHAPES) == faults(array, DATA_SHAPES) == []


def test_only_the_beginning_is_read_and_what_is_cut_off_is_no_fault(tmp_path):
    """However long rows are and wherever the limit falls, in the middle of a character or of a word of JSON as well."""
    path = tmp_path / "long"
    for size in range(262_100, 262_200, 7):
        for row in (
            json.dumps({"prompt": "界" * (size // 3), "completion": "é\\"}, ensure_ascii=False),
            '{"prompt": true}',
        ):
            for text in (f"{row}\n" * 3, f"[{','.join([row] * (2 if len(row) > 99 else 20_000))}]"):
                path.write_text(text)
                assert faults(path, ("prompt_completion", "prompt")) == []
    path.write_bytes(CHAT + b"\n" + b" " * 300_000 + b"\nnever looked at")
    assert faults(path) == []


def test_a_pipe_is_not_waited_for(tmp_path):
    """What is no regular file is its reader's to refuse."""
    os.mkfifo(tmp_path / "pipe")
    assert faults(tmp_path / "pipe") == faults(tmp_path / "missing") == faults(tmp_path) == []


@given(rows)
def test_shapes_are_those_of_the_workers(row):
    """The key that decides is the same on both sides, and its shape is one that recipes may name."""
    if not isinstance(row, dict):
        return
    try:
        expected = workers_shape_of(row)
    except RowFault:
        expected = None
    assert shape_of(row) == expected
    assert expected in (None, *DATA_SHAPES)


@settings(deadline=None)
@given(
    st.lists(rows | st.binary(max_size=20), max_size=5),
    st.booleans(),
    st.sampled_from([(LORA, read_rows), (("prompt",), read_prompts)]),
)
def test_nothing_that_trains_is_refused(tmp_path_factory, some, as_array, recipe):
    """Whatever a training reads without a fault passes; anything at all gets an answer."""
    shapes, reads = recipe
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    parts = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in some]
    path.write_bytes(b"[" + b",\n".join(parts) + b"]" if as_array else b"\n".join(parts))
    found = faults(path, shapes)
    try:
        reads(path)
    except BadRows:
        return
    assert found == []
