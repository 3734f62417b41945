"""Data files as streams: what JSON Lines and arrays hold, row by row, with their lines."""

from __future__ import annotations

import io
import json

import pytest
from data_parts import GOOD, anything, verdict
from hypothesis import example, given
from hypothesis import strategies as st

from tunesmith_workers.data.arrays import array_items
from tunesmith_workers.data.reader import Batch, DataFile, NotData, Unreadable


def in_blocks(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


@given(
    items=st.lists(anything, max_size=6),
    indent=st.sampled_from([None, 0, 2]),
    ascii_only=st.booleans(),
    size=st.integers(1, 40),
)
@example(items=['a\\"]}', {"b": ["{", "\\"]}, "\\"], indent=2, ascii_only=False, size=1)
def test_an_array_is_split_into_the_items_it_has(items, indent, ascii_only, size):
    """Wherever blocks end: within strings, escapes, brackets."""
    content = json.dumps(items, indent=indent, ensure_ascii=ascii_only).encode()
    found = list(array_items(iter(in_blocks(content, size)), 10**6))
    assert [json.loads(item.text) for item in found] == items
    lines = content.split(b"\n")
    for item in found:
        assert item.text.split(b"\n")[0] in lines[item.line - 1]


@given(
    lengths=st.lists(st.sampled_from([0, 3, 40, 60, 200]), min_size=1, max_size=6),
    size=st.integers(1, 90),
    indent=st.sampled_from([None, 2]),
)
def test_an_item_that_is_too_long_is_named_and_the_others_are_read(lengths, size, indent):
    """It is never held; what comes after it is unharmed."""
    items = [{"text": "x" * length, "more": ["]", {"}": "{"}]} for length in lengths]
    content = json.dumps(items, indent=indent).encode()
    limit = 180
    found = list(array_items(iter(in_blocks(content, size)), limit))
    assert len(found) == len(items)
    for item, expected, length in zip(found, items, lengths, strict=True):
        assert not item.fault
        if length < 200:
            assert json.loads(item.text) == expected
        else:
            assert item.text is None
            assert item.bytes > limit
            assert "{" in content.decode().split("\n")[item.line - 1]


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b'[{"prompt": "a"},\n{"prompt": "b"}\n', 3, "without its closing bracket"),
        (b'[{"prompt": "a"}]\n\n{"prompt": "b"}\n', 3, "something follows the end"),
        (b'[{"prompt": "a"},\n\n]', 1, "a comma too many"),
        (b'[{"prompt": "a"},\n{"prompt": \n"b" "c"}]', 2, "Expecting ',' delimiter (line 2 of the item, column 5)"),
        (b"[1,\n2]", 1, "is not a JSON object"),
    ],
)
def test_a_broken_array_names_the_line(tmp_path, content, line, words):
    """An array that lacks its end, goes on after it, or holds something broken."""
    path = tmp_path / "a.json"
    path.write_bytes(content)
    found = verdict(path)
    assert not found["valid"]
    assert found["format"] == "json"
    assert any(error["line"] == line and words in error["message"] for error in found["errors"]), found["errors"]


@pytest.mark.parametrize("content", [b"[]", b"[ \n ]", b"", b"\n\n", b"\xef\xbb\xbf"])
def test_a_file_without_rows_is_not_valid(tmp_path, content):
    """Nothing to train on is a fault, whatever it is written like."""
    path = tmp_path / "a.json"
    path.write_bytes(content)
    found = verdict(path)
    assert (found["valid"], found["total"]) == (False, 0)
    assert found["errors"][0]["message"] == "the file holds no rows"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(GOOD).encode("utf-16"), "UTF-16"),
        (json.dumps(GOOD).encode("utf-16-be"), "looks like UTF-16"),
        (json.dumps(GOOD).encode("utf-32"), "UTF-32"),
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"PAR1rest", "Parquet"),
        (b"\x00\x01\x02" * 100, "zero bytes"),
    ],
)
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path, content, words):
    """The verdict is about line 1 and says what to do."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    found = verdict(path)
    assert (found["valid"], found["format"], found["total"]) == (False, "unknown", 0)
    [error] = found["errors"]
    assert error["line"] == 1
    assert words in error["message"]


@given(
    lines=st.lists(st.sampled_from([b"", b"{}", b"x" * 30, b"y" * 31, b"z" * 100, b"  "]), max_size=8),
    end=st.sampled_from([b"", b"\n"]),
    size=st.integers(1, 60),
)
def test_lines_keep_their_numbers(lines, end, size):
    """Wherever blocks end; a line beyond the limit is named and nothing else is lost."""
    content = b"\n".join(lines) + end

    class InBlocks(io.BytesIO):
        def read(self, _size=-1):
            return super().read(size)

        def fileno(self):
            return 0

    if content.lstrip()[:1] == b"[":
        return
    found: dict[int, bytes | None] = {}
    try:
        parts = list(DataFile(InBlocks(content), longest_row=30).parts())
    except NotData:
        raise AssertionError("these are lines") from None
    for part in parts:
        if isinstance(part, Batch):
            assert all(row.endswith(b"\n") for row in part.rows)
            found |= dict(zip(part.lines, (row[:-1] for row in part.rows), strict=True))
        else:
            assert isinstance(part, Unreadable)
            found[part.line] = None
    expected = {number: (line if len(line) <= 30 else None) for number, line in enumerate(lines, start=1)}
    assert {number: row for number, row in found.items() if row != b""} == {
        number: row for number, row in expected.items() if row != b""
    }
