"""docs/evaluation.md says what the recipe does: every option, every metric, and the very words that a judge is asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_parts import RECIPES

from tunesmith.recipes import read_recipe
from tunesmith_workers.evaluation.comparison import RESAMPLES
from tunesmith_workers.evaluation.judge_words import PROMPT
from tunesmith_workers.evaluation.metrics import BESIDE, KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


@pytest.mark.parametrize("name", [*KINDS, *BESIDE])
def test_every_metric_is_explained(name):
    """By its name."""
    assert f"`{name}`" in PAGE


def test_every_option_is_in_the_table():
    """Those that every recipe has, and what is filled in, aside."""
    options = read_recipe(RECIPES / "evaluate").schema
    known = {path for path in options if not path.startswith("job.")} - {"model.base", "data.train_file"}
    assert [path for path in known if f"`{path}`" not in PAGE] == []


def test_the_prompt_of_judges_is_quoted():
    """Word for word."""
    assert f"```\n{PROMPT}\n```" in PAGE
    assert f"{RESAMPLES:,} times" in PAGE
