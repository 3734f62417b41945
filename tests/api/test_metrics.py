"""What a scraper is told, also while everything that is counted changes."""

from __future__ import annotations

import threading
from pathlib import Path

import anyio
import httpx

from support.server import ServerProcess, wait_for_run, write_recipe
from tunesmith.app import open_services
from tunesmith.records import Run, RunKind, RunState, new_id, utc_now
from tunesmith.settings import Settings

EARLIER_RUNS = 5_000
RUNS = 25
SCRAPERS = 4


def write_earlier_runs(state_dir: Path) -> None:
    """So many that reading them all takes a while."""

    async def fill() -> None:
        opened = open_services(Settings(state_dir=state_dir))
        async with anyio.create_task_group() as tasks:
            for _ in range(EARLIER_RUNS):
                run = Run(
                    id=new_id("run"),
                    kind=RunKind.TRAIN,
                    recipe="sft",
                    state=RunState.CANCELLED,
                    created_at=utc_now(),
                    command=("true",),
                )
                tasks.start_soon(opened.services.runs.book.add, run)
        for journal in opened.journals:
            await journal.close()

    anyio.run(fill)


def value(text: str, series: str) -> float:
    return float(next(line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(series)))


def test_scrapes_succeed_while_runs_come_and_go(tmp_path):
    """Several scrapers at once, all the time in which runs are created and end: every answer is whole, and the sums are right."""
    write_recipe(tmp_path / "recipes", "quick", "true")
    write_earlier_runs(tmp_path / "state")
    with ServerProcess.start(tmp_path / "state", tmp_path / "recipes", {"TUNESMITH_MAX_CPU_RUNS": "4"}) as server:
        enough = threading.Event()
        answers: list[httpx.Response] = []

        def scrape() -> None:
            with server.client() as client:
                while not enough.is_set():
                    answers.append(client.get("/metrics"))

        scrapers = [threading.Thread(target=scrape) for _ in range(SCRAPERS)]
        with server.client() as client:
            experiment = client.post("/v1/experiments", json={"name": "x", "task_type": "sft"}).json()["id"]
            for scraper in scrapers:
                scraper.start()
            try:
                path = f"/v1/experiments/{experiment}/runs"
                runs = [client.post(path, json={"recipe": "quick"}).json()["run_id"] for _ in range(RUNS)]
                for run_id in runs:
                    wait_for_run(client, run_id)
            finally:
                enough.set()
                for scraper in scrapers:
                    scraper.join()
            assert {answer.status_code for answer in answers} == {200}
            text = client.get("/metrics").text
    assert value(text, 'tunesmith_runs{state="succeeded"}') == RUNS
    assert value(text, 'tunesmith_runs{state="cancelled"}') == EARLIER_RUNS
    assert value(text, 'tunesmith_runs{state="queued"}') == 0
    assert (
        value(text, 'tunesmith_request_seconds_count{method="POST",route="/v1/experiments/{experiment_id}/runs"')
        == RUNS
    )
