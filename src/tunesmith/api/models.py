"""The models door: what a model reference stands for. The OpenAI-shaped list of models is not here."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from litestar import get
from litestar.params import QueryParameter

from tunesmith.api.access import NEEDS_READ
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.references import ResolvedModel

Reference = Annotated[
    str, QueryParameter(name="ref", min_length=1, max_length=4096, description="Any model reference.")
]


@get("/v1/models/resolve", opt=NEEDS_READ, tags=["Models"])
async def resolve_model(request: HttpRequest, reference: Reference) -> ResolvedModel:
    """What a model reference stands for: a folder or a hub id, and for an adapter its base. Nothing is loaded."""
    return await anyio.to_thread.run_sync(services_of(request).references.resolve, reference, "ref")


HANDLERS = [resolve_model]
