"""The variables by which a process of a run learns what it is of. Its config's path is its first argument.

Recipes read them in shell, so the names are fixed. Which other variables a program gets is not decided here; see
``tunesmith.runner.local.environment``.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "TUNESMITH_"
"""Of every variable of ours. Those of the server are never passed on to what it starts."""

RUN_ID: Final = "TUNESMITH_RUN_ID"
"""Also the mark by which every process that belongs to the run is found, wherever it has gone."""
RUN_DIR: Final = "TUNESMITH_RUN_DIR"
"""The run's folder, as a full path."""
DATASET: Final = "TUNESMITH_DATASET"
"""The file or folder of its dataset; empty without one."""
OUTPUT_DIR: Final = "TUNESMITH_OUTPUT_DIR"
"""Where the finished model goes."""
RESUME_FROM: Final = "TUNESMITH_RESUME_FROM"
"""The folder of the checkpoint to resume from; empty to begin at the start."""
PYTHON: Final = "TUNESMITH_PYTHON"
"""The server's Python interpreter, for recipes that have none of their own."""

ALLOW_PRIVATE_URLS: Final = "TUNESMITH_ALLOW_PRIVATE_URLS"
"""1 where requests to addresses that a config names may go to private networks, else 0. It says what the setting of the name does."""

SHIM_OF: Final = "TUNESMITH_SHIM_OF"
"""Which run a shim is of. Only the shim has it, and its program does not."""
