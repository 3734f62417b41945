"""A run that goes on from an adapter: its base and its shape are in the config, and what does not go together is refused."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import yaml

from support.app import new_run, reached
from support.server import write_recipe
from tunesmith.contract.manifest import Manifest, Origin
from tunesmith.errors import Forbidden, InvalidInput, MissingReference
from tunesmith.records import Exit
from tunesmith.runs import ResumeRequest

pytestmark = pytest.mark.anyio
LORA = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": ["all-linear"]}
CONFIG = {"model": {"base": None, "adapter_base": None}, "lora": LORA}
NEEDED = {"model.base": {"optional": False}}
SCHEMA = {**NEEDED, "model.adapter_base": {"type": "str", "optional": True}, "lora.r": {"min": 1}}
SHAPE = {"r": 4, "lora_alpha": 8.0, "lora_dropout": 0.1, "target_modules": ["v_proj", "q_proj"]}


def whole_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def adapter_of(base: str | Path, folder: Path, **content: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base), **SHAPE, **content}))
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def base(tmp_path):
    return whole_model(tmp_path / "models" / "base")


@pytest.fixture
def adapter(base, tmp_path):
    return adapter_of(base, tmp_path / "models" / "adapter")


@pytest.fixture
def trains(open_app, recipes):
    """An application with a recipe that goes on from adapters, and one that does not know of them."""
    write_recipe(recipes, "trains", "true", CONFIG, schema=SCHEMA)
    write_recipe(recipes, "loads", "true", {"model": {"base": None}}, schema=NEEDED)
    return open_app(max_cpu_runs=4)


async def started(app, **request):
    """The config of a new run, and where its values come from."""
    run_id = await new_run(app, request.pop("recipe", "trains"), **request)
    paths = app.services.paths.run(run_id)
    return yaml.safe_load(paths.config.read_text()), json.loads(paths.origins.read_text())


async def test_base_and_shape_are_those_of_the_adapter(trains, adapter, base):
    """In the config that the run starts with, where whoever deletes models looks for them."""
    async with trains as app:
        config, origins = await started(app, model=str(adapter))
    assert config["model"] == {"base": str(adapter), "adapter_base": str(base)}
    assert config["lora"] == {"r": 4, "lora_alpha": 8, "lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"]}
    assert origins["model.adapter_base"] == origins["lora.r"] == "request"


async def test_a_whole_model_changes_nothing(trains, base):
    """The recipe's own shape, and no other base."""
    async with trains as app:
        config, _ = await started(app, model=str(base))
    assert config == {"job": config["job"], "model": {"base": str(base), "adapter_base": None}, "lora": LORA}


async def test_another_shape_is_refused_with_both_values(trains, adapter):
    """Whoever asks for it, in the request or in a train config; all at once."""
    async with trains as app:
        for request in (
            {"hyperparams": {"lora": {"r": 8, "target_modules": ["q_proj"]}}},
            {"train_config": {"lora": {"r": 8, "target_modules": ["q_proj"]}}},
        ):
            with pytest.raises(InvalidInput) as refused:
                await new_run(app, "trains", model=str(adapter), **request)
            assert [(fault.where, fault.message) for fault in refused.value.faults] == [
                ("lora.r", "asks for 8, and the adapter has 4"),
                ("lora.target_modules", "asks for [q_proj], and the adapter has [q_proj, v_proj]"),
            ]


async def test_asking_for_what_it_is_anyway_is_no_fault(trains, adapter):
    """In any order; a config that is used for both trainings may say it."""
    asked = {"r": 4, "lora_alpha": 8, "target_modules": ["v_proj", "q_proj"]}
    async with trains as app:
        config, origins = await started(app, model=str(adapter), hyperparams={"lora": asked})
    assert config["lora"]["r"] == 4
    assert origins["lora.r"] == "hyperparams"


async def test_all_linear_stays_all_linear(trains, base, tmp_path):
    """An adapter names the modules that it came to; the manifest of its training says what was asked for."""
    adapter = adapter_of(base, tmp_path / "models" / "linear", target_modules=[f"layers.{n}" for n in range(40)])
    manifest = Manifest(step=1, created_at=datetime.now(UTC), origin=Origin(config={"lora": LORA}))
    (adapter / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    async with trains as app:
        for hyperparams in ({}, {"lora": {"target_modules": ["all-linear"]}}):
            config, _ = await started(app, model=str(adapter), hyperparams=hyperparams)
            assert config["lora"]["target_modules"] == ["all-linear"]


async def test_what_no_option_can_hold_is_left_to_the_training(trains, base, tmp_path):
    """Expressions for modules, strengths with decimals: the recipe's own stays, and the adapter's is used."""
    odd = {"lora_alpha": 0.5, "target_modules": ".*_proj", "lora_dropout": None}
    adapter = adapter_of(base, tmp_path / "models" / "odd", **odd)
    async with trains as app:
        config, _ = await started(app, model=str(adapter))
    assert config["lora"] == {**LORA, "r": 4}


async def test_nobody_else_names_the_base(trains, adapter, base):
    """What a caller wrote there was never vetted."""
    async with trains as app:
        for model, asked in ((adapter, "/etc"), (base, "/etc"), (base, str(base))):
            with pytest.raises(InvalidInput) as refused:
                await new_run(app, "trains", model=str(model), hyperparams={"model.adapter_base": asked})
            assert refused.value.where == "model.adapter_base"


@pytest.mark.parametrize("recipe", ["trains", "loads"])
async def test_a_base_that_is_not_there_or_lies_outside_is_refused(trains, tmp_path, tmp_path_factory, recipe):
    """When the run is asked for, whatever it does with the adapter: an adapter_config.json is a file like any other."""
    outside = whole_model(tmp_path_factory.mktemp("outside") / "model")
    models = tmp_path / "models"
    lower = adapter_of(whole_model(models / "base"), models / "lower")
    async with trains as app:
        for number, (named, kind) in enumerate(
            ((outside, Forbidden), (models / "gone", MissingReference), (lower, MissingReference))
        ):
            adapter = adapter_of(named, models / f"adapter-{number}")
            with pytest.raises(kind) as refused:
                await new_run(app, recipe, model=str(adapter))
            assert refused.value.where == "model"


async def test_a_run_that_went_on_from_an_adapter_is_resumed(trains, executor, adapter):
    """Its config is taken over: nobody has asked for another shape by that."""
    async with trains as app:
        run_id = await new_run(app, "trains", model=str(adapter))
        await reached(app, run_id, "running")
        executor.end(run_id, Exit(code=1))
        await reached(app, run_id)
        paths = app.services.paths.run(run_id)
        checkpoint = paths.checkpoints / "checkpoint-3"
        checkpoint.mkdir()
        config = yaml.safe_load(paths.config.read_text())
        origin = Origin(base_model=str(adapter), adapter_sha256="0" * 64, config=config)
        manifest = Manifest(step=3, created_at=datetime.now(UTC), origin=origin)
        (checkpoint / "manifest.json").write_bytes(msgspec.json.encode(manifest))
        await app.services.checkpoints.reconcile(run_id, None)
        resumed = await app.services.runs.resumer.resume(run_id, ResumeRequest())
        again = yaml.safe_load(app.services.paths.run(resumed.id).config.read_text())
    assert again == config
