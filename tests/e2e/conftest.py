"""One demo on the real model, for every test in here: it fetches the model, trains it and scores it, over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.server import clean_environment

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Demo:
    """What the demo said, and the state it left."""

    outcome: dict[str, Any]
    state_dir: Path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    home = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "demo", "--json", "--recipes-dir", str(ROOT / "recipes")],
        cwd=home,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Demo(json.loads(done.stdout), home / "state")
