"""Names of fine-tuned models, the size of models by their files, and events read from the end of a file."""

from __future__ import annotations

import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.openai.job_events import lines_from_end, measured_at
from tunesmith.openai.results import step_metrics
from tunesmith.records import new_id
from tunesmith.references import fine_tuned_name, read_fine_tuned
from tunesmith.references.model_size import parameters_of


@given(base=st.text(min_size=1, max_size=60), suffix=st.text(max_size=64), step=st.none() | st.integers(0, 10**9))
def test_a_name_leads_back_to_its_run_whatever_it_is_made_of(base, suffix, step):
    run_id = new_id("run")
    name = fine_tuned_name(base.replace("\0", ""), suffix, run_id, step=step)
    assert read_fine_tuned(name) == (run_id, step)


@pytest.mark.parametrize(
    ("base", "suffix", "shown"),
    [
        ("gpt-4o-mini-2024-07-18", "my-suffix", "ft:gpt-4o-mini-2024-07-18:tunesmith:my-suffix:"),
        ("/models/large/Qwen", "", "ft:Qwen:tunesmith::"),
        ("Qwen/Qwen2.5-7B-Instruct", "Größe 1!", "ft:Qwen/Qwen2.5-7B-Instruct:tunesmith:gr-e-1:"),
    ],
)
def test_names_read_as_openais_do(base, suffix, shown):
    assert fine_tuned_name(base, suffix, "run_01k9zkq8c5e2v7m4w3x6y8z0ab") == f"{shown}01k9zkq8c5e2v7m4w3x6y8z0ab"


@pytest.mark.parametrize(
    "name",
    [
        "ft:",
        "ft:a:b:c:short",
        "gpt-4o",
        "ft:a:b:c:01k9zkq8c5e2v7m4w3x6y8z0ab:ckpt-step-",
        "ft:01k9zkq8c5e2v7m4w3x6y8z0ab",
    ],
)
def test_what_is_no_such_name_is_none(name):
    assert read_fine_tuned(name) is None


def test_parameters_are_counted_by_the_heads_of_files(tmp_path):
    head = json.dumps(
        {"__metadata__": {"format": "pt"}, "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]}}
    )
    for name in ("one.safetensors", "two.safetensors"):
        (tmp_path / name).write_bytes(struct.pack("<Q", len(head)) + head.encode() + b"\0" * 48)
    assert parameters_of(tmp_path) == 24
    for broken in (b"", b"\xff" * 100, struct.pack("<Q", 5) + b"{1:2}"):
        (tmp_path / "two.safetensors").write_bytes(broken)
        assert parameters_of(tmp_path) is None
    assert parameters_of(tmp_path / "nothing") is None


@given(st.lists(st.text(max_size=90_000), max_size=6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_lines_of_a_file_come_from_its_end(tmp_path_factory, texts, whole):
    path = tmp_path_factory.mktemp("lines") / "metrics.jsonl"
    lines = [{"at": 1.0, "log_offset": number, "text": text} for number, text in enumerate(texts)]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_text(content + ("" if whole else '{"at": 2, "log_off'))
    assert list(lines_from_end(path)) == lines[::-1]


def test_a_step_that_was_measured_twice_counts_once(tmp_path):
    """After a restart the steps since the checkpoint are done again."""
    path = tmp_path / "metrics.jsonl"
    found = [(1, {"loss": 3.0}), (2, {"loss": 2.0}), (2, {"loss": 1.5}), (2, {"eval_loss": 1.0}), (3, {"loss": 1.25})]
    path.write_text(
        "".join(
            json.dumps({"at": float(number), "log_offset": number, "step": step, **values}) + "\n"
            for number, (step, values) in enumerate(found)
        )
        + "broken\n"
    )
    table = [line.split(",")[:4] for line in step_metrics(path).decode().splitlines()]
    assert table == [
        ["step", "train_loss", "train_accuracy", "valid_loss"],
        ["1", "3.0", "", ""],
        ["2", "1.5", "", "1.0"],
        ["3", "1.25", "", ""],
    ]
    assert measured_at(path, {2}) == {2: {"train_loss": 1.5, "full_valid_loss": 1.0, "valid_loss": 1.0}}
    assert measured_at(tmp_path / "nothing", {2}) == {}
