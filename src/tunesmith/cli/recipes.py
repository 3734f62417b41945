"""``tunesmith recipes``: what the service can run, and checking recipe folders without a service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import fault_text, print_facts, print_json, print_table

if TYPE_CHECKING:
    from tunesmith.cli.client import Service
    from tunesmith.recipes import BrokenRecipe, Recipe


@click.group()
def recipes() -> None:
    """List, show and check recipes."""


@recipes.command("list")
@json_option
@asks_service
def list_recipes(*, service: Service, as_json: bool) -> None:
    """List the recipes of the service, broken ones too."""
    found = service.get("/v1/recipes")["recipes"]
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no recipes; see the setting recipes_dir", err=True)
    else:
        print_table(("recipe", "state", "kind", "summary"), map(_row, found))


def _row(recipe: dict[str, Any]) -> tuple[str, ...]:
    if not recipe["ok"]:
        return recipe["name"], "broken", "", fault_text(recipe["faults"][0])
    return recipe["name"], "ok", recipe["kind"], recipe["summary"]


@recipes.command()
@click.argument("name")
@json_option
@asks_service
def show(*, service: Service, name: str, as_json: bool) -> None:
    """Show one recipe with its options and their defaults."""
    from urllib.parse import quote

    from tunesmith.safe_yaml import dump

    recipe = service.get(f"/v1/recipes/{quote(name, safe='')}")
    if as_json:
        print_json(recipe)
        return
    print_facts(
        {
            "recipe": recipe["name"],
            "state": "ok" if recipe["ok"] else "broken",
            "kind": recipe["kind"],
            "summary": recipe["summary"],
            "faults": [fault_text(fault) for fault in recipe["faults"]],
            "warnings": [fault_text(fault) for fault in recipe.get("warnings", ())],
            "data": ", ".join(recipe["data"]) or ("none needed" if recipe["ok"] else ""),
            "resources": ", ".join(f"{name}: {str(value).lower()}" for name, value in recipe["resources"].items()),
            "aliases": [f"{short} = {path}" for short, path in recipe["aliases"].items()],
            "folder": recipe["folder"],
            "about": recipe["about"],
            "config": dump(recipe["config"]).decode().rstrip() if recipe["config"] else "",
        }
    )


@recipes.command()
@click.argument("folder", required=False)
@json_option
def check(*, folder: str | None, as_json: bool) -> None:
    """Check a folder of recipes, or one recipe by its folder or name. Needs no service; exits with 1 on any fault."""
    found = _read(folder)
    broken = [recipe for recipe in found if hasattr(recipe, "faults")]
    if as_json:
        print_json(
            [
                {
                    "name": recipe.name,
                    "ok": recipe not in broken,
                    "folder": str(recipe.folder),
                    "faults": getattr(recipe, "faults", ()),
                    "warnings": getattr(recipe, "warnings", ()),
                }
                for recipe in found
            ]
        )
    else:
        for recipe in found:
            faults = getattr(recipe, "faults", ())
            click.echo(f"{recipe.name}: " + ("broken" if faults else "ok"))
            for fault in faults:
                click.echo(f"  - {fault}")
            for warning in getattr(recipe, "warnings", ()):
                click.echo(f"  - warning: {warning}")
    sys.exit(1 if broken else 0)


def _read(folder: str | None) -> list[Recipe | BrokenRecipe]:
    from tunesmith.errors import MissingReference
    from tunesmith.recipes import RecipeBook, read_recipe
    from tunesmith.settings import load

    settings, _ = load()
    path = Path(folder) if folder else settings.recipes_dir
    if folder and not path.exists() and (settings.recipes_dir / folder).is_dir():
        path = settings.recipes_dir / folder
    if (path / "recipe.yaml").exists() or (path / "run.sh").exists():
        return [read_recipe(path.absolute())]
    found = RecipeBook(path).all()
    if not found:
        raise MissingReference(
            "holds no recipe folders" if path.is_dir() else "is not a folder",
            where=str(path),
            mend="name a folder that holds recipes, or one recipe; docs/recipes.md shows what a recipe is",
        )
    return found
