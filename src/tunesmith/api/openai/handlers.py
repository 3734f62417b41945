"""Every handler of the OpenAI-shaped door, below the base address that clients are given: ``/v1``."""

from __future__ import annotations

from typing import Any

from litestar import Router

from tunesmith.api.openai import batches, chat, files, graders, jobs, models, uploads

HANDLERS: list[Any] = [
    Router(
        "/v1",
        route_handlers=[
            *files.HANDLERS,
            *uploads.HANDLERS,
            *batches.HANDLERS,
            *jobs.HANDLERS,
            *graders.HANDLERS,
            *chat.HANDLERS,
            *models.HANDLERS,
        ],
    )
]
