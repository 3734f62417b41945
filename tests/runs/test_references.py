"""What names in a request stand for: only what exists, only below the allowed roots, and never a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.app import new_run, reached
from tunesmith.errors import Forbidden, MissingReference, TunesmithError
from tunesmith.journal import Journal
from tunesmith.paths import StatePaths
from tunesmith.records import DatasetReference, Run
from tunesmith.references import References
from tunesmith.runs import RunBook, RunSummary


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("root/data", "root/model", "outside/model", "state/models/Pulled", "state/models/other"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("root/data/train.jsonl", "root/one.jsonl", "outside/secret.jsonl", "outside/train.jsonl"):
        (tmp_path / file).write_text("{}\n")
    for model in ("Pulled", "other"):
        (tmp_path / "state/models" / model / "config.json").write_text("{}")
    (tmp_path / "state/models/Pulled/PULLED_FROM").write_text("org/Pulled\n")
    return tmp_path / "root"


@pytest.fixture
def references(root: Path) -> Iterator[References]:
    paths = StatePaths(root.parent / "state")
    paths.create()
    book = RunBook(Journal.open(paths.runs, Run, RunSummary))
    aliases = {"small": "Pulled", "mine": str(root / "model"), "hub": "org/remote", "far": str(root.parent / "outside")}
    with contextlib.chdir(root):
        yield References(roots=(root,), aliases=aliases, paths=paths, book=book, checkpoint=lambda _: None)


def test_models_by_every_kind_of_name(references, root):
    """A path, a pulled model, the hub id it was pulled from, an alias, a hub id to be fetched."""
    pulled = str(root.parent / "state/models/Pulled")
    assert references.model(str(root / "model")) == str(root / "model")
    assert references.model("./model") == str(root / "model")
    assert references.model("Pulled") == references.model("org/Pulled") == references.model("small") == pulled
    assert references.model("mine") == str(root / "model")
    assert references.model("another/Pulled") == "another/Pulled"
    assert references.model("hub") == "org/remote"


def test_an_unknown_model_is_answered_with_the_nearest(references):
    """What there is, and what was probably meant."""
    with pytest.raises(MissingReference) as missing:
        references.model("Puled")
    assert "did you mean Pulled?" in missing.value.mend
    assert "models pull" in missing.value.mend


@pytest.mark.parametrize(
    "name", ["/etc", "../outside/model", "model/../../outside/model", "~root", "..", "far", "/", "//etc/passwd"]
)
def test_no_model_outside_the_roots(references, name):
    """However the way out is written."""
    with pytest.raises(Forbidden, match="outside the allowed roots"):
        references.model(name)


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside/secret.jsonl", "data/../../outside", "~root/x"])
def test_no_dataset_outside_the_roots(references, name):
    """However the way out is written."""
    with pytest.raises(Forbidden, match="outside the allowed roots"):
        references.dataset(DatasetReference(name=name))
    with pytest.raises(Forbidden, match="outside the allowed roots"):
        references.file(name, "train_config")


def test_links_out_of_the_roots_are_followed_and_refused(references, root):
    """A link to a file, to a folder, and one file of a folder: where it leads is what counts."""
    (root / "link.jsonl").symlink_to(root.parent / "outside/secret.jsonl")
    (root / "linked").symlink_to(root.parent / "outside")
    (root / "mixed").mkdir()
    (root / "mixed/train.jsonl").symlink_to(root.parent / "outside/train.jsonl")
    for name in ("link.jsonl", "linked", "linked/train.jsonl", "mixed"):
        with pytest.raises(Forbidden):
            references.dataset(DatasetReference(name=name))


def test_a_linked_validation_file_outside_the_roots_is_refused(references, root):
    """The file that is taken along without being named obeys the same rule."""
    (root / "data/validation.jsonl").symlink_to(root.parent / "outside/secret.jsonl")
    dataset = references.dataset(DatasetReference(name=str(root / "data")))
    with pytest.raises(Forbidden):
        references.validation_beside(dataset)


def test_a_link_that_stays_inside_is_fine(references, root):
    """Links within the roots work."""
    (root / "alias.jsonl").symlink_to(root / "one.jsonl")
    assert references.dataset(DatasetReference(name="alias.jsonl")).path == str(root / "one.jsonl")


def test_a_folder_stands_for_its_splits(references, root):
    """train.jsonl by default, another split by name, the validation file beside it."""
    (root / "data/validation.json").write_text("[]")
    dataset = references.dataset(DatasetReference(name="data"))
    assert dataset.path == str(root / "data/train.jsonl")
    assert references.validation_beside(dataset) == str(root / "data/validation.json")
    assert references.dataset(DatasetReference(name="data", split="validation")).path == str(
        root / "data/validation.json"
    )
    assert references.validation_beside(references.dataset(DatasetReference(name="one.jsonl"))) is None


def test_an_empty_split_stands_for_the_whole_folder(references, root):
    """All data files of a folder, not one split of it; then nothing in it is left for validation."""
    (root / "data/more.jsonl").write_text('{"prompt": "1", "completion": "2"}\n')
    dataset = references.dataset(DatasetReference(name="data", split=""))
    assert dataset.path == str(root / "data")
    assert references.validation_beside(dataset) is None


@pytest.mark.parametrize(
    "split", ["test", ".", "..", "../one", "/etc/passwd", "a\0b", "x" * 5000, "../../outside/secret"]
)
def test_a_split_that_is_not_there_is_missing(references, split):
    """A split is a plain name: it cannot lead anywhere else, nor tell what exists elsewhere."""
    with pytest.raises(MissingReference) as missing:
        references.dataset(DatasetReference(name="data", split=split))
    assert missing.value.where in ("dataset.split", "dataset.name")


@pytest.mark.parametrize(
    "name", ["a\0b", "x" * 5000, "x/" * 3000, "~nobody-of-that-name/x", "\udcff", "loop", "./loop/x"]
)
def test_unusable_names_are_missing_not_errors_of_ours(references, root, name):
    """NUL, too long, an unknown user, no Unicode, links in a circle: each is said, none is a traceback."""
    (root / "loop").symlink_to(root / "loop")
    for resolve in (
        references.model,
        lambda it: references.dataset(DatasetReference(name=it)),
        lambda it: references.file(it, "f"),
    ):
        with pytest.raises((MissingReference, Forbidden)) as refused:
            resolve(name)
        str(refused.value).encode()


@given(st.text(max_size=30) | st.text(st.sampled_from("./~ax\0"), max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_is_resolved_inside_or_refused(references, root, name):
    """No text leads outside, and none raises anything but our own errors."""
    for resolve in (
        lambda it: references.dataset(DatasetReference(name=it, split=it)).path,
        lambda it: references.file(it, "f"),
    ):
        try:
            path = resolve(name)
        except TunesmithError as error:
            str(error).encode()
        else:
            assert Path(path).is_relative_to(root)


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_only_regular_files_are_data(references, root, kind):
    """A pipe would wait for ever for a writer; an empty folder holds no split."""
    path = root / "special"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()
    with pytest.raises(MissingReference):
        references.dataset(DatasetReference(name="special"))
    with pytest.raises(MissingReference):
        references.file("special", "train_config")


def test_a_missing_file_is_answered_with_the_nearest(references):
    """A typing error is told from a missing folder."""
    with pytest.raises(MissingReference) as missing:
        references.dataset(DatasetReference(name="ome.jsonl"))
    assert missing.value.mend == "did you mean one.jsonl?"
    with pytest.raises(MissingReference) as missing:
        references.dataset(DatasetReference(name="nowhere/one.jsonl"))
    assert "nowhere" in missing.value.mend


@pytest.mark.anyio
async def test_a_run_is_a_model_once_it_has_made_one(open_app, executor, tmp_path):
    """A run id stands for the model of a run that succeeded; before, or when the model is gone, that is said."""
    async with open_app() as app:
        run_id = await new_run(app)
        await reached(app, run_id, "running")
        with pytest.raises(MissingReference, match="is running and has no model"):
            app.services.references.model(run_id)
        output = app.services.paths.run(run_id).folder / "output"
        (app.services.paths.run(run_id).folder / "run.log").write_text(
            json.dumps({"tunesmith": "result", "model": str(output)}) + "\n"
        )
        executor.end(run_id)
        await reached(app, run_id, "succeeded")
        assert app.services.references.model(run_id) == str(output)
        with pytest.raises(MissingReference, match=r"config\.json is missing"):
            app.services.references.resolve(run_id)
        for name in ("config.json", "model.safetensors"):
            (output / name).write_text("{}")
        found = app.services.references.resolve(run_id)
        assert (found.kind, found.path, found.adapter) == ("run", str(output), False)
        shutil.rmtree(output)
        with pytest.raises(MissingReference, match="any more"):
            app.services.references.model(run_id)


KEPT_BY_THE_SERVER = [
    *(
        "keys.jsonl",
        "runs.jsonl",
        "webhook_secret",
        "lock",
        "journals.json",
        "runs.jsonl.torn-1",
        "set-aside/uploads/x",
    ),
    *(
        "policies/mine.yaml",
        "previews/a.json",
        ".",
        "runs",
        "runs/run_x",
        "runs/run_x/config.yaml",
        "runs/run_x/run.log",
    ),
    *("runs/run_x/attempts/1/command.json", "somebody/elses.jsonl"),
]
REACHABLE = [
    *("uploads/upl_x/data.jsonl", "downloads/dl_x/train.jsonl", "models/other", "finetuned/m/t/model_files"),
    *(
        "demo/train.jsonl",
        "runs/run_x/output/report.jsonl",
        "runs/run_x/checkpoints/checkpoint-1",
        "train_configs/tc_x.yaml",
    ),
    *("runs/run_x/results/a.json",),
]


@pytest.fixture
def state(root: Path) -> Path:
    """A state folder with all of it, which is an allowed root itself, as is the folder around it."""
    state = root.parent / "state"
    for name in [*KEPT_BY_THE_SERVER, *REACHABLE]:
        place = state / name
        if place.suffix and not place.name.startswith("run"):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text("{}\n")
    (state / "runs/run_x/run.log").write_text("")
    return state


@pytest.fixture
def within(state: Path, references) -> References:
    """References whose roots hold the state folder."""
    return References(
        roots=(state.parent, state),
        aliases={},
        paths=StatePaths(state),
        book=references._book,
        checkpoint=lambda _: None,
    )


@pytest.mark.parametrize("name", KEPT_BY_THE_SERVER)
def test_what_the_server_keeps_for_itself_is_never_reached(within, state, root, name):
    """Not by its path, not by `..`, not by a link, not as a model, a dataset, a file or a place to write to."""
    link = root / "link"
    link.symlink_to(state / name)
    ways = [str(state / name), f"{state}/uploads/../{name}", str(link), os.path.relpath(state / name)]
    for way in ways:
        for resolve in (
            lambda given: within.file(given, "here"),
            lambda given: within.dataset(DatasetReference(name=given)),
            lambda given: within.model(str(Path.cwd() / given)),
            lambda given: within.output_folder(given, "here"),
        ):
            with pytest.raises(Forbidden, match="kept by the server"):
                resolve(way)


def test_what_users_brought_and_runs_made_stays_reachable(within, state):
    """Uploads, downloads, models, output, checkpoints and the demo's data."""
    for name in REACHABLE:
        if not (state / name).exists():
            (state / name).mkdir(parents=True)
        with contextlib.suppress(MissingReference):  # a folder is no file
            assert within.file(str(state / name), "here") == state / name
    assert within.dataset(DatasetReference(name=str(state / "demo"))).path == str(state / "demo/train.jsonl")
    assert within.output_folder(str(state / "demo/split"), "here") == state / "demo/split"


def test_nothing_is_written_among_what_the_server_keeps(within, state):
    """Though it may be read: an upload or a checkpoint is what it was when it was put on record."""
    for name in ("uploads/upl_x", "models/other", "runs/run_x/output", "finetuned/m"):
        with pytest.raises(Forbidden, match="the server's to write to"):
            within.output_folder(str(state / name), "here")


def test_a_folder_of_the_state_folder_that_the_operator_allows(state, references):
    """By itself, it is reachable; what lies beside it is not."""
    chosen = References(
        roots=(state / "somebody",),
        aliases={},
        paths=StatePaths(state),
        book=references._book,
        checkpoint=lambda _: None,
    )
    assert chosen.file(str(state / "somebody/elses.jsonl"), "here") == state / "somebody/elses.jsonl"
    with pytest.raises(Forbidden):
        chosen.file(str(state / "keys.jsonl"), "here")
