"""Finding what a person names: a run by its id or as the newest one, a dataset by its id or name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tunesmith.errors import NotFound

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_DATASETS = "/api/v1/datasets"


def find_run(service: Service, reference: str) -> dict[str, Any]:
    """A run by its id, or the newest one as ``last``.

    Raises:
        NotFound: there is none.
    """
    from tunesmith.cli.client import run_path

    if reference != "last":
        found: dict[str, Any] = service.get(run_path(reference))
        return found
    newest: list[dict[str, Any]] = service.get("/v1/runs", limit=1)["runs"]
    if not newest:
        raise NotFound("there are no runs yet", mend="`tunesmith demo` makes some")
    return newest[0]


def find_dataset(service: Service, reference: str) -> dict[str, Any]:
    """The dataset of that id or name. Raises NotFound."""
    if "/" not in reference and reference not in ("", ".", ".."):
        try:
            found: dict[str, Any] = service.get(f"{_DATASETS}/{quote(reference, safe='')}")
        except NotFound:
            pass
        else:
            return found
    for dataset in service.get(_DATASETS, name=reference)["datasets"]:
        return dict(dataset)
    raise NotFound(f"there is no dataset {reference!r}", mend="`tunesmith datasets list` shows them")
