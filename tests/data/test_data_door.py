"""Checking and processing data over real HTTP, and from the command line."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path

import httpx
import pytest
from data_parts import GOOD, SHAPES, SHAREGPT, everything, write

from support.commands import Cli
from support.server import ServerProcess, polled, start_run, write_recipe

ROW = json.dumps({"messages": [{"role": "user", "content": "x" * 500}]}).encode() + b"\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    place = tmp_path_factory.mktemp("door")
    config = {"model": {"base": None}, "data": {"validation_file": None}}
    schema = {"data.validation_file": {"type": "str"}}
    write_recipe(place / "recipes", "trains", "true", config, data=["messages"], schema=schema)
    with ServerProcess.start(place / "state", place / "recipes") as server:
        yield server


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def place(server):
    """A folder below the allowed roots."""
    return server.state_dir.parent


def check(client, path, **params):
    return client.post("/api/data/validate", params={"file_path": str(path), **params})


def test_a_file_is_checked(client, place):
    """The verdict has the fields of the API, and names line and field."""
    path = write(place / "mixed.jsonl", [GOOD, SHAREGPT, {"messages": [{"role": "x"}]}])
    answer = check(client, path)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert {name: found[name] for name in ("valid", "format", "total", "valid_count", "error_count")} == {
        "valid": False,
        "format": "jsonl",
        "total": 3,
        "valid_count": 2,
        "error_count": 1,
    }
    [error] = found["errors"]
    assert (error["line"], error["field"]) == (3, "messages[0]")
    assert found["stats"]["shapes"] == {"messages": 1, "conversations": 1}
    assert found["stats"]["characters"]["user"]["histogram"] == [{"from": 2, "to": 3, "count": 2}]
    assert check(client, path, max_errors=0).json()["errors"] == []


def test_a_file_is_processed(client, place):
    """Into a folder that did not exist; the answer is the report; the folder is a dataset then."""
    path = write(place / "all.jsonl", [*SHAPES.values()] * 10)
    request = {"input_file": str(path), "output_dir": str(place / "made/of/all"), "split_config": {"seed": 5}}
    answer = client.post("/api/data/process", json=request)
    assert answer.status_code == 200, answer.text
    report = answer.json()
    assert report["counts"] == {"train": 56, "val": 7, "test": 7}
    assert (report["total"], report["written"], report["rejected"]) == (70, 70, 0)
    assert len(everything(place / "made/of/all")) == 70
    assert json.loads((place / "made/of/all/report.json").read_text()) == report
    assert check(client, report["files"]["train"]).json()["valid_count"] == 56
    assert check(client, place / "made/of/all").json()["valid_count"] == 56


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("gone.jsonl", 400, "does not exist"),
        ("pipe", 400, "pipe"),
        ("/dev/zero", 403, "outside the allowed roots"),
        ("device", 403, "outside the allowed roots"),
        ("link", 403, "outside the allowed roots"),
        ("../../../../../../etc/passwd", 403, "outside the allowed roots"),
        ("a\0b", 400, "not a usable path"),
        ("x" * 4000, 400, "not a usable path"),
    ],
)
def test_what_is_no_data_file_of_ours_is_refused(client, place, name, status, words):
    """Missing, pipes, devices, links to elsewhere: at once, and never opened."""
    if name == "pipe" and not (place / name).exists():
        os.mkfifo(place / name)
    if name in ("link", "device") and not (place / name).is_symlink():
        (place / name).symlink_to("/etc/passwd" if name == "link" else "/dev/zero")
    path = name if name.startswith("/") else f"{place}/{name}"
    for answer, where in (
        (check(client, path), "file_path"),
        (client.post("/api/data/process", json={"input_file": path, "output_dir": f"{place}/no"}), "input_file"),
    ):
        assert answer.status_code == status, answer.text
        assert words in answer.json()["detail"]
        assert answer.json()["where"] == where
    assert not (place / "no").exists()


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"output_dir": "/etc/made"}, 403, "outside the allowed roots"),
        ({"output_dir": "{place}/link/made"}, 403, "outside the allowed roots"),
        ({"output_dir": "{place}/good.jsonl/made"}, 422, "is not a folder"),
        ({"output_dir": "{place}"}, 422, "is not empty"),
        ({"split_config": {"train_ratio": 0.9}}, 422, "sum to 1.1"),
        ({"split_config": {"train_ratio": 1.5, "val_ratio": -0.5, "test_ratio": 0}}, 422, "between 0 and 1"),
        ({"split_config": {"seed": -1}}, 422, "between 0 and 4294967295"),
        ({"split_config": {"sead": 1}}, 422, "sead"),
        ({"to_shape": "poem"}, 422, "poem"),
        ({"deidentify": "no-such-policy"}, 422, "no-such-policy"),
        ({"input_file": "{place}/bad.jsonl"}, 422, "no row can be used"),
    ],
)
def test_a_request_that_does_not_fit_says_why(client, place, change, status, words):
    """Before anything is written."""
    write(place / "good.jsonl", [GOOD])
    write(place / "bad.jsonl", [{"bad": 1}])
    if not (place / "link").is_symlink():
        (place / "link").symlink_to("/etc/passwd")
    request = {"input_file": f"{place}/good.jsonl", "output_dir": f"{place}/refused", **change}
    request = {name: value.format(place=place) if isinstance(value, str) else value for name, value in request.items()}
    answer = client.post("/api/data/process", json=request)
    assert answer.status_code == status, answer.text
    assert words in answer.text
    assert not (place / "refused").exists()


@pytest.mark.parametrize("share", [0.5, 0.0])
def test_the_folder_is_a_dataset_for_training(client, place, share):
    """A run that names it trains on its train.json and is validated on its val.json, unless that has no rows."""
    path, out = write(place / "few.jsonl", [GOOD] * 4), place / f"few-{share}"
    split = {"train_ratio": 1 - share, "val_ratio": share, "test_ratio": 0}
    client.post("/api/data/process", json={"input_file": f"{path}", "output_dir": f"{out}", "split_config": split})
    (place / "model").mkdir(exist_ok=True)
    run_id = start_run(client, "trains", model=str(place / "model"), dataset={"name": str(out)})
    config = (place / f"state/runs/{run_id}/config.yaml").read_text()
    assert f"train_file: {out}/train.json" in config
    assert (f"validation_file: {out}/val.json" in config) == bool(share)


def test_an_uploaded_dataset_is_named_by_id_or_name(client, place):
    """As runs name it."""
    made = client.post("/api/v1/datasets", json={"name": "uploaded"}).json()
    content = (json.dumps(GOOD) + "\n") * 3
    answer = client.put(f"/api/v1/datasets/{made['id']}/files", files={"file": ("train.jsonl", content)})
    assert answer.status_code in (200, 201), answer.text
    assert check(client, made["id"]).json()["valid_count"] == 3
    request = {"input_file": "uploaded", "output_dir": f"{place}/from-upload"}
    assert client.post("/api/data/process", json=request).json()["written"] == 3


@pytest.mark.parametrize(
    ("path", "request_of"),
    [
        ("/api/data/validate", lambda large, _: {"params": {"file_path": large}}),
        ("/api/data/process", lambda large, out: {"json": {"input_file": large, "output_dir": out}}),
    ],
)
def test_a_client_that_leaves_stops_the_work(server, place, path, request_of):
    """The file would keep the worker busy for long; its process is gone soon after the connection, and its turn is free."""
    large = place / "very-large.jsonl"
    with large.open("wb") as file:
        for _ in range(400):
            file.write(ROW * (1024 * 1024 // len(ROW)))
    left = server.output.count("client_left")
    with server.client() as client:
        asked = client.build_request("POST", path, **request_of(str(large), str(place / "never")))
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        head = f"POST {asked.url.raw_path.decode()} HTTP/1.1\r\nHost: {host}\r\n"
        head += "".join(
            f"{name}: {asked.headers[name]}\r\n" for name in ("content-type", "content-length") if name in asked.headers
        )
        connection.sendall(head.encode() + b"\r\n" + asked.content)
        assert any(polled(lambda: workers_of(server)))
    assert any(polled(lambda: not workers_of(server)))
    assert any(polled(lambda: server.output.count("client_left") == left + 1))
    large.unlink()


def workers_of(server) -> list[str]:
    """Processes that the server has started to work on data."""
    lists = Path(f"/proc/{server.pid}/task").glob("*/children")
    return [pid for children in lists for pid in children.read_text().split() if b"workers.data" in command_of(pid)]


def command_of(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""  # it has just ended


def test_the_service_answers_others_while_a_large_file_is_checked(server, place):
    """The event loop has nothing to do with it: health is asked and answered many times while the check goes on."""
    line = json.dumps(
        {"messages": [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y" * 500}]}
    )
    path = place / "large.jsonl"
    with path.open("w") as file:
        for _ in range(100):
            file.write((line + "\n") * 1000)
    answered: list[tuple[float, float]] = []
    done = threading.Event()

    def ping() -> None:
        with server.client() as client:
            while not done.is_set():
                began = time.monotonic()
                client.get("/healthz").raise_for_status()
                answered.append((began, time.monotonic()))

    pinging = threading.Thread(target=ping)
    pinging.start()
    try:
        with httpx.Client(base_url=server.url, timeout=100, trust_env=False) as client:
            began = time.monotonic()
            assert check(client, path).json()["valid_count"] == 100_000
            ended = time.monotonic()
    finally:
        done.set()
        pinging.join()
    during = [one for one in answered if began <= one[0] and one[1] <= ended]
    assert len(during) >= 10, "a loop that is busy with the file answers none, and an idle machine some hundreds"


def test_the_command_line_checks_and_processes(server, place):
    """Exit code 1 for a file with faults; JSON is the service's answer; paths are those of the caller's folder."""
    cli = Cli(place, {"TUNESMITH_URL": server.url})
    write(place / "cli.jsonl", [GOOD] * 9 + [{"bad": 1}])
    done = cli("data", "validate", "cli.jsonl")
    assert done.returncode == 1, done.stderr
    assert "9 of 10 can be used" in done.stdout
    assert "no known shape" in done.stdout
    assert json.loads(cli("data", "validate", "cli.jsonl", "--json").stdout)["valid_count"] == 9
    done = cli("data", "process", "cli.jsonl", "cli-out", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert "9 of 10 written" in done.stdout
    assert (place / "cli-out/report.html").exists()
    done = cli("data", "process", "cli.jsonl", "cli-out2", "--train", "0.5", "--val", "0.5")
    assert done.returncode == 1
    assert "sum to 1.1" in done.stderr
