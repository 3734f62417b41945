"""The service itself: what it is, whether it is healthy, its recipes, its metrics."""

from __future__ import annotations

import time
from typing import Any

import anyio.to_thread
import msgspec
from litestar import MediaType, Response, get, head
from litestar.params import FromPath

from tunesmith import __version__
from tunesmith.api.access import NEEDS_READ, OPEN_TO_ALL
from tunesmith.api.lists import NameCursor, page_by_name
from tunesmith.api.runs import Limit
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.api.telemetry import observe, render
from tunesmith.errors import Fault, NotFound
from tunesmith.recipes import BrokenRecipe, Recipe
from tunesmith.records import RunKind
from tunesmith.vitals import Vitals


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What answers here."""

    name: str
    version: str
    docs: str
    openapi: str


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Alive, and the time here."""

    status: str
    time: float


class RecipeView(msgspec.Struct, frozen=True, kw_only=True):
    """A recipe, or what is wrong with a broken one."""

    name: str
    ok: bool
    kind: RunKind | None = None
    summary: str = ""
    about: str = ""
    """The comment at the top of recipe.yaml."""
    data: tuple[str, ...] = ()
    resources: dict[str, Any] = {}
    saves_when_stopped: bool = True
    """Whether it writes a checkpoint when it is asked to stop."""
    aliases: dict[str, str] = {}
    config: dict[str, Any] = {}
    """The defaults."""
    folder: str = ""
    faults: tuple[Fault, ...] = ()
    """Why it is broken."""
    warnings: tuple[Fault, ...] = ()
    """What its readers would miss, such as an opening comment; it runs all the same."""


class RecipeList(msgspec.Struct, frozen=True, kw_only=True):
    """Recipes by name; ask with ``cursor`` for the next page, until it is null."""

    recipes: list[RecipeView]
    cursor: str | None


@get("/", opt=NEEDS_READ, sync_to_thread=False, tags=["Service"])
def about() -> About:
    """Name, version and where the documentation is."""
    return About(name="tunesmith", version=__version__, docs="/docs", openapi="/openapi.json")


@get("/healthz", opt=OPEN_TO_ALL, sync_to_thread=False, tags=["Service"])
def healthz(request: HttpRequest) -> Health:
    """Whether the service is alive; 503 names the part of it that is not."""
    return _health(request)


@get("/health", opt=OPEN_TO_ALL, sync_to_thread=False, include_in_schema=False)
def health(request: HttpRequest) -> Health:
    return _health(request)


@head(["/healthz", "/health"], opt=OPEN_TO_ALL, sync_to_thread=False, include_in_schema=False)
def health_head(request: HttpRequest) -> None:
    _health(request)


def _health(request: HttpRequest) -> Health:
    vitals: Vitals = request.app.state.vitals
    if vitals.ended:
        raise vitals.failure()
    return Health(status="ok", time=time.time())


@get("/metrics", opt=NEEDS_READ, media_type=MediaType.TEXT, tags=["Service"])
async def metrics(request: HttpRequest) -> Response[bytes]:
    """Runs by state, queue length, slots and request times, as Prometheus text."""
    observed = observe(services_of(request), request.app.state.request_times)
    text, media_type = await anyio.to_thread.run_sync(render, observed)
    return Response(text, media_type=media_type)


@get("/v1/recipes", opt=NEEDS_READ, tags=["Recipes"])
async def list_recipes(request: HttpRequest, limit: Limit = 1000, cursor: NameCursor = None) -> RecipeList:
    """Every recipe folder with its defaults; a broken one with what is wrong with it."""
    book = services_of(request).recipes
    found = await anyio.to_thread.run_sync(book.all)
    page, following = page_by_name(found, lambda recipe: recipe.name, limit=limit, cursor=cursor)
    return RecipeList(recipes=[_view(recipe) for recipe in page], cursor=following)


@get("/v1/recipes/{name:str}", opt=NEEDS_READ, tags=["Recipes"])
async def show_recipe(request: HttpRequest, name: FromPath[str]) -> RecipeView:
    """One recipe."""
    found = await anyio.to_thread.run_sync(services_of(request).recipes.all)
    named = next((recipe for recipe in found if recipe.name == name), None)
    if named is None:
        raise NotFound(f"there is no recipe {name!r}", mend="GET /v1/recipes lists them")
    return _view(named)


def _view(recipe: Recipe | BrokenRecipe) -> RecipeView:
    if isinstance(recipe, BrokenRecipe):
        return RecipeView(name=recipe.name, ok=False, folder=str(recipe.folder), faults=recipe.faults)
    return RecipeView(
        name=recipe.name,
        ok=True,
        kind=recipe.kind,
        summary=recipe.summary,
        about=recipe.about,
        data=recipe.data,
        resources=msgspec.to_builtins(recipe.resources),
        saves_when_stopped=recipe.saves_when_stopped,
        aliases=recipe.aliases,
        config=recipe.config,
        folder=str(recipe.folder),
        warnings=recipe.warnings,
    )


HANDLERS = [about, healthz, health, health_head, metrics, list_recipes, show_recipe]
