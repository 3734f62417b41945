"""The recipe book: folders of ``recipe.yaml`` and ``run.sh``, checked, and resolved into the config of one run.

Starting anything is the runner's work; no HTTP in here.
"""

from tunesmith.recipes.book import RecipeBook
from tunesmith.recipes.config import ResolvedConfig, recipe_name_from, resolve, value_named
from tunesmith.recipes.folder import read_recipe
from tunesmith.recipes.options import Option
from tunesmith.recipes.origins import Origin, guessed_origins, leaves, merged_overrides, origins_of
from tunesmith.recipes.recipe import BrokenRecipe, Recipe, RecipeResources, start_command
from tunesmith.recipes.train_config import parse_train_config, read_train_config
from tunesmith.safe_yaml import dump as to_yaml

__all__ = [
    "BrokenRecipe",
    "Option",
    "Origin",
    "Recipe",
    "RecipeBook",
    "RecipeResources",
    "ResolvedConfig",
    "guessed_origins",
    "leaves",
    "merged_overrides",
    "origins_of",
    "parse_train_config",
    "read_recipe",
    "read_train_config",
    "recipe_name_from",
    "resolve",
    "start_command",
    "to_yaml",
    "value_named",
]
