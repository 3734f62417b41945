"""The documentation names what there is: every setting, route, command and recipe, and no file that does not exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from litestar import Litestar

from tunesmith.app import open_services
from tunesmith.cli import main
from tunesmith.records import RunState
from tunesmith.server.application import create_app
from tunesmith.settings import DESCRIPTIONS, Settings

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "state" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def app(tmp_path_factory) -> Litestar:
    return create_app(open_services(Settings(state_dir=tmp_path_factory.mktemp("state"), recipes_dir=ROOT / "recipes")))


def test_every_setting_is_documented_with_its_default():
    """docs/settings.md has a row for each setting, and `tunesmith settings` a sentence."""
    page = (ROOT / "docs" / "settings.md").read_text()
    for name in Settings.__struct_fields__:
        assert f"| `{name}` |" in page
        assert DESCRIPTIONS[name]
    for name in ("host", "port", "max_cpu_runs", "start_deadline_seconds", "max_upload_bytes", "log_format"):
        default = str(getattr(Settings(), name)).removesuffix(".0")
        assert f"| `{name}` | `{default}` |" in page


def test_every_route_is_documented(app):
    """docs/api.md names every path that is served."""
    page = (ROOT / "docs" / "api.md").read_text()
    paths = {re.sub(r":\w+\}", "}", route.path) for route in app.routes}
    assert len(paths) > 15
    missing = sorted(path for path in paths if f"{path}`" not in page and f"{path})" not in page)
    assert not missing


def test_every_command_is_documented():
    """docs/cli.md shows each command and each of its subcommands."""
    page = (ROOT / "docs" / "cli.md").read_text()
    context = click.Context(main)
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        subcommands = command.list_commands(context) if isinstance(command, click.Group) else [""]
        for subcommand in subcommands:
            assert f"tunesmith {name} {subcommand}".strip() in page, f"{name} {subcommand}"


def test_every_recipe_is_documented():
    """Each shipped recipe appears in the pages, and explains itself at the top of both its files."""
    pages = "".join(page.read_text() for page in PAGES)
    for folder in sorted((ROOT / "recipes").glob("[!_]*")):
        assert f"`{folder.name}`" in pages
        assert (folder / "recipe.yaml").read_text().startswith("# ")
        assert "By hand:" in (folder / "recipe.yaml").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """A relative link names a file or folder that exists."""
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("package", ["tunesmith", "tunesmith_workers"])
def test_the_structure_is_documented(package):
    """docs/architecture.md names every package, and no others."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    chapter = page.partition(f"`src/{package}`")[2].partition("\n## ")[0]
    there = {path.parent.name for path in (ROOT / "src" / package).glob("*/__init__.py")}
    assert set(re.findall(r"`(\w+)/`", chapter)) >= there
    named = {
        name for row in re.findall(r"^\| (`[^|]+)\|", chapter, re.MULTILINE) for name in re.findall(r"`(\w+)/`", row)
    }
    assert named == there


def test_the_glossary_has_every_state():
    """With what it means."""
    page = (ROOT / "docs" / "glossary.md").read_text()
    table = "\n".join(re.findall(r"^\| [\w, ]+ \|", page, re.MULTILINE))
    assert [state for state in RunState if state not in table] == []
