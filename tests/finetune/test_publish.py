"""What the finetune door puts into its promised place: whole or not at all, as often as it is asked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.finetune import LOG, MODEL, publish, show_log

LARGE = 2 * 1024 * 1024


@pytest.fixture
def output(tmp_path) -> Path:
    """A finished model."""
    folder = tmp_path / "output"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"w" * LARGE)
    (folder / "tokenizer/vocab.json").write_text("{}")
    return folder


@pytest.fixture
def place(tmp_path) -> Path:
    folder = tmp_path / "finetuned/model/20261120180125_t-1"
    (folder / MODEL).mkdir(parents=True)
    return folder


def test_a_model_is_linked_where_it_is_large_and_copied_where_it_is_small(output, place):
    """Asked again nothing changes, and neither folder needs the other."""
    for _ in range(2):
        publish(output, place)
        assert (place / MODEL / "model.safetensors").samefile(output / "model.safetensors")
    (place / MODEL / "tokenizer/vocab.json").write_text("edited")
    assert (output / "tokenizer/vocab.json").read_text() == "{}"
    shutil.rmtree(output)
    assert (place / MODEL / "model.safetensors").stat().st_size == LARGE
    assert [path.name for path in place.iterdir()] == [MODEL]


def test_what_a_crash_left_half_done_is_done_anew(output, place):
    """The half is not taken for the whole."""
    beside = place / f".{MODEL}.partial"
    beside.mkdir()
    (beside / "model.safetensors").write_bytes(b"half")
    publish(output, place)
    assert (place / MODEL / "model.safetensors").stat().st_size == LARGE
    assert not beside.exists()


def test_another_file_system_gets_copies(output):
    """Where nothing can be linked; the log is then a symbolic link."""
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == output.stat().st_dev:
        pytest.skip("needs a second file system")
    place = shared_memory / f"tunesmith-test-{os.getpid()}"
    (place / MODEL).mkdir(parents=True)
    try:
        publish(output, place)
        assert (place / MODEL / "model.safetensors").read_bytes() == b"w" * LARGE
        for _ in range(2):
            show_log(output / "run.log", place)
        (output / "run.log").write_text("grows\n")
        assert (place / LOG).read_text() == "grows\n"
    finally:
        shutil.rmtree(place)


def test_the_log_grows_in_both_places(tmp_path, place):
    """Shown before its run has begun, and again afterwards: one file."""
    log = tmp_path / "run.log"
    for text in ("one\n", "two\n"):
        show_log(log, place)
        with log.open("a") as file:
            file.write(text)
    assert (place / LOG).read_text() == "one\ntwo\n"


def test_without_room_nothing_half_done_is_offered(output, place):
    """A file size limit stands in for the full disk: the promised folder stays empty, and there is an error to tell of."""
    (output / "small.bin").write_bytes(b"x" * 500_000)
    code = """
import resource, sys
from pathlib import Path
from tunesmith.finetune import publish
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    publish(Path(sys.argv[1]), Path(sys.argv[2]))
except OSError as error:
    sys.exit(7)
"""
    done = subprocess.run([sys.executable, "-c", code, output, place], check=False, timeout=60)
    assert done.returncode == 7
    assert list((place / MODEL).iterdir()) == []
