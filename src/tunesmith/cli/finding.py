"""Finding what a person names: a run by its id, the beginning of one, or as the newest; others by id or name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from tunesmith.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

LATEST = "@latest"
"""What stands for the newest run or experiment."""

_DATASETS = "/api/v1/datasets"
_EXPERIMENTS = "/v1/experiments"
_SHOWN_MATCHES = 5


def find_run(service: Service, reference: str) -> dict[str, Any]:
    """A run by its id, a prefix that no other run's id has, or the newest one as ``@latest``.

    Raises:
        NotFound: there is none.
        InvalidInput: several ids begin so.
    """
    from tunesmith.cli.client import run_path

    if reference == LATEST:
        return _newest_run(service)
    path = run_path(reference)
    try:
        found: dict[str, Any] = service.get(path)
    except NotFound as error:
        return _run_by_prefix(service, reference, error)
    return found


def _newest_run(service: Service) -> dict[str, Any]:
    newest: list[dict[str, Any]] = service.get("/v1/runs", limit=1)["runs"]
    if not newest:
        raise NotFound("there are no runs yet", mend="`tunesmith demo` makes some")
    return newest[0]


def _run_by_prefix(service: Service, prefix: str, unknown: NotFound) -> dict[str, Any]:
    """People also leave out the ``run_`` that every id begins with."""
    full = prefix if prefix.startswith("run_") else f"run_{prefix}"
    page = service.get("/v1/runs", id_prefix=full, limit=_SHOWN_MATCHES)
    matches: list[dict[str, Any]] = page["runs"]
    if not matches:
        raise unknown
    if len(matches) > 1:
        more = ", ..." if page["cursor"] is not None else ""
        raise InvalidInput(
            f"{prefix!r} is the beginning of several run ids",
            where="RUN",
            mend=f"give more of it: {', '.join(run['run_id'] for run in matches)}{more}",
        )
    return matches[0]


def find_experiment(service: Service, reference: str) -> dict[str, Any]:
    """An experiment by its id or name (of several with one name the newest), or the newest of all as ``@latest``.

    Raises:
        NotFound: there is none.
    """
    if reference == LATEST:
        named: list[dict[str, Any]] = service.get(_EXPERIMENTS, limit=1)["experiments"]
    elif (found := _by_id(service, _EXPERIMENTS, reference)) is not None:
        return found
    else:
        named = service.get(_EXPERIMENTS, name=reference, limit=1)["experiments"]
    if not named:
        raise NotFound(f"there is no experiment {reference!r}", mend="`tunesmith experiments list` shows them")
    return named[0]


def find_dataset(service: Service, reference: str) -> dict[str, Any]:
    """The dataset of that id or name. Raises NotFound."""
    found = _by_id(service, _DATASETS, reference)
    if found is not None:
        return found
    for dataset in service.get(_DATASETS, name=reference)["datasets"]:
        return dict(dataset)
    raise NotFound(f"there is no dataset {reference!r}", mend="`tunesmith datasets list` shows them")


def _by_id(service: Service, collection: str, reference: str) -> dict[str, Any] | None:
    if "/" in reference or reference in ("", ".", ".."):
        return None
    try:
        found: dict[str, Any] = service.get(f"{collection}/{quote(reference, safe='')}")
    except NotFound:
        return None
    return found
