"""Options that are references: any recipe may name further models and addresses, and they are resolved as `model` is."""

from __future__ import annotations

import pytest
import yaml
from test_checkpoints_in_use import failed_with_checkpoints

from support.app import new_run
from support.server import write_recipe
from tunesmith.errors import Forbidden, InvalidInput, MissingReference
from tunesmith.recipes import BrokenRecipe, read_recipe

pytestmark = pytest.mark.anyio
CONFIG = {"model": {"reward": None, "others": []}, "evaluation": {"judge": {"url": None}}}
SCHEMA = {
    "model.reward": {"type": "str", "optional": True, "reference": "model"},
    "model.others": {"items": "str", "reference": "model"},
    "evaluation.judge.url": {"type": "str", "optional": True, "reference": "url"},
}


@pytest.fixture
def named(open_app, recipes, tmp_path):
    write_recipe(recipes, "names", "true", CONFIG, schema=SCHEMA)
    for model in ("here", "there"):
        (tmp_path / "models" / model).mkdir(parents=True)
    return open_app(aliases={"small": str(tmp_path / "models" / "here")}, max_cpu_runs=4)


async def config_of(app, run_id):
    return yaml.safe_load(app.services.paths.run(run_id).config.read_text())


async def test_models_become_what_they_stand_for(named, tmp_path):
    """An alias, a path, a hub id: in a single option and in a list, whichever way the request writes it."""
    folder = tmp_path / "models"
    async with named as app:
        wishes = {"model.reward": "small", "others": [str(folder / "there"), "org/remote", "small"]}
        config = await config_of(app, await new_run(app, "names", hyperparams=wishes))
    assert config["model"]["reward"] == str(folder / "here")
    assert config["model"]["others"] == [str(folder / "there"), "org/remote", str(folder / "here")]


async def test_nothing_named_is_nothing_resolved(named):
    """Null stays null, and an empty list empty."""
    async with named as app:
        config = await config_of(app, await new_run(app, "names"))
    assert config["model"] == {"reward": None, "others": []}


async def test_all_that_is_missing_is_named_by_its_place(named):
    """At once."""
    async with named as app:
        with pytest.raises(MissingReference) as missing:
            await new_run(app, "names", hyperparams={"reward": "gone", "others": ["small", "gone too"]})
    assert [fault.where for fault in missing.value.faults] == ["model.reward", "model.others[1]"]


async def test_no_model_outside_the_allowed_roots(named):
    """A train config may not name one, either."""
    async with named as app:
        for request in ({"hyperparams": {"others": ["/etc"]}}, {"train_config": {"model": {"others": ["/etc"]}}}):
            with pytest.raises(Forbidden) as refused:
                await new_run(app, "names", **request)
            assert refused.value.where == "model.others[0]"


async def test_an_address_that_must_not_be_reached_is_refused(named):
    """As those of callbacks are; nothing is created."""
    async with named as app:
        for url in ("http://169.254.169.254/v1", "http://127.0.0.1:1/v1", "file:///etc/passwd", "nonsense"):
            with pytest.raises(InvalidInput) as refused:
                await new_run(app, "names", hyperparams={"judge": {"url": url}})
            assert [fault.where for fault in refused.value.faults] == ["evaluation.judge.url"]


async def test_a_private_address_where_the_operator_allows_them(named, open_app):
    """A judge on the same machine is an ordinary thing to have."""
    async with open_app(allow_private_urls=True) as app:
        await new_run(app, "names", hyperparams={"judge": {"url": "http://127.0.0.1:1/v1"}})


async def test_a_checkpoint_in_a_list_is_in_use(named, executor):
    """So it is not removed to make room."""
    async with named as app:
        first, second = await failed_with_checkpoints(app, executor)
        run_id = await new_run(app, "names", hyperparams={"others": [second.id], "reward": first.id})
        assert set(app.services.runs.book.get(run_id).checkpoints_used) == {first.path, second.path}


@pytest.mark.parametrize(
    ("path", "option"),
    [
        ("model.reward", {"type": "str", "reference": "planet"}),
        ("model.others", {"items": "int", "reference": "model"}),
    ],
)
def test_what_can_be_no_reference_breaks_the_recipe(recipes, path, option):
    """And that is said in its place."""
    folder = write_recipe(recipes, "broken", "true", CONFIG, schema={**SCHEMA, path: option})
    broken = read_recipe(folder)
    assert isinstance(broken, BrokenRecipe)
    assert broken.faults[0].where == f"recipe.yaml: schema.{path}.reference"
