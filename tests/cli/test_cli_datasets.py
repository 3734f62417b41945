"""Datasets from the command line: create, upload, look, delete."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
from pathlib import Path

import pytest

from support.commands import Cli, command
from support.server import ServerProcess, clean_environment

ROWS = b'{"prompt":"a","completion":"b"}\n' * 1000


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "训练.jsonl"
    path.write_bytes(ROWS)
    return path


def test_a_dataset_from_creation_to_deletion(ask: Cli, rows: Path) -> None:
    """`create` prints the id and nothing else; every command takes the id or the name."""
    made = ask("datasets", "create", "orders/一", "--description", "a first try", "--task", "sft", "--source", "us")
    assert made.returncode == 0, made.stderr
    dataset = made.stdout.strip()
    assert dataset.startswith("ds_")
    for reference in (dataset, "orders/一"):
        uploaded = ask("datasets", "upload", rows, "--dataset", reference)
        assert uploaded.returncode == 0, uploaded.stderr
        assert "32.0 kB" in uploaded.stdout or "32 kB" in uploaded.stdout
        assert uploaded.stderr == "", "no bar where nobody looks"
    shown = ask("datasets", "show", "orders/一").stdout
    assert "a first try" in shown
    assert shown.count("训练.jsonl") == 2
    listed = ask("datasets", "list").stdout
    assert listed.splitlines()[0].split()[:3] == ["ID", "NAME", "STATE"]
    assert dataset in listed
    content = json.loads(ask("datasets", "show", dataset, "--json").stdout)
    assert content["metadata"]["total_bytes"] == 2 * len(ROWS)
    first = content["files"][0]["upload_id"]
    assert ask("datasets", "delete", dataset, "--upload", first).returncode == 0
    assert len(json.loads(ask("datasets", "show", dataset, "--json").stdout)["files"]) == 1
    assert json.loads(ask("datasets", "delete", dataset, "--json").stdout)["status"] == "deleted"
    assert dataset not in ask("datasets", "list").stdout


def test_json_is_what_the_service_said(ask: Cli, rows: Path) -> None:
    """For scripts: the id of the dataset and of the upload."""
    made = json.loads(ask("datasets", "create", "for scripts", "--json").stdout)
    received = json.loads(
        ask("datasets", "upload", rows, "--dataset", made["id"], "--name", "train.jsonl", "--json").stdout
    )
    assert (received["filename"], received["bytes"]) == ("train.jsonl", len(ROWS))
    listed = json.loads(ask("datasets", "list", "--limit", "1", "--json").stdout)
    assert [one["id"] for one in listed] == [made["id"]]


def test_a_terminal_sees_a_bar(ask: Cli, server: ServerProcess, rows: Path) -> None:
    """How far the upload is, on standard error."""
    dataset = ask("datasets", "create", "with a bar").stdout.strip()
    master, slave = pty.openpty()
    with subprocess.Popen(
        command("datasets", "upload", rows, "--dataset", dataset, "--url", server.url),
        env=clean_environment({"TERM": "xterm"}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=slave,
    ) as uploading:
        os.close(slave)
        drawn = b""
        with contextlib.suppress(OSError):  # how a terminal says that the other end is closed
            while piece := os.read(master, 65536):
                drawn += piece
    os.close(master)
    assert uploading.returncode == 0, drawn
    assert b"100%" in drawn


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "nothing"), "there is no dataset 'nothing'"),
        (("show", "../keys"), "there is no dataset '../keys'"),
        (("delete", "nothing"), "there is no dataset 'nothing'"),
        (("upload", "nothing.jsonl", "--dataset", "x"), "is not a file"),
        (("create", " "), "must not be empty"),
    ],
)
def test_what_cannot_be_done_is_told(ask: Cli, words: tuple[str, ...], said: str) -> None:
    """With what was wrong, and exit code 1."""
    result = ask("datasets", *words)
    assert result.returncode == 1
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_a_file_of_another_dataset_is_not_deleted(ask: Cli, rows: Path) -> None:
    """An upload's id must belong to the dataset that is named."""
    mine, other = (ask("datasets", "create", name).stdout.strip() for name in ("mine", "other"))
    upload = json.loads(ask("datasets", "upload", rows, "--dataset", mine, "--json").stdout)["upload_id"]
    assert ask("datasets", "delete", other, "--upload", upload).returncode == 1
    assert len(json.loads(ask("datasets", "show", mine, "--json").stdout)["files"]) == 1
