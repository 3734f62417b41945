"""A list whose items are limited to choices: every wrong item is refused at once, with the nearest right one."""

from __future__ import annotations

import pytest

from tunesmith.errors import InvalidInput
from tunesmith.recipes import BrokenRecipe, read_recipe, resolve

SCHEMA = "schema:\n  evaluation.metrics: {items: str, choices: [loss, rouge1, exact_match]}\n"


@pytest.fixture
def recipe(tmp_path):
    def recipe(schema=SCHEMA, default="[loss]"):
        folder = tmp_path / "score"
        folder.mkdir(exist_ok=True)
        (folder / "recipe.yaml").write_text(
            "# By hand: bash run.sh\nname: score\nkind: evaluate\nsummary: for the tests\ndata: []\n"
            f"resources: {{gpus: 0, cpu: true}}\nconfig:\n  evaluation:\n    metrics: {default}\n{schema}"
        )
        (folder / "run.sh").write_text("#!/usr/bin/env bash\n# For the tests.\nset -euo pipefail\n")
        return read_recipe(folder)

    return recipe


def test_every_wrong_item_is_named_with_its_place(recipe):
    """Not only the first one."""
    with pytest.raises(InvalidInput) as refused:
        resolve(recipe(), request={"metrics": ["rogue1", "loss", "exact"]}, filled={})
    faults = refused.value.faults
    assert [fault.where for fault in faults] == ["hyperparams.metrics[0]", "hyperparams.metrics[2]"]
    assert [fault.mend for fault in faults] == ["did you mean rouge1?", "did you mean exact_match?"]
    assert "must be one of loss, rouge1, exact_match" in faults[1].message


def test_right_items_are_taken_in_their_order(recipe):
    """Any number of them."""
    config = resolve(recipe(), request={"metrics": ["exact_match", "loss"]}, filled={})
    assert config["evaluation"]["metrics"] == ["exact_match", "loss"]
    assert resolve(recipe(), request={"metrics": []}, filled={})["evaluation"]["metrics"] == []


def test_a_recipe_whose_default_is_no_choice_is_broken(recipe):
    """So is one whose choices are not of the items' type."""
    assert isinstance(recipe(default="[blue]"), BrokenRecipe)
    assert isinstance(recipe(schema=SCHEMA.replace("[loss, rouge1, exact_match]", "[loss, 1]")), BrokenRecipe)
