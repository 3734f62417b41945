"""Listing and pulling models. The puller here is a stand-in on the module path; the real one has tests of its own."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from support.commands import Cli
from tunesmith.cli.models import refuse_without_train_extra
from tunesmith.errors import Unavailable

PULLER = """
import pathlib, sys
from tunesmith.contract.events import emit

name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
emit("progress", phase="fetching", step=1, total_steps=2)
if name == "owner/broken":
    emit("message", level="error", text="there is no such model", mend="look at the name")
    sys.exit(1)
folder.mkdir(parents=True)
(folder / "model.safetensors").write_bytes(bytes(2000))
(folder / "config.json").write_text("{}")
emit("progress", phase="writing", step=2, total_steps=2)
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    package = tmp_path / "stand_in" / "tunesmith_workers"
    package.mkdir(parents=True)
    (package / "programs").mkdir()
    for folder in (package, package / "programs"):
        (folder / "__init__.py").write_text("")
    (package / "programs" / "pull.py").write_text(textwrap.dedent(PULLER))
    return {"PYTHONPATH": str(package.parent)}


def test_a_model_is_pulled_once_and_listed(cli: Cli, env: dict[str, str]) -> None:
    """It lands below state/models under the last part of its name, with a note of where it came from."""
    assert "no models yet" in cli("models", "list").stderr
    pulled = cli("models", "pull", "owner/tiny", env=env)
    assert pulled.returncode == 0, pulled.stderr
    assert "fetching" in pulled.stdout
    folder = cli.folder / "state" / "models" / "tiny"
    assert (folder / "PULLED_FROM").read_text().strip() == "owner/tiny"
    assert "is here already" in cli("models", "pull", "owner/tiny", env=env).stdout
    other = cli("models", "pull", "other/tiny", env=env)
    assert other.returncode == 1
    assert "holds another model of that name" in other.stderr
    (model,) = json.loads(cli("models", "list", "--json").stdout)
    assert model["name"] == "tiny"
    assert model["pulled_from"] == "owner/tiny"
    assert "owner/tiny" in cli("models", "list").stdout


def test_a_model_that_cannot_be_fetched_leaves_nothing(cli: Cli, env: dict[str, str]) -> None:
    """The puller's own words are shown, and no model appears."""
    failed = cli("models", "pull", "owner/broken", env=env)
    assert failed.returncode == 1
    assert "there is no such model (look at the name)" in failed.stderr
    assert not (cli.folder / "state" / "models" / "broken").exists()


@pytest.mark.parametrize("name", ["..", "/", "owner/.."])
def test_a_name_cannot_leave_the_models_folder(cli: Cli, name: str) -> None:
    """What cannot name a model is refused before anything is fetched."""
    refused = cli("models", "pull", name)
    assert refused.returncode == 1
    assert "cannot name a model" in refused.stderr


def test_a_missing_extra_is_named_with_the_line_that_installs_it() -> None:
    """Without torch and its company, the error says what is missing and how to get it."""
    with pytest.raises(Unavailable) as refused:
        refuse_without_train_extra(needed=("no_such_module_here",))
    assert "no_such_module_here" in str(refused.value)
    assert "pip install 'tunesmith[train]'" in str(refused.value)
