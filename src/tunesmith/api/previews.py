"""The preview: what of a dataset's rows a training would see and learn, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from litestar import Router, post
from litestar.params import FromPath, JSONBody

from tunesmith.api.access import NEEDS_WRITE
from tunesmith.api.data import Bin
from tunesmith.api.leaving import while_connected
from tunesmith.api.own_names import own_names
from tunesmith.api.services import HttpRequest, services_of
from tunesmith.records import DatasetReference
from tunesmith.runs import RunRequest


class PreviewRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """As a run is asked for, with how much to show."""

    model: str | None = None
    """Any model reference. Its weights are not loaded."""
    recipe: str | None = None
    """Without it, the train config's `job.type` decides."""
    limit: Annotated[int, msgspec.Meta(ge=1, le=50)] = 3
    """So many rows are shown token by token."""
    max_rows: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 20_000
    """At most so many rows of each file are looked at; the totals are about them."""
    split: Annotated[str, msgspec.Meta(max_length=200)] = "train"
    hyperparams: Mapping[str, Any] = {}
    """Overrides of the recipe's config, in any spelling that a run takes."""
    train_config: str | Mapping[str, Any] | None = None
    """A YAML file's path, or its content; without it the dataset's, as for a run."""
    seed: int | None = None


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens side by side that are all trained, or all not."""

    text: str
    trained: bool
    tokens: int


class ShownRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row as the model will read it."""

    where: str
    """File and line."""
    text: str
    token_ids: list[int]
    mask: list[bool]
    """Which tokens are trained."""
    pieces: list[str]
    """The text of each token. Of several that make up one character, the first one has it."""
    segments: list[Segment]
    length: int
    """In tokens, before it is cut."""
    length_kept: int
    """After it is cut; 0 for a row that is dropped."""
    trained_tokens: int
    share_trained: float
    cut: bool
    dropped: bool
    tokens_shown: int
    """`token_ids`, `mask` and `pieces` have so many, of a very long row its first ones."""
    not_shown: str
    """How the text goes on after them: what is cut off, or the beginning of it."""


class RowTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What rows of a file come to."""

    rows_read: int
    rows: int
    """That are trained on, or scored: without those that are dropped, and with conversations that became several."""
    tokens: int
    trained_tokens: int
    share_trained: float
    longest: int
    cut: int
    dropped: int
    split_conversations: int
    """Conversations that became one row for each assistant turn."""


class TokenLengths(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths of rows in tokens, before any is cut or dropped."""

    count: int
    total: int
    mean: float
    min: int
    max: int
    percentiles: dict[str, int]
    histogram: list[Bin]


class TrainTotals(RowTotals, frozen=True, kw_only=True):
    """What the training rows come to."""

    lengths: TokenLengths


class Template(msgspec.Struct, frozen=True, kw_only=True):
    """The chat template that conversations are rendered with."""

    source: Literal["model", "built-in", "file"]
    sha256: str | None = None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a training would see."""

    dataset_id: str
    recipe: str
    cached: bool
    """Whether it was kept from an earlier time; everything that it depends on is still the same."""
    complete: bool
    """False when a file has more rows than `max_rows`: a training reads all of them."""
    max_rows: int
    rows: list[ShownRow]
    train: TrainTotals
    validation: RowTotals | None = None
    test: RowTotals | None = None
    template: Template
    settings: dict[str, Any]
    """What decides about rendering, cutting and order, as resolved for a run."""
    first_batches_sha256: str | None = None
    """Over the token ids and labels of the first `batches_hashed` batches. A run tells the same in its log."""
    batches_hashed: int
    warnings: list[str]


@post("/datasets/{dataset_id:str}/preview", opt=NEEDS_WRITE, tags=["Datasets"], status_code=200)
async def preview_dataset(request: HttpRequest, dataset_id: FromPath[str], data: JSONBody[PreviewRequest]) -> Preview:
    """How rows will be rendered and which tokens are trained, by the code that trains. Refuses what a training refuses."""
    services = services_of(request)
    dataset = services.datasets.get(services.datasets.id_of(dataset_id) or dataset_id)
    resolved = await services.runs.creator.resolved(
        RunRequest(
            recipe=data.recipe,
            model=data.model,
            dataset=DatasetReference(name=dataset.id, split=data.split),
            hyperparams=data.hyperparams,
            train_config=data.train_config,
            seed=data.seed,
        )
    )
    with own_names(services):
        answer, cached = await while_connected(
            request,
            services.previews.look(resolved.recipe, resolved.config, limit=data.limit, most_rows=data.max_rows),
        )
    said = {
        **answer,
        "dataset_id": dataset.id,
        "recipe": resolved.recipe.name,
        "cached": cached,
        "max_rows": data.max_rows,
        "warnings": [*resolved.warnings, *answer["warnings"]],
    }
    return msgspec.convert(said, Preview)


HANDLERS = [
    Router("/api/v1", route_handlers=[preview_dataset]),
    Router("/v1", route_handlers=[preview_dataset], include_in_schema=False),
]
