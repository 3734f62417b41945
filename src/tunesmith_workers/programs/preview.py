"""``python -m tunesmith_workers.programs.preview``: how rows will be rendered, and which of their tokens trained. Loads no weights.

Reads one JSON request: ``config`` (resolved, as a run gets it), ``limit`` (rows to show) and ``most_rows`` (to look at).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith_workers.process.calls import answer_and_exit
from tunesmith_workers.process.faults import PackageMissing


def preview(request: dict[str, Any]) -> Mapping[str, Any]:
    """Look at the rows that the request names.

    Raises:
        WorkerFault: what a training of this config would refuse, in the same words; or a package is missing.
    """
    try:
        from tunesmith_workers.examples import preview as of_rows  # noqa: PLC0415  # seconds of imports, inside what reports faults
    except ModuleNotFoundError as error:
        raise PackageMissing(
            f"a preview needs the package {error.name}, which is not installed", mend="pip install 'tunesmith[train]'"
        ) from error
    return of_rows.preview(request["config"], limit=request["limit"], most_rows=request["most_rows"])


if __name__ == "__main__":
    answer_and_exit(preview)
