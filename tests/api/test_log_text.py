"""The server's own log as text: what users call things is shown as what it is, and steers no terminal."""

from __future__ import annotations

import re
from pathlib import Path

from support.commands import Cli
from support.server import ServerProcess

STEERS = "a\x1b[2J\x1b]0;owned\x07\rb\x9b31m\u202egpj\nfaked a line"


def test_names_in_the_log_are_escaped(tmp_path: Path, recipes: Path) -> None:
    """As of an upload whose folder has a name that would clear the screen and begin a line of its own."""
    with ServerProcess.start(tmp_path / "state", recipes) as server:
        server.stop()
        (server.state_dir / "uploads" / f"upl_{STEERS}").mkdir()
        (server.state_dir / "uploads" / f"upl_{STEERS}" / "data.jsonl").touch()
        server.up()
        server.stop()
        said = server.output.replace("\\\\", "\\")  # the log quotes what has spaces, and doubles backslashes then
    for shown in ("\\x1b[2J", "\\x1b]0;owned\\x07", "\\x0db", "\\x9b31m", "\\u202egpj", "\\x0afaked a line"):
        assert shown in said
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)
    assert "\nfaked" not in said


def test_errors_of_the_command_line_are_escaped(tmp_path: Path) -> None:
    """Also what it says of a name that it was given."""
    (tmp_path / "tunesmith.yaml").write_text("a\\u001b: 1\n", "utf-8")
    (tmp_path / "state").mkdir()
    said = Cli(tmp_path)("serve", "--state-dir", tmp_path / "state", "--config", "no\x1b[2J.yaml").stderr
    assert "no\\x1b[2J.yaml" in said
    assert "\x1b" not in said
