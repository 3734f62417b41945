"""What holds for every command: help, quick starting, finding the service, and errors that say what to do."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from support.commands import Cli
from support.server import ServerProcess
from tunesmith.cli import main

HEAVY = ("httpx", "rich", "litestar", "uvicorn", "torch", "asyncio")


def _commands(group: click.Group, *path: str) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        yield (*path, name)
        if isinstance(found, click.Group):
            yield from _commands(found, *path, name)


@pytest.mark.parametrize("path", list(_commands(main)), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    """--help works for each command and says what it does in a sentence."""
    result = CliRunner().invoke(main, [*path, "--help"])
    assert result.exit_code == 0
    assert len(result.output.splitlines()[2].strip()) > 20


def test_starting_is_light() -> None:
    """Loading the command line, and each command's module for its help, loads nothing heavy."""
    script = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "from tunesmith.cli import main\n"
        "for name in ('runs', 'projects', 'logs', 'watch', 'recipes', 'models', 'keys', 'state', 'demo'):\n"
        "    main.get_command(None, name)\n"
        f"print([name for name in {HEAVY[:-1]!r} if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_service_is_said_with_what_to_do(cli: Cli) -> None:
    """A connection that is refused names the address and how to start a service."""
    result = cli("runs", "list", "--url", "http://127.0.0.1:9")
    assert result.returncode == 1
    assert "no service answers at http://127.0.0.1:9" in result.stderr
    assert "tunesmith serve" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://", "http://h:notaport", "http://[::1"])
def test_an_address_that_is_none_is_refused(cli: Cli, url: str) -> None:
    """A mistyped --url is explained, not tried."""
    result = cli("runs", "list", "--url", url)
    assert result.returncode == 1
    assert "is not an address" in result.stderr


def test_the_server_of_the_state_folder_is_found(cli: Cli, server: ServerProcess) -> None:
    """Without --url a command asks the server that holds the state folder, whatever port it has."""
    result = cli("recipes", "list", "--json", cwd=server.state_dir.parent)
    assert result.returncode == 0, result.stderr
    assert {recipe["name"] for recipe in json.loads(result.stdout)} >= {"counts", "fails", "waits"}


class _Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>a router's login page</html>")

    def log_message(self, *_: object) -> None:
        """Keep the tests' output clean."""


def test_a_stranger_on_the_port_is_recognised(cli: Cli) -> None:
    """Something else that answers is named as such."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Stranger) as stranger:
        thread = threading.Thread(target=stranger.serve_forever)
        thread.start()
        result = cli("runs", "list", "--url", f"http://127.0.0.1:{stranger.server_port}")
        stranger.shutdown()
        thread.join()
    assert result.returncode == 1
    assert "does not look like Tunesmith" in result.stderr


def test_settings_tell_where_they_come_from(cli: Cli) -> None:
    """Each setting shows its value and origin: default, file or variable."""
    (cli.folder / "tunesmith.yaml").write_text("port: 8123\n")
    found = cli("settings", "--json", env={"TUNESMITH_MAX_CPU_RUNS": "3"})
    by_name = {source["name"]: source for source in json.loads(found.stdout)}
    assert by_name["port"]["value"] == 8123
    assert by_name["port"]["origin"] == "tunesmith.yaml"
    assert by_name["max_cpu_runs"]["origin"] == "TUNESMITH_MAX_CPU_RUNS"
    assert by_name["host"]["origin"] == "default"
    assert all(source["description"] for source in by_name.values())
    plain = cli("settings")
    assert plain.stdout.splitlines()[0].split() == ["SETTING", "VALUE", "FROM", "WHAT", "IT", "IS"]
    assert "8123" in plain.stdout


def test_a_wrong_setting_is_refused(cli: Cli) -> None:
    """A misspelt setting names the right one."""
    (cli.folder / "tunesmith.yaml").write_text("prot: 8123\n")
    result = cli("settings")
    assert result.returncode == 1
    assert "did you mean port?" in result.stderr


def test_recipes_are_listed_and_shown(ask: Cli) -> None:
    """`recipes list` and `show` tell what the service can run, with every default."""
    assert "counts  ok" in ask("recipes", "list").stdout.replace("counts   ", "counts ")
    shown = ask("recipes", "show", "counts")
    assert "counts, for the tests" in shown.stdout
    assert "max_steps: 1" in shown.stdout
    unknown = ask("recipes", "show", "count")
    assert unknown.returncode == 1
    assert "there is no recipe 'count'" in unknown.stderr


def test_recipes_are_checked_without_a_service(cli: Cli, recipes_dir: Path) -> None:
    """`recipes check` prints every fault of every broken folder and exits with 1."""
    folder = cli.folder / "recipes"
    shutil.copytree(recipes_dir, folder)
    assert cli("recipes", "check").returncode == 0
    (folder / "fails" / "recipe.yaml").write_text("# Wrong.\nname: other\nkind: bake\nsummary: x\n")
    result = cli("recipes", "check", "recipes")
    assert result.returncode == 1
    assert "counts: ok" in result.stdout
    assert "fails: broken" in result.stdout
    assert "must be one of train, evaluate, export" in result.stdout
    assert "config: is missing" in result.stdout
    by_name = {recipe["name"]: recipe for recipe in json.loads(cli("recipes", "check", "--json").stdout)}
    assert by_name["counts"]["ok"]
    assert not by_name["fails"]["ok"]
    assert len(by_name["fails"]["faults"]) >= 3
    assert cli("recipes", "check", "counts").stdout == "counts: ok\n"
    assert cli("recipes", "check", "recipes/counts").stdout == "counts: ok\n"
    nothing = cli("recipes", "check", "nowhere")
    assert nothing.returncode == 1
    assert "nowhere" in nothing.stderr


@pytest.mark.parametrize("path", list(_commands(main)), ids=" ".join)
def test_every_command_is_in_the_docs(path: tuple[str, ...]) -> None:
    """docs/cli.md names each command, and each of its options."""
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert f"`tunesmith {' '.join(path)}" in page
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        found = found.get_command(click.Context(found), name) or found
    options = [word for option in found.params for word in option.opts if word.startswith("--")]
    assert [word for word in options if word not in page] == []


@pytest.mark.parametrize("key", ["tsk_hidden\r", "tsk_hidden ", "tsk_hiddenö", "tsk_\x1bhidden", "tsk_hidden\udcff"])
def test_a_key_that_cannot_be_sent_is_not_shown(cli: Cli, key: str) -> None:
    """A key with a stray line end or letter is refused with the variable it is in, and never printed."""
    for url in ("http://127.0.0.1:9", "http://localhost:9"):
        result = cli("runs", "list", "--url", url, env={"TUNESMITH_API_KEY": key})
        assert result.returncode == 1
        assert "TUNESMITH_API_KEY" in result.stderr
        assert "Traceback" not in result.stderr
        assert "hidden" not in result.stdout + result.stderr
