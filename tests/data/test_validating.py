"""The verdict on a data file: every shape, every fault with its line, and what is in the rows."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from data_parts import GOOD, SHAPES, SHAREGPT, TURNS, call, rows, verdict, write
from hypothesis import given, settings
from hypothesis import strategies as st

from support.server import clean_environment
from tunesmith_workers.examples.rows import read_rows
from tunesmith_workers.process.faults import BadRows


@pytest.mark.parametrize(("shape", "row"), SHAPES.items())
def test_every_shape_is_valid(tmp_path, shape, row):
    """The shapes that the API names, as lines and as an array."""
    lines, array = write(tmp_path / "a.jsonl", [row, row]), tmp_path / "a.json"
    array.write_text(json.dumps([row, row], indent=2))
    for path, name in ((lines, "jsonl"), (array, "json")):
        found = verdict(path)
        assert found["valid"], found["errors"]
        assert (found["format"], found["total"], found["valid_count"]) == (name, 2, 2)
        assert found["stats"]["shapes"] == {shape: 2}
        assert found["stats"]["duplicates"] == 1


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        ({"text": "x"}, None, "has no known shape (its keys: text)"),
        ([1], None, "is not a JSON object"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": [3]}, "messages[0]", "must be an object with role and content"),
        ({"messages": TURNS[:1]}, "messages", "no assistant message"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0]", "has the role 'wizard'"),
        ({"messages": [{"content": "x"}]}, "messages[0]", "has no role"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": 3}]}, "messages[1].content", "not int"),
        ({"messages": [TURNS[0], {"role": "assistant"}]}, "messages[1].content", "not missing"),
        ({"messages": [TURNS[0], {"role": "assistant", "content": " \n"}]}, "messages[1].content", "is empty"),
        ({"conversations": [{"from": "human", "value": ""}]}, "conversations[0].value", "is empty"),
        ({"messages": TURNS, "tools": "x"}, "tools", "must be a list"),
        ({"output": "x"}, "instruction", "neither instruction nor input"),
        ({"instruction": "x", "output": ""}, "output", "is empty"),
        ({"prompt": "x", "completion": ""}, "completion", "empty completion"),
        ({"prompt": "x", "chosen": "a"}, "rejected", "has no rejected"),
        ({"prompt": "x", "chosen": "a", "rejected": "a"}, None, "nothing to prefer"),
        ({"prompt": "x", "chosen": [], "rejected": "a"}, "chosen", "is empty"),
        ({"prompt": "x", "response": "a"}, "score", "must be a number"),
        ({"prompt": "x", "response": "a", "score": True}, "score", "must be a number"),
        ({"prompt": ""}, "prompt", "is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(tmp_path, row, field, words):
    """By its line and field; the good rows around it count."""
    found = verdict(write(tmp_path / "a.jsonl", [GOOD, row, GOOD]))
    assert (found["valid"], found["total"], found["valid_count"]) == (False, 3, 2)
    [error] = found["errors"]
    assert (error["line"], error["field"]) == (2, field)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"messages": [', "is not valid JSON: Expecting value (column 15)"),
        (b'{"prompt": "a", "completion": NaN}', "NaN is no JSON value"),
        (b'{"prompt": "a", "score": -Infinity}', "-Infinity is no JSON value"),
        (b'{"prompt": "a\\ud800b"}', "\\ud800 is half of a character"),
        (b'{"prompt": "a\xed\xa0\x80b"}', "half of a character"),
        ('{"prompt": "Füße"}'.encode("latin-1"), "byte 0xfc at column 14; it looks like Latin-1"),
        ('{"prompt": "今天天气很好"}'.encode("gbk"), "it looks like GBK"),
        (b'{"prompt": "a", "id": "\xff"}', "is not UTF-8"),
        (b'\xef\xbb\xbf{"prompt": "a"}', "byte order mark stands in the middle"),
        (b'{"prompt": "a\tb"}', "is not valid JSON: Invalid control character"),
        (b'{"prompt": "a"} {"prompt": "b"}', "is not valid JSON: Extra data"),
        (b"[" * 5000, "is nested too deeply"),
        (b'{"prompt": "a", "score": 1e999}', "is not valid JSON"),
        (b'{"prompt": "a", "id": ' + b"1" * 5000 + b"}", None),
    ],
)
def test_bytes_that_are_no_row_are_explained_with_their_line(tmp_path, line, words):
    """Between good rows, with a byte order mark and Windows line ends: line 4, and only line 4."""
    good = json.dumps(GOOD).encode()
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + good + b"\r\n\r\n" + good + b"\r\n" + line + b"\r\n" + good + b"\r\n")
    found = verdict(path)
    assert found["stats"]["blank_lines"] == 1
    if words is None:
        return
    assert (found["total"], found["valid_count"]) == (4, 3)
    [error] = found["errors"]
    assert error["line"] == 4
    assert words in error["message"]


@pytest.mark.parametrize("frame", [(b"", b"\n"), (b"[", b"]")], ids=["lines", "array"])
@pytest.mark.parametrize("module", ["validate", "process"])
def test_a_row_of_fifty_megabytes_is_a_fault_and_takes_no_memory(tmp_path, frame, module):
    """It is named with its line, never held, and the rows around it are read."""
    good = json.dumps(GOOD).encode()
    path = tmp_path / "a.json"
    with path.open("wb") as file:
        between = b"\n" if frame[1] == b"\n" else b",\n"
        file.write(frame[0] + good + between + b'{"prompt": "')
        for _ in range(50):
            file.write(b"x\\n" * 350_000)
        file.write(b'"}' + between + good + frame[1])
    if module == "validate":
        answer, peak = call("tunesmith_workers.data.validate", {"file": str(path)})
        assert answer["valid_count"] == 2
    else:
        request = {"input_file": str(path), "output_dir": str(tmp_path / "out"), "ratios": [1, 0, 0]}
        answer, peak = call("tunesmith_workers.data.process", request)
        assert answer["counts"] == {"train": 2, "val": 0, "test": 0}
    assert answer["total"] == 3
    [error] = answer["errors"]
    assert error["line"] == 2
    assert "longer than 8388608 bytes" in error["message"]
    assert peak < 100 * 1024 * 1024


@given(content=st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_get_a_verdict(tmp_path_factory, content):
    """Nothing that can be uploaded makes the check fail."""
    path = tmp_path_factory.mktemp("bytes") / "a.jsonl"
    path.write_bytes(content)
    found = verdict(path)
    assert found["valid"] == (found["error_count"] == 0)
    assert all(error["line"] >= 1 for error in found["errors"])


@given(some=st.lists(rows, max_size=8))
def test_what_validates_is_what_trains(tmp_path_factory, some):
    """The trainer's reader takes a file exactly when all its rows are good and of a shape that it trains on."""
    path = write(tmp_path_factory.mktemp("rows") / "a.jsonl", some)
    found = verdict(path)
    trains = {"messages", "conversations", "instruction", "prompt_completion"}
    try:
        read_rows(path)
    except BadRows:
        assert not found["valid"] or found["stats"]["shapes"].keys() - trains
    else:
        assert found["valid"]
        assert not found["stats"]["shapes"].keys() - trains


def test_the_statistics_are_those_of_the_rows(tmp_path):
    """Counted by hand for a small file, the fast and the careful way alike."""
    system = {"role": "system", "content": "be brief"}
    twice = {"messages": [system, TURNS[0], TURNS[0], {"role": "assistant", "content": "x" * 1000}]}
    found = verdict(write(tmp_path / "a.jsonl", [GOOD, SHAREGPT, twice, SHAPES["preference"], {"prompt": ""}]))
    stats = found["stats"]
    assert stats["shapes"] == {"messages": 2, "conversations": 1, "preference": 1}
    assert stats["roles"] == {"assistant": 3, "system": 1, "user": 4} or stats["roles"] == {
        "system": 1,
        "user": 4,
        "assistant": 3,
    }
    assert stats["turns"] == {"2": 2, "4": 1}
    assert stats["consecutive_turns"] == 1
    assert stats["duplicates"] == 1  # the same conversation, however it is written down
    assert stats["empty_contents"] == 1
    assert stats["faults"] == {"empty_content": 1}
    answers = stats["characters"]["assistant"]
    assert (answers["count"], answers["total"], answers["min"], answers["max"]) == (3, 1010, 5, 1000)
    assert answers["histogram"][0] == {"from": 4, "to": 7, "count": 2}
    assert answers["histogram"][-1] == {"from": 512, "to": 1023, "count": 1}
    assert stats["characters"]["row"]["max"] == 8 + 2 + 2 + 1000
    assert stats["characters"]["chosen"]["total"] == 4


def test_only_the_first_faults_are_told_and_all_are_counted(tmp_path):
    """A million faults make no answer of a million lines."""
    found = verdict(write(tmp_path / "a.jsonl", [{"prompt": ""}] * 500), max_errors=7)
    assert [error["line"] for error in found["errors"]] == [1, 2, 3, 4, 5, 6, 7]
    assert (found["error_count"], found["total"]) == (500, 500)


@settings(max_examples=20)
@given(hashes=st.lists(st.integers(-(2**63), 2**63 - 1).map(lambda n: n % 50 - 25), max_size=300))
def test_duplicates_are_counted_beyond_what_is_held(hashes):
    """Whether hashes stay in memory or go to the file."""
    from tunesmith_workers.data.duplicates import Duplicates

    for most_held in (10**6, 16):
        duplicates = Duplicates(most_held=most_held)
        for start in range(0, len(hashes), 10):
            duplicates.add(hashes[start : start + 10])
        assert duplicates.total() == len(hashes) - len(set(hashes))
        duplicates.close()


def test_the_check_starts_at_once():
    """Nothing heavy is imported: the standard library, msgspec, and what is here."""
    code = "import tunesmith_workers.data.validate, tunesmith_workers.data.process, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, timeout=30, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"torch", "transformers", "numpy", "jinja2", "anyio", "litestar", "presidio_analyzer"}
