"""The server is killed at every step of an upload: after the restart it is there whole, or not at all."""

from __future__ import annotations

import hashlib

import httpx
import pytest
from dataset_parts import ROW, HalfUpload, folders, in_flight, new_dataset, put_file

from support.commands import Cli
from support.server import ServerProcess

NOT_RECORDED = [
    *("upload.before_write", "upload.before_fsync", "upload.before_rename", "upload.after_rename"),
    *("journal.before_write", "journal.inside_write"),
]
MAYBE_RECORDED = ["journal.before_fsync"]
RECORDED = ["journal.after_fsync"]


def check_totals(client: httpx.Client, server: ServerProcess, dataset: str) -> list[str]:
    """What is on record is on disk with its hash, and nothing else is; answers the names."""
    shown = client.get(f"/api/v1/datasets/{dataset}").json()
    expected = set()
    for one in shown["files"]:
        path = server.state_dir / "uploads" / one["upload_id"] / one["stored_name"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == one["sha256"]
        expected |= {one["upload_id"], f"{one['upload_id']}/{one['stored_name']}"}
    assert folders(server) == expected
    assert shown["metadata"]["total_files"] == len(shown["files"])
    assert shown["metadata"]["total_bytes"] == sum(one["bytes"] for one in shown["files"])
    assert shown["upload_progress"] == {"files_count": len(shown["files"]), "in_flight": []}
    return [one["name"] for one in shown["files"]]


def test_killed_in_the_middle_of_an_upload(tmp_path, recipes) -> None:
    """Some of it is on disk already; after the restart nothing of it is, and what was acknowledged is."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            dataset = new_dataset(client)
            put_file(client, dataset, "kept.jsonl", ROW * 100)
            upload = HalfUpload(server, dataset).send(b"x" * 1_000_000)
            (shown,) = in_flight(client, dataset, at_least=1_000_000)
        server.kill9()
        upload.leave()
        assert (server.state_dir / "uploads" / shown["upload_id"]).exists()
        server.up()
        with server.client() as client:
            assert check_totals(client, server, dataset) == ["kept.jsonl"]
            assert client.delete(f"/api/v1/uploads/{shown['upload_id']}").status_code == 404


def test_killed_between_any_two_steps(tmp_path, recipes) -> None:
    """Before and after each write, fsync and rename, of the file and of its record: it is there whole, or not at all.

    Once its record is on disk it is there, whether or not anybody was told. Sent again with its key, it is there once.
    """
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            dataset = new_dataset(client)
            put_file(client, dataset, "kept.jsonl")
        server.stop()
        for step in [*NOT_RECORDED, *MAYBE_RECORDED, *RECORDED]:
            fragile = ServerProcess(tmp_path / "state", recipes, {"TUNESMITH_FAILPOINT": step})
            fragile.up()
            with fragile.client() as client:
                check_totals(client, fragile, dataset)
                with pytest.raises(httpx.HTTPError):
                    put_file(client, dataset, f"{step}.jsonl", ROW * 1000, key=step)
            fragile.kill9()
        server.up()
        with server.client() as client:
            names = {name.removesuffix(".jsonl") for name in check_totals(client, server, dataset)}
            assert {"kept", *RECORDED} <= names
            assert not names & set(NOT_RECORDED)
            steps = [*NOT_RECORDED, *MAYBE_RECORDED, *RECORDED]
            for step in steps:
                put_file(client, dataset, f"{step}.jsonl", ROW * 1000, key=step)
            wanted = sorted(f"{name}.jsonl" for name in ("kept", *steps))
            assert sorted(check_totals(client, server, dataset)) == wanted


def test_killed_while_a_dataset_is_deleted(tmp_path, recipes) -> None:
    """The deletion is on record: the next start finishes it, and frees the room."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            dataset = new_dataset(client)
            for name in "abc":
                put_file(client, dataset, f"{name}.jsonl")
            config = {"file": ("c.yaml", b"job: {type: trains}\n")}
            client.put(f"/api/v1/datasets/{dataset}/train-config", files=config).raise_for_status()
        server.stop()
        fragile = ServerProcess(tmp_path / "state", recipes, {"TUNESMITH_FAILPOINT": "journal.after_fsync"})
        fragile.up()
        with fragile.client() as client, pytest.raises(httpx.HTTPError):
            client.delete(f"/api/v1/datasets/{dataset}")
        fragile.kill9()
        assert len(folders(server)) == 6
        server.up()
        with server.client() as client:
            assert client.get(f"/api/v1/datasets/{dataset}").status_code == 404
        assert folders(server) == set()
        assert list((server.state_dir / "train_configs").iterdir()) == []


def test_what_is_not_ours_is_left_alone(tmp_path, recipes) -> None:
    """Only folders named as uploads are cleared away, and links are not followed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "data.jsonl").write_bytes(ROW)
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        server.stop()
        uploads = server.state_dir / "uploads"
        (uploads / "notes").mkdir()
        (uploads / "upl_link").symlink_to(precious)
        (uploads / "upl_dead").mkdir()
        (uploads / "upl_dead" / "data.jsonl").symlink_to(precious / "data.jsonl")
        server.up()
        assert folders(server) == {"notes", "upl_link"}
        assert (precious / "data.jsonl").read_bytes() == ROW


def test_files_whose_record_was_lost_to_damage_are_set_aside(tmp_path, recipes) -> None:
    """After a repaired journal, whole files without a record stay for a person to look at; parts of files do not."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        with server.client() as client:
            upload = put_file(client, new_dataset(client), "a.jsonl")["upload_id"]
        server.stop()
        journal = server.state_dir / "uploads.jsonl"
        journal.write_bytes(journal.read_bytes().replace(b'"seq":1', b'"seq":7'))
        assert Cli(tmp_path)("state", "repair").returncode == 0
        (server.state_dir / "uploads" / "upl_half").mkdir()
        (server.state_dir / "uploads" / "upl_half" / ".data.jsonl.part").write_bytes(ROW)
        (server.state_dir / "train_configs" / "tc_lost.yaml").write_text("job: {type: trains}")
        server.up()
        assert folders(server) == set()
        assert upload in server.output
        aside = server.state_dir / "set-aside"
        assert (aside / "uploads" / upload / "data.jsonl").read_bytes() == ROW
        assert (aside / "train_configs" / "tc_lost.yaml").exists()
        assert not (aside / "uploads" / "upl_half").exists()
