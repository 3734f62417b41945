"""What a model reference stands for: every kind of it is told, an adapter with its base, and nothing leads outside."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.commands import Cli
from support.server import ServerProcess
from tunesmith.errors import Forbidden, MissingReference, TunesmithError
from tunesmith.journal import Journal
from tunesmith.paths import StatePaths
from tunesmith.records import Checkpoint, Deployment, EngineKind, Run, ServedAdapter, utc_now
from tunesmith.references import References, ResolvedModel, fine_tuned_name
from tunesmith.references.model_references import ModelReferences
from tunesmith.runs import RunBook, RunSummary

HOSTILE = [
    *("../../etc", "a/..", "models/../../outside", "a\0b", "--trust-remote-code", "org/na me", "org/name\n--port=1"),
    *(
        "{{7*7}}",
        "{{}}/{{}}",
        "$(reboot)",
        "x" * 5000,
        "org/" + "x/" * 3000,
        "modelscope:../x",
        "modelscope:",
        "\udcff",
    ),
    *("org/name;reboot", "-", "/", "..", "."),
]


def whole_model(folder: Path) -> Path:
    """What looks like a model to whoever only looks at names."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def adapter(folder: Path, base: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base, "r": 8}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def state(tmp_path: Path) -> StatePaths:
    paths = StatePaths(tmp_path / "state")
    paths.create()
    whole_model(paths.models / "Pulled")
    (paths.models / "Pulled/PULLED_FROM").write_text("org/Pulled\n")
    return paths


@pytest.fixture
def root(tmp_path: Path) -> Path:
    whole_model(tmp_path / "root/model")
    whole_model(tmp_path / "outside/model")
    return tmp_path / "root"


class Kept:
    """Checkpoints and deployments by name."""

    def __init__(self) -> None:
        self.checkpoints: dict[str, Checkpoint] = {}
        self.deployments: dict[str, Deployment] = {}


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def references(state: StatePaths, root: Path, kept: Kept) -> Iterator[ModelReferences]:
    """The roots do not hold the state folder: what lies there is named by other names than its path."""
    aliases = {"small": "Pulled", "far": str(root.parent / "outside/model"), "hub": "org/remote"}
    with contextlib.chdir(root):
        yield ModelReferences(
            roots=(root,),
            aliases=aliases,
            paths=state,
            book=RunBook(Journal.open(state.runs, Run, RunSummary)),
            checkpoint=kept.checkpoints.get,
            deployment=kept.deployments.get,
            has_modelscope=lambda: False,
        )


def test_a_whole_model_by_every_kind_of_name(references, root, state):
    """A path, a pulled model, the hub id it was pulled from, and an alias, which is told."""
    pulled = str(state.models / "Pulled")
    for name, kind, path in (
        (str(root / "model"), "path", str(root / "model")),
        ("./model", "path", str(root / "model")),
        ("Pulled", "pulled", pulled),
        ("org/Pulled", "pulled", pulled),
        ("org/remote", "hub", "org/remote"),
    ):
        found = references.resolve(name)
        assert (found.reference, found.kind, found.path, found.adapter, found.base) == (name, kind, path, False, None)
        assert (found.alias_of, references.model(name)) == (None, path)
        assert found.explanation.startswith("It is ")
    found = references.resolve("small")
    assert (found.kind, found.path, found.alias_of) == ("pulled", pulled, "Pulled")
    assert references.resolve("hub").alias_of == "org/remote"


def test_a_checkpoint_and_a_deployment(references, root, kept):
    """By its id, a mark or its name: what is served is what the name stands for."""
    trained = adapter(root / "trained", str(root / "model"))
    kept.checkpoints["orders-v1"] = Checkpoint(
        id="ckpt_1", run_id="run_1", step=20, path=str(trained), bytes=1, created_at=utc_now()
    )
    found = references.resolve("orders-v1")
    assert (found.kind, found.path, found.base) == ("checkpoint", str(trained), str(root / "model"))
    assert "ckpt_1" in found.explanation
    assert "run_1" in found.explanation
    kept.deployments["orders"] = Deployment(
        id="dep_1",
        model_path="orders-v1",
        created_at=utc_now(),
        path=str(root / "model"),
        served_name="ckpt_1",
        adapters=(ServedAdapter(name="ckpt_1", path=str(trained)),),
        engine=EngineKind.TRANSFORMERS,
        port=20001,
        command=("python",),
    )
    found = references.resolve("orders")
    assert (found.kind, found.path, found.base) == ("deployment", str(trained), str(root / "model"))
    assert references.model("orders") == str(trained)


def test_a_checkpoint_leads_nowhere_outside(references, root, kept):
    """What a run reported, or a link that it put in the place of its checkpoint, is input like any other."""
    outside = root.parent / "outside/model"
    (root / "link").symlink_to(outside)
    for path in (outside, root / "link"):
        kept.checkpoints["c"] = Checkpoint(id="c", run_id="r", step=1, path=str(path), bytes=1, created_at=utc_now())
        with pytest.raises(Forbidden):
            references.resolve("c")


def test_an_adapter_is_told_with_its_base(references, root, state):
    """However its config names the base: by path, by hub id, by the name of a pulled model."""
    pulled = str(state.models / "Pulled")
    for base, meant in (
        (str(root / "model"), str(root / "model")),
        (pulled, pulled),
        ("org/Pulled", pulled),
        ("Pulled", pulled),
        ("org/remote", "org/remote"),
    ):
        folder = adapter(root / "adapter", base)
        found = references.resolve(str(folder))
        assert (found.path, found.adapter, found.base) == (str(folder), True, meant)


def test_the_base_of_an_adapter_may_be_the_output_of_a_run(references, root, state):
    """It lies in the state folder, which no path in a request needs to name."""
    base = whole_model(state.run("run_1").output)
    assert references.resolve(str(adapter(root / "adapter", str(base)))).base == str(base)


def test_the_base_may_lie_where_the_operator_keeps_models(references, root, state):
    """A link below state/models is the operator's word for it."""
    kept = whole_model(root.parent / "outside/kept")
    with pytest.raises(Forbidden):
        references.resolve(str(adapter(root / "adapter", str(kept))))
    (state.models / "kept").symlink_to(kept)
    assert references.resolve(str(adapter(root / "adapter", str(kept)))).base == str(kept)
    assert references.resolve("kept").path == str(kept)


@pytest.mark.parametrize("base", ["/etc", "../outside/model", "small/../../outside/model", "~root", "//etc"])
def test_an_adapter_leads_nowhere_outside(references, root, base):
    """What it names as its base is input like any other."""
    folder = adapter(root / "adapter", base)
    with pytest.raises(Forbidden):
        references.resolve(str(folder))


def test_an_adapter_does_not_lead_to_what_the_server_keeps(references, root, state):
    """Nor does a link to there or to outside, as a file of the model or as the folder of its base."""
    for place in (state.deployments_folder, state.root / "policies"):
        whole_model(place)
        with pytest.raises(Forbidden, match="kept by the server"):
            references.resolve(str(adapter(root / "adapter", str(place))))
    (root / "linked").symlink_to(root.parent / "outside/model")
    with pytest.raises(Forbidden):
        references.resolve(str(adapter(root / "adapter", str(root / "linked"))))
    model = whole_model(root / "with-a-link")
    (model / "tokenizer.json").symlink_to(state.root / "keys.jsonl")
    with pytest.raises(Forbidden, match="kept by the server"):
        references.resolve(str(model))


@pytest.mark.parametrize("base", ["", None, 7, "nothing-here", "./gone", "a\0b", "x" * 5000, "modelscope:org/name"])
def test_an_adapter_without_its_base(references, root, base):
    """Missing, of a wrong type, or not installable: said, with how to fix it."""
    with pytest.raises(MissingReference) as missing:
        references.resolve(str(adapter(root / "adapter", base)))
    assert missing.value.mend


def test_an_adapter_of_an_adapter(references, root):
    """An engine loads a base and adapters for it, nothing deeper."""
    inner = adapter(root / "inner", str(root / "model"))
    with pytest.raises(MissingReference, match="is an adapter itself"):
        references.resolve(str(adapter(root / "outer", str(inner))))


def test_an_adapter_config_is_read_with_care(references, root):
    """Too long, no JSON, a folder in its place: refused, never a traceback."""
    folder = adapter(root / "adapter", "org/remote")
    config = folder / "adapter_config.json"
    for content in (b" " * (2 << 20), b"{", b"[]", b'{"base_model_name_or_path": "\xff"}', b"[" * 100_000):
        config.write_bytes(content)
        with pytest.raises(MissingReference):
            references.resolve(str(folder))


def test_a_folder_that_holds_no_model(references, root, state):
    """Empty, without weights, without a config, or a file: what is missing is named."""
    (root / "empty").mkdir()
    (root / "no-weights").mkdir()
    (root / "no-weights/config.json").write_text("{}")
    (root / "half").mkdir()
    (root / "half/adapter_config.json").write_text('{"base_model_name_or_path": "org/remote"}')
    (state.models / "empty").mkdir()
    for name, message in (
        ("./empty", "config.json is missing"),
        ("empty", "config.json is missing"),
        ("./no-weights", "without weights"),
        ("./half", "adapter without weights"),
        ("./model/config.json", "cannot be read"),
        ("./gone", "does not exist"),
        ("gone", "there is no model"),
    ):
        with pytest.raises(MissingReference, match=message) as missing:
            references.resolve(name, "model_path")
        assert missing.value.where == "model_path"


def test_a_model_of_modelscope_needs_its_package(references, root, state):
    """Without it, the message says what to install; with it, it is a hub id."""
    with pytest.raises(MissingReference, match="needs the package modelscope") as missing:
        references.resolve("modelscope:org/name")
    assert "tunesmith[modelscope]" in missing.value.mend
    able = ModelReferences(
        roots=(root,),
        aliases={},
        paths=state,
        book=references._book,
        checkpoint=lambda _: None,
        has_modelscope=lambda: True,
    )
    found = able.resolve("modelscope:org/name")
    assert (found.kind, found.path) == ("hub", "modelscope:org/name")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(references, name):
    """Nothing outside, nothing that a program would take for an option, no traceback."""
    with pytest.raises((MissingReference, Forbidden)) as refused:
        references.resolve(name)
    str(refused.value).encode()


@given(st.text(max_size=40) | st.text(st.sampled_from("./~ax\0-:{}"), max_size=12))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_name_is_a_model_inside_or_refused(references, root, state, name):
    """And so is any name of a base in an adapter."""
    folder = adapter(root / "adapter", name.replace("\ud800", ""))
    for reference in (name, str(folder)):
        try:
            found = references.resolve(reference)
        except TunesmithError as error:
            str(error).encode()
        else:
            assert_inside(found, root, state)


def assert_inside(found: ResolvedModel, root: Path, state: StatePaths) -> None:
    for place in (found.path, found.base):
        if place is not None and place.startswith("/"):
            assert Path(place).is_relative_to(root) or Path(place).is_relative_to(state.models)
        elif place is not None:
            assert place[0].isalnum()


def test_every_door_has_the_same_resolver():
    """Datasets are resolved by the same object."""
    assert issubclass(References, ModelReferences)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    place = tmp_path_factory.mktemp("models")
    (place / "recipes").mkdir()
    whole_model(place / "state/models/Pulled")
    adapter(place / "adapter", "Pulled")
    with ServerProcess.start(place / "state", place / "recipes", {"TUNESMITH_ALIASES": "small=Pulled"}) as server:
        yield server


def test_the_door(server):
    """What it stands for, over HTTP; what means nothing is refused with what there is."""
    with server.client() as client:
        found = client.get("/v1/models/resolve", params={"ref": "./adapter"}).raise_for_status().json()
        assert (found["kind"], found["adapter"]) == ("path", True)
        assert found["base"].endswith("/state/models/Pulled")
        answer = client.get("/v1/models/resolve", params={"ref": "Puled"})
        assert (answer.status_code, answer.json()["where"]) == (400, "ref")
        assert "did you mean Pulled?" in answer.json()["mend"]
        assert client.get("/v1/models/resolve", params={"ref": "/etc"}).status_code == 403
        assert client.get("/v1/models/resolve").status_code == 422
        for name in HOSTILE:
            with contextlib.suppress(UnicodeEncodeError):
                answer = client.get("/v1/models/resolve", params={"ref": name})
                assert answer.status_code in (400, 403, 414, 422), name
                assert answer.json()["detail"]


def test_the_command(server, tmp_path):
    """The same from a terminal."""
    cli = Cli(tmp_path, {"TUNESMITH_URL": server.url})
    assert json.loads(cli("models", "resolve", "small", "--json").stdout)["alias_of"] == "Pulled"
    told = cli("models", "resolve", "small").stdout
    assert "pulled" in told
    assert "state/models/Pulled" in told
    refused = cli("models", "resolve", "gone")
    assert refused.returncode == 1
    assert "there is no model" in refused.stderr


def test_a_model_that_is_tuned_once_more_keeps_the_name_of_its_base():
    """Whether what it goes on from is the end of a run or a checkpoint, and whatever the base is called."""
    run_id = "run_" + "0" * 26
    for base, shown_as in (("gpt-4o-mini", "gpt-4o-mini"), ("org/model", "org/model"), ("/models/mine", "mine")):
        first = fine_tuned_name(base, "First", run_id)
        for name in (first, fine_tuned_name(base, "", run_id, step=7)):
            assert fine_tuned_name(name, "next", run_id) == f"ft:{shown_as}:tunesmith:next:{'0' * 26}"
    assert fine_tuned_name("ft:not:one:of:ours", "", run_id) == f"ft:not-one-of-ours:tunesmith::{'0' * 26}"


def test_an_adapter_is_found_with_its_base_and_shape(references, root):
    """Of everything else only that it is none; what an adapter does not say of itself is null."""
    found = references.adapter(str(adapter(root / "tuned", str(root / "model"))))
    assert found is not None
    assert (found.path, found.base) == (str(root / "tuned"), str(root / "model"))
    assert found.shape == {"r": 8, "lora_alpha": None, "lora_dropout": None, "target_modules": None}
    (root / "empty").mkdir()
    for other in ("./model", "./empty", "org/remote"):
        assert references.adapter(other) is None
