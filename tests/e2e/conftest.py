"""The real model for every test in here, and one demo that fetches it, trains it and scores it, over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.real_model import pulled_model
from support.server import clean_environment

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Demo:
    """What the demo said, and the state it left."""

    outcome: dict[str, Any]
    state_dir: Path


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo works; state and models are below it."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="session")
def real_model(home: Path) -> Path:
    """The model of the demo in the state folder of ``home``, pulled as a user does, whether or not the demo has run."""
    return pulled_model(home)


@pytest.fixture(scope="session")
def demo(home: Path) -> Demo:
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith", "demo", "--json", "--recipes-dir", str(ROOT / "recipes")],
        cwd=home,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return Demo(json.loads(done.stdout), home / "state")
