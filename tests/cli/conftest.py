"""One real server with throwaway recipes for the commands that need one, and the command line to ask it with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.commands import Cli
from support.server import ServerProcess, write_recipe

COUNTS = r"""
printf 'hello [bold]not markup[/bold] \xe2\x80\xa8 still the same line\n'
for i in 1 2 3; do
  echo "{\"tunesmith\":\"metrics\",\"step\":$i,\"total_steps\":3,\"loss\":0.$i,\"at\":100$i}"
  echo "line $i"
done
echo '{"tunesmith":"checkpoint","path":"/somewhere/checkpoint-3","step":3}'
"""
FAILS = """
echo "looking at the rows"
echo '{"tunesmith":"message","level":"error","text":"no row is left","where":"train.jsonl:7","mend":"add rows"}'
exit 3
"""
# Stands still in the middle until the test has put a file into its folder.
WAITS = r"""
for i in $(seq 1 10); do echo "line $i"; done
echo '{"tunesmith":"metrics","step":10,"total_steps":20,"loss":0.5,"at":1000}'
while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done
for i in $(seq 11 20); do echo "line $i"; done
echo '{"tunesmith":"metrics","step":20,"total_steps":20,"loss":0.25,"at":1005}'
"""
# As a training does before its first step.
TRIES = r"""
tell() { echo "{\"tunesmith\":\"progress\",\"phase\":\"preflight\",\"part\":\"$1\",\"step\":0,\"total_steps\":9}"; }
tell "the longest batch"
tell "a save"
while [ ! -e "$TUNESMITH_RUN_DIR/go" ]; do sleep 0.02; done
echo '{"tunesmith":"progress","phase":"training","step":0,"total_steps":9}'
"""


@pytest.fixture(scope="session")
def recipes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "recipes"
    for name, script in {"counts": COUNTS, "fails": FAILS, "waits": WAITS, "tries": TRIES}.items():
        write_recipe(folder, name, script)
    return folder


@pytest.fixture(scope="session")
def server(recipes_dir: Path) -> Iterator[ServerProcess]:
    """A server for reading and ordinary runs. Whoever kills a server starts one of their own."""
    with ServerProcess.start(recipes_dir.with_name("state"), recipes_dir) as running:
        yield running


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """The command line in an empty folder, told nothing about any server."""
    return Cli(tmp_path)


@pytest.fixture
def ask(tmp_path: Path, server: ServerProcess) -> Cli:
    """The command line that knows where ``server`` is."""
    return Cli(tmp_path, {"TUNESMITH_URL": server.url})
