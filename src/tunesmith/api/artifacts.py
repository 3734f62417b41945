"""Artifacts at the doors: the files that a run wrote, their tags, and their bytes."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

import anyio.to_thread
import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from tunesmith.api.access import NEEDS_READ, NEEDS_WRITE
from tunesmith.api.faults import NOT_EMPTY
from tunesmith.api.lists import NameCursor
from tunesmith.api.ranges import file_response
from tunesmith.api.runs import Limit
from tunesmith.api.services import HttpRequest, Services, services_of
from tunesmith.runs import Artifact, ArtifactPage

OneTag = Annotated[str, QueryParameter(name="tag", max_length=500, description="The tag to take away.")]


class NewTags(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tags to add to those that an artifact has."""

    tags: Annotated[
        tuple[Annotated[str, msgspec.Meta(max_length=200, pattern=NOT_EMPTY)], ...], msgspec.Meta(max_length=100)
    ]


@get("/v1/runs/{run_id:str}/artifacts", opt=NEEDS_READ, tags=["Runs"])
async def list_run_artifacts(
    request: HttpRequest, run_id: FromPath[str], limit: Limit = 200, cursor: NameCursor = None
) -> ArtifactPage:
    """The files that the run wrote, by path: its output, its complete checkpoints, and what it told of."""
    services = services_of(request)
    services.runs.book.get(run_id)
    return await page_of(services, run_id, limit, cursor)


@get("/v1/runs/{run_id:str}/artifacts/{artifact_id:str}/content", opt=NEEDS_READ, tags=["Runs"])
async def download_run_artifact(
    request: HttpRequest, run_id: FromPath[str], artifact_id: FromPath[str]
) -> Response[Any]:
    """The bytes of one; `Range` asks for a part."""
    services_of(request).runs.book.get(run_id)
    return await content_of(request, run_id, artifact_id)


@post("/v1/runs/{run_id:str}/artifacts/{artifact_id:str}/tags", opt=NEEDS_WRITE, tags=["Runs"], status_code=200)
async def tag_run_artifact(
    request: HttpRequest, run_id: FromPath[str], artifact_id: FromPath[str], data: JSONBody[NewTags]
) -> Artifact:
    """Add tags to one."""
    services = services_of(request)
    services.runs.book.get(run_id)
    return await services.artifacts.tag(run_id, artifact_id, data.tags)


@delete("/v1/runs/{run_id:str}/artifacts/{artifact_id:str}/tags", opt=NEEDS_WRITE, tags=["Runs"], status_code=200)
async def untag_run_artifact(
    request: HttpRequest, run_id: FromPath[str], artifact_id: FromPath[str], one_tag: OneTag
) -> Artifact:
    """Take one tag away."""
    services = services_of(request)
    services.runs.book.get(run_id)
    return await services.artifacts.untag(run_id, artifact_id, one_tag)


async def page_of(services: Services, run_id: str, limit: int, cursor: str | None) -> ArtifactPage:
    return await anyio.to_thread.run_sync(lambda: services.artifacts.page(run_id, limit=limit, cursor=cursor))


async def content_of(request: HttpRequest, run_id: str, artifact_id: str) -> Response[Any]:
    found = await services_of(request).artifacts.find(run_id, artifact_id)
    return file_response(request, found.location, PurePosixPath(found.artifact.path).name, found.version)


HANDLERS = [list_run_artifacts, download_run_artifact, tag_run_artifact, untag_run_artifact]
