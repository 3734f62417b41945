"""Reading data files."""

from __future__ import annotations

import contextlib
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.checkpoints.fit import differences
from tunesmith.contract.manifest import Origin
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.process.faults import BadRows
from tunesmith_workers.training.checkpoints import sha256_of_data

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        ({"messages": TURNS}, "messages"),
        ({"conversations": TURNS}, "conversations"),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}, "conversations"),
        ({"instruction": "hi", "input": "", "output": "hello"}, "instruction"),
        ({"input": "hi", "output": "hello"}, "instruction"),
    ],
)
def test_every_chat_shape_becomes_the_same_conversation(write_rows, row, shape):
    """However a conversation is written down, the model sees the same one."""
    [read] = read_rows(write_rows([row]))
    assert read.shape == shape
    assert [(turn["role"], turn["content"]) for turn in read.messages] == [("user", "hi"), ("assistant", "hello")]


def test_a_json_array_is_read_like_lines(write_rows):
    """An array and JSON Lines with the same rows are the same data."""
    rows = [{"messages": TURNS}, {"prompt": "a", "completion": "b"}]
    array, lines = write_rows(json.dumps(rows, indent=1), "a.json"), write_rows(rows, "b.jsonl")
    assert [row.messages for row in read_rows(array)] == [row.messages for row in read_rows(lines)]


def test_byte_order_mark_and_windows_line_ends_are_read(write_rows):
    """Files saved by other systems need no preparation."""
    content = b"\xef\xbb\xbf" + json.dumps({"messages": TURNS}).encode() + b"\r\n\r\n"
    assert len(read_rows(write_rows(content))) == 1


def test_all_faults_are_named_with_their_lines_at_once(write_rows):
    """One look at the error is enough to mend the whole file."""
    path = write_rows(
        "\n".join(
            [
                json.dumps({"messages": TURNS}),
                '{"messages": [',
                json.dumps({"text": "?"}),
                json.dumps({"messages": TURNS[:1]}),
                json.dumps({"messages": [{"role": "wizard", "content": "x"}]}),
                json.dumps({"messages": [{"role": "user", "content": 3}]}),
                json.dumps({"prompt": "a", "completion": ""}),
                "[1]",
            ]
        )
    )
    with pytest.raises(BadRows) as refused:
        read_rows(path)
    text = refused.value.text
    assert text.startswith("7 rows cannot be used")
    assert refused.value.where == f"{path}:2"
    for line, words in (
        (2, "not valid JSON"),
        (3, "no known shape (its keys: text)"),
        (4, "no assistant message"),
        (5, "messages[0] has the role 'wizard'"),
        (6, "messages[0].content must be text, not int"),
        (7, "empty completion"),
        (8, "not a JSON object"),
    ):
        assert any(f"{path}:{line}: " in fault and words in fault for fault in text.splitlines()), (line, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no rows"),
        (b"\n \n", "holds no rows"),
        ('{"messages": []}'.encode("utf-16"), "UTF-16"),
        (b'[{"messages": [}]', "not valid JSON"),
        (b'{"prompt": "\xff", "completion": "x"}', "cannot be used"),
        (b'{"prompt": NaN, "completion": "x"}', "not valid JSON"),
    ],
)
def test_a_file_that_is_no_data_is_refused(write_rows, content, words):
    """The verdict says what the file is, never only where the parser stopped."""
    with pytest.raises(BadRows, match=words):
        read_rows(write_rows(content))


def test_a_missing_file_is_refused_by_name(tmp_path):
    """The path is in the error."""
    with pytest.raises(BadRows) as refused:
        read_rows(tmp_path / "gone.jsonl")
    assert refused.value.where == str(tmp_path / "gone.jsonl")


@given(content=st.binary(max_size=200))
def test_any_bytes_give_rows_or_a_verdict(tmp_path_factory, content):
    """Nothing that can be uploaded makes the reader fail in another way."""
    path = tmp_path_factory.mktemp("bytes") / "rows.jsonl"
    path.write_bytes(content)
    with contextlib.suppress(BadRows):
        assert read_rows(path)


def test_a_folder_is_all_of_its_data_files(tmp_path):
    """In the order of their names, each row with its own file and line; the service hashes it as the training does."""
    for name, words in {
        "b.jsonl": ["three"],
        "a.json": ["one", "two"],
        "notes.txt": ["no"],
        ".c.jsonl": ["no"],
    }.items():
        rows = [{"prompt": "say", "completion": word} for word in words]
        text = json.dumps(rows) if name.endswith(".json") else "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / name).write_text(text)
    found = read_rows(tmp_path)
    assert [row.completion for row in found] == ["one", "two", "three"]
    assert found[2].where == f"{tmp_path / 'b.jsonl'}:1"
    assert [row.completion for row in read_rows(tmp_path, 2)] == ["one", "two"]
    sha256 = sha256_of_data(tmp_path)
    assert (
        sha256 == hashlib.sha256((tmp_path / "a.json").read_bytes() + (tmp_path / "b.jsonl").read_bytes()).hexdigest()
    )
    origin = Origin(data_sha256=sha256)
    config = {"data": {"train_file": str(tmp_path)}}
    assert differences(origin, config) == ()
    (tmp_path / "c.jsonl").write_text("{}")
    assert [fault.where for fault in differences(origin, config)] == ["data.train_file"]


def test_a_folder_without_data_files_is_refused(tmp_path):
    """The error names the folder and what is looked for."""
    (tmp_path / "rows.csv").write_text("a,b")
    with pytest.raises(BadRows) as refused:
        read_rows(tmp_path)
    assert refused.value.where == str(tmp_path)
    assert ".jsonl" in str(refused.value.mend)
