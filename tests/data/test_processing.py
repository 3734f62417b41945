"""Training, validation and test files made of a data file: nothing lost, everything counted, the same seed the same bytes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
from collections import Counter

import pytest
from data_parts import GOOD, SHAPES, SHAREGPT, TURNS, everything, processed, read, rows, verdict, write
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith_workers.data.normalise import Normaliser
from tunesmith_workers.data.shapes import RowFault
from tunesmith_workers.data.shuffle import HeldRows
from tunesmith_workers.data.split import exact_counts
from tunesmith_workers.process.faults import BadConfig, BadRows


def usable(row: object, shape: str | None) -> bool:
    try:
        Normaliser(shape)(row)
    except RowFault:
        return False
    return True


def numbered(count: int) -> list[dict]:
    return [{"messages": [{"role": "user", "content": f"q{n}"}, TURNS[1]]} for n in range(count)]


@settings(deadline=None)
@given(
    some=st.lists(rows, min_size=1, max_size=12),
    shape=st.sampled_from([None, "messages", "conversations", "instruction", "prompt_completion"]),
    as_array=st.booleans(),
)
def test_every_row_is_accounted_for(tmp_path_factory, some, shape, as_array):
    """Rows in = rows out + rejected; messages in = messages out + merged + empty ones; texts of good rows all go on."""
    folder = tmp_path_factory.mktemp("process")
    path = folder / "a.json"
    if as_array or isinstance(some[0], list):  # a file that begins with a bracket is an array
        path.write_text(json.dumps(some, indent=1))
    else:
        write(path, some)
    if not any(usable(row, shape) for row in some):
        with pytest.raises(BadRows, match="no row can be used"):
            processed(path, folder / "out", to_shape=shape)
        return
    report = processed(path, folder / "out", to_shape=shape)
    written, rejected = everything(folder / "out"), read(folder / "out/rejected.jsonl")
    assert len(some) == report["total"] == len(written) + len(rejected)
    assert (len(written), len(rejected)) == (report["written"], report["rejected"])
    assert all(entry["reason"] and entry["line"] >= 1 for entry in rejected)
    left = Counter(json.dumps(row, sort_keys=True) for row in some)
    assert not Counter(json.dumps(entry["row"], sort_keys=True) for entry in rejected) - left
    again = verdict(write(folder / "again.jsonl", written))
    assert again["valid"], again["errors"]
    if shape is None:
        changes, before, after = report["changes"], report["stats"]["roles"], again["stats"]["roles"]
        lost = changes.get("turns_merged", 0) + changes.get("empty_system_removed", 0)
        assert sum(before.values()) == sum(after.values()) + lost
        assert again["stats"]["consecutive_turns"] == 0
        joined = 2 * changes.get("turns_merged", 0)
        total = sum(one["total"] for name, one in again["stats"]["characters"].items() if name != "row")
        assert total >= report["stats"]["characters"]["row"]["total"] + joined - 30 * lost


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_same_seed_gives_the_same_bytes(tmp_path, shuffle):
    """Byte for byte, wherever and whenever; another seed gives another order of the same rows."""
    path = write(tmp_path / "a.jsonl", [*numbered(500), SHAREGPT, {"bad": 1}])
    names = ("train.json", "val.json", "test.json", "rejected.jsonl")
    results = []
    for out, seed in (("one", 7), ("two", 7), ("three", 8)):
        processed(path, tmp_path / out, shuffle=shuffle, seed=seed)
        results.append([(tmp_path / out / name).read_bytes() for name in names])
    assert results[0] == results[1]
    assert (results[0] != results[2]) == shuffle
    assert sorted(b"".join(results[0][:3]).splitlines()) == sorted(b"".join(results[2][:3]).splitlines())
    if not shuffle:
        assert b"".join(results[0][:3]).splitlines()[:500] == path.read_bytes().splitlines()[:500]


@given(
    total=st.integers(0, 10_000),
    weights=st.tuples(*[st.integers(0, 1000)] * 3).filter(any),
)
def test_counts_are_exact(total, weights):
    """They sum to all rows, and none is further than one row from its share."""
    ratios = [weight / sum(weights) for weight in weights]
    counts = exact_counts(total, ratios)
    assert sum(counts) == total
    assert all(abs(count - total * ratio) < 1 + 1e-6 for count, ratio in zip(counts, ratios, strict=True))
    assert all(count == 0 for count, weight in zip(counts, weights, strict=True) if weight == 0)


@given(
    count=st.integers(0, 300),
    seed=st.integers(0, 2**32 - 1) | st.none(),
    buckets=st.integers(1, 9),
    most_held=st.integers(1, 2000),
)
def test_rows_that_were_put_aside_all_come_back(tmp_path_factory, count, seed, buckets, most_held):
    """However many buckets there are and however often they are written out; in order when no seed is given."""
    some = [f"row {n} {'x' * (n % 50)}\n".encode() for n in range(count)]
    held = HeldRows(
        tmp_path_factory.getbasetemp(), expected_bytes=buckets * 100, seed=seed, bucket_bytes=100, most_held=most_held
    )
    for start in range(0, count, 7):
        held.add(some[start : start + 7])
    back = [row for part in held.in_order() for row in part]
    held.close()
    assert held.count == count
    assert sorted(back) == sorted(some)
    if seed is None:
        assert back == some


def test_every_place_is_as_likely_for_every_row(tmp_path):
    """A shuffle through buckets is a real one: no row favours a place."""
    places: Counter[tuple[int, int]] = Counter()
    for seed in range(1200):
        held = HeldRows(tmp_path, expected_bytes=300, seed=seed, bucket_bytes=100, most_held=10)
        held.add([bytes([65 + n]) + b"\n" for n in range(6)])
        order = [row for part in held.in_order() for row in part]
        held.close()
        places.update((row[0] - 65, place) for place, row in enumerate(order))
    assert all(abs(places[row, place] - 200) < 75 for row in range(6) for place in range(6)), places


def test_chats_of_every_shape_become_the_same_messages(tmp_path):
    """ShareGPT, conversations and instructions: one shape where it is asked for, with what else the row says kept."""
    some = [{**row, "id": n} for n, row in enumerate([GOOD, SHAREGPT, SHAPES["conversations"], SHAPES["instruction"]])]
    report = processed(
        write(tmp_path / "a.jsonl", some), tmp_path / "out", (1, 0, 0), shuffle=False, to_shape="messages"
    )
    written = everything(tmp_path / "out")
    assert written[:3] == [{"messages": TURNS, "id": n} for n in range(3)]
    assert written[3] == {
        "messages": [{"role": "user", "content": "say\n\nhi"}, {"role": "assistant", "content": "hello"}],
        "id": 3,
    }
    assert report["changes"] == {
        "fields_renamed": 2,
        "role_renamed": 2,
        "conversations_to_messages": 2,
        "instruction_to_messages": 1,
    }


def test_conversations_with_role_and_content_stay_what_they_are(tmp_path):
    """Whoever keeps rows in that shape gets them back in it, tidied; only ShareGPT's turns become messages."""
    some = [
        {"conversations": TURNS, "id": 1},
        {
            "conversations": [{"role": "human", "content": "a"}, {"role": "human", "content": "b"}, *TURNS[1:]],
            "note": "x",
        },
        SHAREGPT,
        {"conversations": TURNS, "system": "be kind"},
    ]
    report = processed(write(tmp_path / "a.jsonl", some), tmp_path / "out", (1, 0, 0), shuffle=False)
    assert everything(tmp_path / "out") == [
        some[0],
        {"conversations": [{"role": "user", "content": "a\n\nb"}, *TURNS[1:]], "note": "x"},
        {"messages": TURNS},
        {"conversations": [{"role": "system", "content": "be kind"}, *TURNS]},
    ]
    assert report["changes"] == {
        "role_renamed": 4,
        "fields_renamed": 2,
        "turns_merged": 1,
        "conversations_to_messages": 1,
        "system_field_moved": 1,
    }


def test_a_conversation_is_tidied(tmp_path):
    """System first and once, turns of one role joined, an empty system gone; a turn with more than text is not touched."""
    call = {"id": "1", "type": "function", "function": {"name": "two", "arguments": "{}"}}
    messy = {
        "system": "field",
        "messages": [
            {"role": "human", "content": "a"},
            {"role": "user", "content": [{"type": "text", "text": "b"}]},
            {"role": "system", "content": "late"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "observation", "content": ""},
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "c"},
            {"role": "assistant", "content": "d", "weight": 0},
        ],
    }
    empty = {"messages": [{"role": "system", "content": " "}, *TURNS]}
    report = processed(write(tmp_path / "a.jsonl", [messy, empty]), tmp_path / "out", (1, 0, 0), shuffle=False)
    tidy, plain = everything(tmp_path / "out")
    assert [(turn["role"], turn["content"]) for turn in tidy["messages"]] == [
        ("system", "field\n\nlate"),
        ("user", "a\n\nb"),
        ("assistant", ""),
        ("tool", ""),
        ("tool", "2"),
        ("assistant", "c"),
        ("assistant", "d"),
    ]
    assert tidy["messages"][2]["tool_calls"] == [call]
    assert tidy["messages"][-1]["weight"] == 0
    assert plain == GOOD
    assert report["changes"] == {
        "turns_merged": 2,
        "system_field_moved": 1,
        "system_moved_first": 1,
        "role_renamed": 2,
        "parts_joined": 1,
        "empty_system_removed": 1,
    }


def test_rows_are_converted_where_that_makes_sense(tmp_path):
    """One question and one answer go into any shape; what does not fit is rejected, not bent."""
    long = {"messages": [*TURNS, *TURNS]}
    path = write(tmp_path / "a.jsonl", [GOOD, SHAPES["prompt_completion"], long, SHAPES["preference"]])
    expected = {
        "prompt_completion": [{"prompt": "hi", "completion": "hello"}, SHAPES["prompt_completion"]],
        "instruction": [
            {"instruction": "hi", "input": "", "output": "hello"},
            {"instruction": "a", "input": "", "output": "b"},
        ],
        "conversations": [
            SHAREGPT,
            {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        ],
    }
    for shape, both in expected.items():
        report = processed(path, tmp_path / shape, (1, 0, 0), shuffle=False, to_shape=shape)
        assert everything(tmp_path / shape)[:2] == both
        reasons = [entry["reason"] for entry in read(tmp_path / shape / "rejected.jsonl")]
        assert reasons[-1] == f"a row of the shape preference cannot become {shape}"
        assert (len(reasons) == 1) == (shape == "conversations")
        assert report["total"] == 4
    system = processed(path, tmp_path / "system", (1, 0, 0), shuffle=False, default_system="be kind")
    assert everything(tmp_path / "system")[0]["messages"][0] == {"role": "system", "content": "be kind"}
    assert system["changes"]["system_added"] == 2


def test_what_nobody_can_use_is_kept_with_its_line(tmp_path):
    """Bytes that are no JSON as text, rows as they were."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n\n{"text": "\xc3\xa9", "n": 1.0}\n{"prompt": "\xff"}\n')
    report = processed(path, tmp_path / "out")
    other, broken = read(tmp_path / "out/rejected.jsonl")
    assert (other["line"], other["row"]) == (3, {"text": "é", "n": 1.0})
    assert (broken["line"], broken["text"]) == (4, '{"prompt": "\\xff"}')
    assert report["counts"] == {"train": 1, "val": 0, "test": 0}
    assert report["stats"]["blank_lines"] == 1


def test_a_broken_item_of_an_array_is_rejected_and_the_others_go_on(tmp_path):
    """Items over several lines become one line each; bytes that are no JSON are kept as text."""
    path = tmp_path / "a.json"
    good = json.dumps(GOOD, indent=2).encode()
    path.write_bytes(b"[\n" + good + b',\n{"prompt":\n oops},\n{"prompt": "\xff"},\n' + good + b"\n]\n")
    report = processed(path, tmp_path / "out", (1, 0, 0))
    assert everything(tmp_path / "out") == [GOOD, GOOD]
    broken, foreign = read(tmp_path / "out/rejected.jsonl")
    assert (broken["line"], broken["text"]) == (14, '{"prompt":\n oops}')
    assert foreign["line"] == 16
    assert report["total"] == 4


def test_numbers_go_on_as_they_are(tmp_path):
    """Also those that are larger than a machine's, in rows that were changed."""
    row = {**SHAREGPT, "id": 2**100, "more": [-(2**70), 1e22, 0.1]}
    processed(write(tmp_path / "a.jsonl", [row]), tmp_path / "out", (1, 0, 0))
    assert everything(tmp_path / "out") == [{**GOOD, "id": 2**100, "more": [-(2**70), 1e22, 0.1]}]


def test_an_array_whose_rows_cannot_be_told_apart_is_refused(tmp_path):
    """Rather than losing what follows; the old result stays."""
    path = tmp_path / "a.json"
    path.write_text(json.dumps([GOOD] * 3))
    processed(path, tmp_path / "out")
    before = sorted((entry.name, entry.read_bytes()) for entry in (tmp_path / "out").iterdir())
    path.write_text(json.dumps([GOOD] * 5)[:-1])
    with pytest.raises(BadRows, match="closing bracket"):
        processed(path, tmp_path / "out")
    assert sorted((entry.name, entry.read_bytes()) for entry in (tmp_path / "out").iterdir()) == before


def test_provenance_names_every_file_by_its_hash(tmp_path):
    """And the input, and what was asked for."""
    path = write(tmp_path / "a.jsonl", [*numbered(50), {"bad": 1}])
    out = tmp_path / "out"
    processed(path, out, seed=3)
    found = json.loads((out / "provenance.json").read_text())
    assert found["input"] == {
        "path": str(path),
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    assert found["options"]["seed"] == 3
    assert found["policy"] is None
    assert found["files"].keys() == {entry.name for entry in out.iterdir()} - {"provenance.json"}
    for name, file in found["files"].items():
        assert file["sha256"] == hashlib.sha256((out / name).read_bytes()).hexdigest()
        assert file["bytes"] == (out / name).stat().st_size
    assert [found["files"][f"{name}.json"]["rows"] for name in ("train", "val", "test")] == [40, 5, 5]


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    """Unless asked to; then only files of the same names are replaced. An earlier result is simply renewed."""
    path = write(tmp_path / "a.jsonl", numbered(10))
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(BadConfig, match=r"mine\.txt"):
        processed(path, out)
    assert [entry.name for entry in out.iterdir()] == ["mine.txt"]
    processed(path, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "mine"
    processed(path, out, (0.5, 0.5, 0.0))
    assert [len(read(out / f"{name}.json")) for name in ("train", "val", "test")] == [5, 5, 0]
    with pytest.raises(BadConfig, match="would replace the input"):
        processed(out / "train.json", out)


def test_two_writers_do_not_share_a_folder(tmp_path):
    """The second is told to wait."""
    out = tmp_path / "out"
    out.mkdir()
    holder = os.open(out, os.O_RDONLY)
    fcntl.flock(holder, fcntl.LOCK_EX)
    with pytest.raises(BadConfig, match="another process is writing"):
        processed(write(tmp_path / "a.jsonl", numbered(3)), out)
    os.close(holder)
    processed(write(tmp_path / "a.jsonl", numbered(3)), out)


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    """Its unfinished files were never under their names."""
    out = tmp_path / "out"
    (out / ".unfinished").mkdir(parents=True)
    (out / ".unfinished/train.json").write_text("half a ro")
    processed(write(tmp_path / "a.jsonl", numbered(3)), out)
    assert not (out / ".unfinished").exists()
    assert len(read(out / "train.json")) == 3


def test_the_page_needs_nothing_else_and_shows_text_as_text(tmp_path):
    """No script, no address, and markup from the data is escaped."""
    evil = "<script>alert(1)</script>"
    some = [*numbered(20), {evil: 1}, {"messages": [{"role": evil, "content": "x"}]}]
    report = processed(write(tmp_path / "<b>.jsonl", some), tmp_path / "out")
    page = (tmp_path / "out/report.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;.jsonl" in page
    assert "http" not in page.replace("http-equiv", "")
    assert "<svg" in page
    assert "22 rows: 20 written, 2 rejected" in page
    assert json.loads((tmp_path / "out/report.json").read_text()) == json.loads(json.dumps(report))


def test_a_large_file_goes_through_the_disk(tmp_path):
    """More than is held in memory: every row comes out once, in the shares asked for."""
    filler = random.Random(1).randbytes(500).hex()
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        for n in range(36_000):
            file.write(json.dumps({"messages": [{"role": "user", "content": f"{n} {filler}"}, TURNS[1]]}) + "\n")
    report = processed(path, tmp_path / "out", (0.9, 0.05, 0.05))
    assert report["counts"] == {"train": 32400, "val": 1800, "test": 1800}
    found = [int(row["messages"][0]["content"].partition(" ")[0]) for row in everything(tmp_path / "out")]
    assert sorted(found) == list(range(36_000))
    assert found[:100] != sorted(found[:100])
