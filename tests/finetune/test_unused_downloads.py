"""Datasets that are fetched for built-in recipes: nothing of them stays that no run uses, and nothing goes that one does."""

from __future__ import annotations

import http.server
import itertools
import subprocess
import threading
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import msgspec
import pytest
from anyio.from_thread import check_cancelled
from finetune_parts import file_server, request_for

from support.server import ServerProcess, polled, wait_for_run, write_recipe
from tunesmith.finetune import leftovers, sweep
from tunesmith.paths import StatePaths
from tunesmith.records import DatasetReference, Run, RunKind, RunState, new_id, utc_now

ENV = {"TUNESMITH_ALLOW_PRIVATE_URLS": "true"}
ROWS = b'{"messages": []}\n'
NOBODY = "http://127.0.0.1:9/hook"


@pytest.fixture
def server(tmp_path):
    for name in ("lora", "sft"):
        config = {
            "model": {"base": None},
            "data": {"train_file": None, "validation_file": "", "test_file": ""},
            "training": {"num_train_epochs": 1.0, "per_device_train_batch_size": 1, "learning_rate": 0.1},
        }
        write_recipe(tmp_path / "recipes", name, "true", config, data=["messages"])
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.jsonl").write_bytes(ROWS)
    env = {**ENV, "TUNESMITH_DEFAULT_MODEL": str(tmp_path / "model")}
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes", env) as server:
        yield server


@contextmanager
def endless_file() -> Iterator[tuple[str, threading.Event]]:
    """An address that sends the beginning of a file and then nothing; and whether it was asked."""
    asked, enough = threading.Event(), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "1000000")
            self.end_headers()
            self.wfile.write(ROWS)
            asked.set()
            enough.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}/rows.jsonl", asked
        enough.set()
        listening.shutdown()


def downloads(server: ServerProcess) -> set[str]:
    folder = StatePaths(server.state_dir).downloads
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def begin(server: ServerProcess, train: str, other: str | None = None) -> httpx.Response:
    request = request_for(NOBODY, str(other or train), new_id("task"), finetune_mode="lora")
    request["input_content"]["customized_input"]["train_dataset_path"] = train
    with server.client() as client:
        return client.post("/finetune", json=request)


def begin_in_vain(server: ServerProcess, train: str) -> None:
    with pytest.raises(httpx.HTTPError):
        begin(server, train).raise_for_status()


@pytest.mark.parametrize("how", ["kill9", "stop"])
def test_what_was_being_fetched_when_the_server_ended_is_removed(server, how):
    """By the next start at the latest. What runs use stays, whichever of the three it was."""
    with file_server(ROWS) as files, server.client() as client:
        rows = str(server.state_dir.parent / "rows.jsonl")
        for answer in (begin(server, f"{files}/rows.csv"), begin(server, rows, f"{files}/rows.csv")):
            assert answer.status_code == 200, answer.text
            wait_for_run(client, answer.json()["run_id"])
    used = downloads(server)
    assert len(used) == 2
    with endless_file() as (address, asked), ThreadPoolExecutor() as pool:
        waiting = pool.submit(begin_in_vain, server, address)
        assert asked.wait(60)
        assert any(polled(lambda: len(downloads(server)) == 3))
        getattr(server, how)()
        waiting.result()
    server.up()
    assert any(polled(lambda: downloads(server) == used))


def test_no_room_for_the_folder_is_said_as_elsewhere(server):
    """507, and nothing of the request stays."""
    place = StatePaths(server.state_dir).downloads
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "nr_inodes=1", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a file system of its own size")
    try:
        with file_server(ROWS) as files:
            answer = begin(server, f"{files}/rows.csv")
        assert answer.status_code == 507, answer.text
        assert "free" in answer.json()["mend"]
        assert downloads(server) == set()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_whatever_keeps_the_output_from_being_made_the_downloads_go(server):
    """Also what nobody has foreseen: here the finetuned folder is a file."""
    StatePaths(server.state_dir).finetuned.write_text("")
    with file_server(ROWS) as files:
        assert begin(server, f"{files}/rows.csv").status_code == 500
    assert downloads(server) == set()


# -- the sweep ------------------------------------------------------------------------------------------------------


@pytest.fixture
def paths(tmp_path: Path) -> StatePaths:
    paths = StatePaths(tmp_path / "state")
    paths.create()
    return paths


def fetched(paths: StatePaths) -> Path:
    folder = paths.downloads / new_id("dl")
    folder.mkdir(parents=True)
    (folder / "train_dataset_path.jsonl").write_bytes(ROWS)
    return folder


def run_with(dataset: Path | None = None, state: RunState = RunState.SUCCEEDED) -> Run:
    reference = DatasetReference(name=str(dataset), split="train") if dataset is not None else None
    return Run(id=new_id("run"), kind=RunKind.TRAIN, recipe="x", state=state, created_at=utc_now(), dataset=reference)


def write_config(run_folder: Path, names: Path, *, started: bool = False) -> None:
    run_folder.mkdir(parents=True)
    (run_folder / "config.yaml").write_text(f"data:\n  validation_file: {names}/valid_dataset_path.jsonl\n")
    if started:
        (run_folder / "attempts").mkdir()


def but_for(runs: list[Run]) -> Callable[[Container[str]], list[Run]]:
    return lambda but: [run for run in runs if run.id not in but]


@pytest.mark.parametrize("state", RunState)
def test_what_a_run_names_stays_whatever_its_state(paths, state):
    """In its record or in its config."""
    in_record, in_config, unused = (fetched(paths) for _ in range(3))
    runs = [run_with(in_record / "train_dataset_path.jsonl", state), run_with(None, state)]
    write_config(paths.run(runs[1].id).folder, in_config)
    sweep(paths, leftovers(paths), but_for(runs))
    assert (in_record.exists(), in_config.exists(), unused.exists()) == (True, True, False)


def test_a_run_that_lost_its_record_keeps_what_it_names(paths):
    """If it was started: where it is, or where `state accept` has moved it."""
    here, aside, never_started = (fetched(paths) for _ in range(3))
    write_config(paths.run("run_here").folder, here, started=True)
    write_config(paths.root / "set-aside/runs/run_aside", aside, started=True)
    write_config(paths.run("run_never").folder, never_started)
    sweep(paths, leftovers(paths), but_for([]))
    assert (here.exists(), aside.exists(), never_started.exists()) == (True, True, False)


def test_only_folders_of_our_own_making_are_removed(paths, tmp_path):
    """No link is followed, neither in the folder nor as the folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").write_text("")
    unused = fetched(paths)
    (unused / "link").symlink_to(elsewhere)
    link = paths.downloads / new_id("dl")
    link.symlink_to(elsewhere)
    others = [paths.downloads / name for name in ("dl_mine", "mine", new_id("upl"))]
    for folder in others:
        folder.mkdir()
    file = paths.downloads / new_id("dl")
    file.write_text("")
    sweep(paths, leftovers(paths), but_for([]))
    assert not unused.exists()
    assert link.is_symlink()
    assert file.exists()
    assert all(folder.exists() for folder in others)
    moved = fetched(paths)
    paths.downloads.rename(tmp_path / "moved")
    paths.downloads.symlink_to(tmp_path / "moved")
    sweep(paths, leftovers(paths), but_for([]))
    assert moved.exists()
    assert (elsewhere / "kept").exists()


def test_nothing_is_removed_while_a_config_cannot_be_read(paths):
    """It may name any of them."""
    unused, run = fetched(paths), run_with()
    paths.run(run.id).config.mkdir(parents=True)
    sweep(paths, leftovers(paths), but_for([run]))
    assert unused.exists()


def test_no_run_is_read_where_nothing_is_unaccounted_for(paths):
    """Nor more than it takes to find that out."""
    used = fetched(paths)
    first = run_with(used)
    read: list[str] = []

    def recorded(_: object) -> Iterator[Run]:
        for run in (first, msgspec.structs.replace(first, id=new_id("run"))):
            read.append(run.id)
            yield run

    sweep(paths, leftovers(paths), recorded)
    assert read == [first.id]
    used.rename(paths.root / "gone")
    sweep(paths, leftovers(paths), recorded)
    assert read == [first.id]


def test_a_run_that_is_created_meanwhile_keeps_what_it_names(paths):
    """The runs on record are asked for again until no more have come."""
    unused, named = fetched(paths), fetched(paths)
    runs = [run_with()]

    def recorded(but: Container[str]) -> Iterator[Run]:
        for run in [run for run in runs if run.id not in but]:
            if len(runs) == 1:
                runs.append(run_with(named))
            yield run

    sweep(paths, leftovers(paths), recorded)
    assert (unused.exists(), named.exists()) == (False, True)


def test_what_is_there_later_is_left_alone(paths):
    """A request of this server is fetching it."""
    found = leftovers(paths)
    later = fetched(paths)
    sweep(paths, found, but_for([]))
    assert later.exists()


def test_a_server_that_stops_does_not_wait_for_it(paths):
    """Then nothing is removed, and the next start sees to it."""
    unused = fetched(paths)
    endless = (run_with() for _ in itertools.count())

    async def stop_in_the_middle() -> None:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                work = partial(sweep, paths, leftovers(paths), lambda _: endless, between_runs=check_cancelled)
                tasks.start_soon(anyio.to_thread.run_sync, work)
                await anyio.sleep(0.1)
                tasks.cancel_scope.cancel()

    anyio.run(stop_in_the_middle)
    assert unused.exists()
