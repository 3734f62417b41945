"""The real model of the slow tests: SmolLM2-135M-Instruct, pulled as a user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from support.server import clean_environment

FOLDER_VARIABLE = "TUNESMITH_TEST_MODEL"
"""A folder that holds the model already saves the pull."""


def pulled_model(home: Path) -> Path:
    """Its folder, below the state folder of ``home`` unless the variable names another."""
    if there := os.environ.get(FOLDER_VARIABLE):
        return Path(there).resolve()
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "models", "pull", "HuggingFaceTB/SmolLM2-135M-Instruct", "--json"],
        cwd=home,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return (home / json.loads(done.stdout)["folder"]).resolve()  # told from where it was pulled
