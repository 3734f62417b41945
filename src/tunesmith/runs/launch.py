"""How a run is started. Everything from the request is in files; only names of ours are in the environment."""

from __future__ import annotations

import sys
from pathlib import Path

from tunesmith.contract import environment
from tunesmith.paths import StatePaths
from tunesmith.records import Run
from tunesmith.runner import Launch


def launch_of(state: StatePaths, run: Run, gpus: tuple[str, ...], *, allow_private_urls: bool = False) -> Launch:
    """What to start for the run's next attempt, which sees these GPUs and no others."""
    paths = state.run(run.id)
    folder = paths.folder.resolve()
    return Launch(
        argv=run.command,
        cwd=str(Path.cwd()),
        log=str(folder / paths.log.name),
        env={
            environment.RUN_ID: run.id,
            environment.RUN_DIR: str(folder),
            environment.DATASET: (run.dataset and run.dataset.path) or "",
            environment.OUTPUT_DIR: str(folder / paths.output.name),
            environment.RESUME_FROM: run.resume_from or "",
            environment.PYTHON: sys.executable,
            environment.ALLOW_PRIVATE_URLS: str(int(allow_private_urls)),
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
            "PYTHONUNBUFFERED": "1",
        },
    )
