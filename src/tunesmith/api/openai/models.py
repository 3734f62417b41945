"""``/v1/models``: what can be asked and trained, and removing what was trained."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import delete, get
from litestar.params import FromPath

from tunesmith.api.openai.errors import READS, WRITES, OpenAIError
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.openai import ListedModel


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that can be asked, or trained on."""

    id: str
    """What requests call it."""
    object: Literal["model"] = "model"
    created: int
    """Unix seconds."""
    owned_by: str
    """`tunesmith` for what was trained here; `system` for all else."""


class ModelList(msgspec.Struct, frozen=True, kw_only=True):
    """Every model that is here, the newest fine-tuned ones first."""

    object: Literal["list"] = "list"
    data: list[Model]
    """All of them; of fine-tuned models the newest 1,000."""


class DeletedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that is not there any more."""

    id: str
    object: Literal["model"] = "model"
    deleted: bool = True


@get("/models", opt=READS, tags=["OpenAI"])
async def list_models(request: HttpRequest) -> ModelList:
    """The models that are here: fine-tuned ones, deployments, pulled ones, and names that stand for one of them."""
    listed = await services_of(request).openai.models.all()
    return ModelList(data=[_view(one) for one in listed])


@get("/models/{model:path}", opt=READS, tags=["OpenAI"])
async def show_model(request: HttpRequest, model: FromPath[str]) -> Model:
    """One model, by any name that a request may call it; `404` lists what there is."""
    return _view(await services_of(request).openai.models.get(_name(model)))


@delete("/models/{model:path}", opt=WRITES, tags=["OpenAI"], status_code=200)
async def delete_model(request: HttpRequest, model: FromPath[str]) -> DeletedModel:
    """Remove a fine-tuned model from the disk. Its run with its checkpoints stays; other models cannot be removed here."""
    name = _name(model)
    await services_of(request).openai.model_deletion.delete(name)
    return DeletedModel(id=name)


def _name(path: str) -> str:
    """Names hold slashes, raw or as %2F; a path's own one is sent doubled."""
    name = path.removeprefix("/")
    if not name:
        raise OpenAIError(404, "no model is named", param="model", code="model_not_found")
    return name


def _view(listed: ListedModel) -> Model:
    return Model(id=listed.name, created=listed.created, owned_by=listed.owned_by)


HANDLERS: list[Any] = [list_models, show_model, delete_model]
