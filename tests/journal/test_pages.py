"""Pages of records: all of them once and in order, never more than were asked for, and never more bytes than an answer has."""

from __future__ import annotations

from datetime import UTC, datetime

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunesmith.checkpoints import CheckpointBook, CheckpointSummary
from tunesmith.datasets import (
    DatasetService,
    DatasetSummary,
    TrainConfigs,
    TrainConfigSummary,
    UploadService,
    UploadSummary,
)
from tunesmith.experiments import ExperimentService, ExperimentSummary
from tunesmith.idempotency import IdempotentCalls
from tunesmith.journal import PAGE_BYTES, Journal, newest_first, page_of
from tunesmith.paths import StatePaths
from tunesmith.recipes import RecipeBook
from tunesmith.records import (
    ArtifactTags,
    Checkpoint,
    Dataset,
    Experiment,
    Mark,
    Run,
    RunKind,
    RunState,
    TrainConfigFile,
    Upload,
    utc_now,
)
from tunesmith.runs import ArtifactBook, ArtifactSummary, RunBook, RunSummary

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def experiment(number: int, size: int) -> Experiment:
    return Experiment(id=f"exp_{number}", name=str(number % 3), task_type="sft", created_at=NOW, goal="x" * size)


@given(
    st.lists(st.sampled_from([0, 1, 1000, PAGE_BYTES // 3, PAGE_BYTES + 1]), max_size=12),
    st.integers(1, 5),
    st.sampled_from(["0", "1", None]),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_following_the_cursor_gives_every_record_once(tmp_path, sizes, limit, name):
    """Whatever their sizes, and with a filter: newest first, at most so many and so many bytes, one record at least."""
    path = tmp_path / "experiments.jsonl"
    path.unlink(missing_ok=True)
    journal = Journal.open(path, Experiment, ExperimentSummary)
    for number, size in enumerate(sizes):
        await journal.append("created", experiment(number, size))
    ids, seen, cursor = list(journal.summaries), [], None
    while True:
        positions = newest_first(ids, cursor)
        page = page_of(journal, ids, positions, limit=limit, keep=lambda one: name in (None, one.name))
        assert len(page.ids) <= limit
        assert len(page.ids) == 1 or sum(journal.size_of(one) for one in page.ids) <= PAGE_BYTES
        seen += page.ids
        cursor = page.cursor
        if cursor is None:
            break
        assert page.ids
    assert seen == [one for one in reversed(ids) if name in (None, journal.summaries[one].name)]
    await journal.close()


async def test_no_list_answers_more_than_its_bytes(tmp_path):
    """A thousand of each with everything as large as it may be: no page is larger than 5 MiB, and none is left out."""
    paths = StatePaths(tmp_path)
    paths.create()
    runs = Journal.open(paths.runs, Run, RunSummary)
    experiments = Journal.open(paths.experiments, Experiment, ExperimentSummary)
    checkpoints = Journal.open(paths.checkpoints, Checkpoint, CheckpointSummary)
    mark = Mark(tag_type="t", release_tag="r", metrics={"note": "m" * 50_000}, at=NOW)
    for number in range(150):
        run = Run(id=f"run_{number}", kind=RunKind.TRAIN, recipe="x", state=RunState.SUCCEEDED, created_at=NOW)
        await runs.append("created", msgspec.structs.replace(run, hyperparams={"x": "h" * 64_000}))
        await experiments.append("created", experiment(number, 64_000))
        checkpoint = Checkpoint(id=f"ckpt_{number}", run_id="run_1", step=1, path="p", bytes=1, created_at=NOW)
        await checkpoints.append("marked", msgspec.structs.replace(checkpoint, marks=(mark,)))
    books = {
        "runs": (RunBook(runs), {}),
        "experiments": (ExperimentService(experiments, utc_now), {}),
        "checkpoints": (CheckpointBook(checkpoints, paths, utc_now), {"keep": lambda _: True}),
    }
    for field, (book, options) in books.items():
        pages, cursor = [], None
        while cursor is not None or not pages:
            page = book.page(limit=1000, cursor=cursor, **options)
            assert len(msgspec.json.encode(page)) < 5 * 1024 * 1024
            pages.append(getattr(page, field))
            cursor = page.cursor
        assert sum(map(len, pages)) == 150
        assert len(pages) > 1
    for journal in (runs, experiments, checkpoints):
        await journal.close()


async def test_a_page_of_artifacts_is_bounded_in_bytes(tmp_path):
    """A thousand to a page, with as many and as long tags as there may be: the answer ends before 5 MiB, and goes on."""
    paths = StatePaths(tmp_path)
    paths.create()
    output = paths.run("run_1").output
    output.mkdir(parents=True)
    for number in range(250):
        (output / f"{number:04d}").touch()
    journal = Journal.open(paths.artifacts, ArtifactTags, ArtifactSummary)
    book = ArtifactBook(journal, paths)
    tags = tuple(f"{number}{'t' * 195}" for number in range(100))
    for artifact in book.page("run_1", limit=1000).artifacts:
        record = ArtifactTags(id=artifact.artifact_id, run_id="run_1", path=artifact.path, tags=tags)
        await journal.append("tagged", record)
    found, cursor, pages = [], None, 0
    while cursor is not None or not pages:
        page = book.page("run_1", limit=1000, cursor=cursor)
        assert len(msgspec.json.encode(page)) < 5 * 1024 * 1024
        found += [one.path for one in page.artifacts]
        cursor, pages = page.cursor, pages + 1
    assert found == [f"output/{number:04d}" for number in range(250)]
    assert pages > 1
    await journal.close()


def upload(dataset_id: str, number: int, name: int) -> Upload:
    return Upload(
        id=f"up_{dataset_id}_{number}",
        dataset_id=dataset_id,
        name="n" * name,
        stored_name="data.jsonl",
        bytes=1,
        sha256="0" * 64,
        uploaded_at=NOW,
    )


@pytest.mark.parametrize(("texts", "files", "name"), [(64_000, 0, 0), (0, 200, 50), (32_000, 100, 50), (0, 20, 8000)])
async def test_a_page_of_datasets_is_bounded_in_bytes_and_files(tmp_path, texts, files, name):
    """Much about each, many files in each, both, and files with long names: every page has 4 MiB and 2000 files at most, and none is left out."""
    paths = StatePaths(tmp_path)
    paths.create()
    datasets = Journal.open(paths.datasets, Dataset, DatasetSummary)
    uploads = Journal.open(paths.uploads, Upload, UploadSummary)
    configs = Journal.open(paths.train_configs, TrainConfigFile, TrainConfigSummary)
    ids = [f"ds_{number}" for number in range(100)]
    for dataset_id in ids:
        notes = {"x": "m" * texts}
        await datasets.append("created", Dataset(id=dataset_id, name=dataset_id, created_at=NOW, metadata=notes))
    async with anyio.create_task_group() as together:
        for dataset_id in ids[40:70]:
            for number in range(files):
                together.start_soon(uploads.append, "received", upload(dataset_id, number, name))
    service = UploadService(uploads, paths, IdempotentCalls(), utc_now)
    book = DatasetService(
        journal=datasets,
        uploads=service,
        configs=TrainConfigs(configs, paths, RecipeBook(tmp_path), utc_now, 1000),
        unfinished=lambda: (),
        clock=utc_now,
    )
    found, cursor, pages = [], None, 0
    while cursor is not None or not pages:
        page = book.page(limit=1000, cursor=cursor)
        answer = [(one, service.of(one.id)) for one in page.datasets]
        assert len(msgspec.json.encode(answer)) <= PAGE_BYTES
        assert sum(len(of) for _, of in answer) <= 2000
        found += [one.id for one in page.datasets]
        cursor, pages = page.cursor, pages + 1
    assert found == ids[::-1]
    assert pages > 1
    for journal in (datasets, uploads, configs):
        await journal.close()
