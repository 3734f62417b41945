"""Data that goes through a de-identification policy, and what vouches for it afterwards."""

from __future__ import annotations

import json

import pytest
from data_parts import GOOD, everything, processed, read, write

from tunesmith_workers.data.provenance import DataPolicy, policy_behind
from tunesmith_workers.data.split import WrittenFile

pytest.importorskip("tunesmith_workers.deid.engine", reason="the extra deid is not installed")

PHONE = "13812345678"
MAIL = "li.wei@example.com"


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """Rows with a phone number in many places."""
    place = tmp_path_factory.mktemp("deid")
    row = {
        "messages": [
            {"role": "user", "content": f"我的手机号码是{PHONE} 邮箱{MAIL}"},
            {"role": "assistant", "content": f"已记录 {PHONE}。"},
        ],
        "source": {"note": [f"mail {MAIL}"]},
        "tools": [{"name": "save_contact"}],
    }
    bad = {"messages": [{"role": "user", "content": f"call {PHONE}"}]}
    path = write(place / "a.jsonl", [row, GOOD, bad])
    report = processed(path, place / "out", (1, 0, 0), shuffle=False, deidentify="default", seed=9)
    return place, path, report


def test_every_text_goes_through_the_policy(result):
    """Contents and fields that nobody knows; the same original gets the same replacement all over the file."""
    place, _, report = result
    first, second = everything(place / "out")
    whole = json.dumps(first, ensure_ascii=False)
    assert PHONE not in whole
    assert MAIL not in whole
    assert first["tools"] == [{"name": "save_contact"}]
    assert [turn["role"] for turn in first["messages"]] == ["user", "assistant"]
    assert second == GOOD
    found = report["deidentified"]
    assert found["policy_id"] == "default"
    assert sum(found["counts"].values()) >= 4


def test_nothing_leaves_by_the_side_door(result):
    """Neither rejected rows nor the reports hold what was to be replaced."""
    place, _, _ = result
    [rejected] = read(place / "out/rejected.jsonl")
    assert rejected["line"] == 3
    assert "row" not in rejected
    for file in (place / "out").iterdir():
        assert PHONE not in file.read_text()
        assert MAIL not in file.read_text()


# The limit may run out in a callback of the garbage collector, which Hypothesis has. It is stopped again a moment later.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_row_that_takes_too_long_is_rejected_by_its_line(tmp_path):
    """It is never dropped in silence, and never goes out as it came; the rows around it are done."""
    slow = {"messages": [{"role": "user", "content": "张" * 100_000}, {"role": "assistant", "content": "hm"}]}
    path = write(tmp_path / "a.jsonl", [GOOD, slow, GOOD])
    report = processed(path, tmp_path / "out", (1, 0, 0), deidentify="default", row_seconds=0.1)
    assert (report["total"], report["written"], report["rejected"]) == (3, 2, 1)
    assert report["errors"][0]["line"] == 2
    assert "could not be de-identified within" in report["errors"][0]["message"]
    [rejected] = read(tmp_path / "out/rejected.jsonl")
    assert rejected["line"] == 2
    assert "withheld" in rejected
    assert everything(tmp_path / "out") == [GOOD, GOOD]


def test_the_same_seed_gives_the_same_replacements(result):
    """Byte for byte."""
    place, path, _ = result
    processed(path, place / "again", (1, 0, 0), shuffle=False, deidentify="default", seed=9)
    assert (place / "again/train.json").read_bytes() == (place / "out/train.json").read_bytes()


def test_the_policy_is_vouched_for_by_hash(result, tmp_path):
    """For the very file that was written; not for another one, and not for one that was changed since."""
    place, _, report = result
    provenance = json.loads((place / "out/provenance.json").read_text())
    train = place / "out/train.json"
    sha256 = provenance["files"]["train.json"]["sha256"]
    policy = DataPolicy(id="default", version=report["deidentified"]["policy_version"])
    assert policy_behind(train, sha256) == policy
    assert policy_behind(train, "0" * 64) is None
    assert policy_behind(place / "out/val.json", sha256) is None
    (tmp_path / "train.json").write_bytes(train.read_bytes())
    assert policy_behind(tmp_path / "train.json", sha256) is None
    for strange in ("{}", "[", json.dumps({**provenance, "made_by": "somebody"})):
        (tmp_path / "provenance.json").write_text(strange)
        assert policy_behind(tmp_path / "train.json", sha256) is None
    assert WrittenFile(**provenance["files"]["train.json"]).rows == 2
