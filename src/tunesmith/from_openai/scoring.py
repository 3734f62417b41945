"""The worker program that knows the questions of a data file, and what answers are worth: started, and listened to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from tunesmith.contract.environment import OUTPUT_DIR, RUN_DIR
from tunesmith.contract.events import read_line
from tunesmith.errors import TunesmithError, Unavailable
from tunesmith.safe_yaml import dump
from tunesmith.terminal import printable

_PROGRAM = "tunesmith_workers.programs.answers"
_SECONDS = 3600
_LAST_CHARACTERS = 2000


class Scoring:
    """One comparison, in a folder."""

    def __init__(self, folder: Path, held_out: Path, rows: int | None, metrics: Sequence[str]) -> None:
        self.folder = folder
        self._data = {"train_file": str(held_out)}
        self._evaluation: dict[str, Any] = {"metrics": list(metrics), "limit": rows}

    def questions(self) -> Path:
        """The file with what to ask. Raises TunesmithError: the rows or the metrics cannot be used."""
        return Path(self._run("questions", [])["questions"])

    def score(self, models: Sequence[tuple[str, str, Path]]) -> dict[str, Any]:
        """Write the report; answers its outcome. Each model has a name, a label and a file of answers."""
        given = [{"model": model, "label": label, "answers": str(path)} for model, label, path in models]
        return self._run("score", given)

    def _run(self, step: str, models: Sequence[dict[str, str]]) -> dict[str, Any]:
        config = self.folder / "comparison.yaml"
        config.write_bytes(dump({"data": self._data, "evaluation": {**self._evaluation, "models": list(models)}}))
        python = os.environ.get("TUNESMITH_PYTHON") or sys.executable
        try:
            done = subprocess.run(
                [python, "-m", _PROGRAM, step, str(config)],
                env={**os.environ, RUN_DIR: str(self.folder), OUTPUT_DIR: str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"the scoring did not end within {_SECONDS} seconds", mend="give fewer --rows") from None
        return _result(done.stdout, done.returncode)


def report_in(folder: Path) -> dict[str, Any]:
    """The report that a comparison has left."""
    return _decode_report((folder / "report.json").read_bytes())


_decode_report = msgspec.json.Decoder(dict[str, Any]).decode


def _result(output: bytes, code: int) -> dict[str, Any]:
    """Raises TunesmithError with the program's own words."""
    events = [event for line in output.splitlines() if (event := read_line(line)) is not None]
    for kind, fields in events:
        if kind == "message" and fields.get("level") == "warning":
            click.echo(printable(str(fields.get("text"))), err=True)
        if kind == "message" and fields.get("level") == "error":
            raise TunesmithError(str(fields.get("text")), where=_text(fields, "where"), mend=_text(fields, "mend"))
    results = [fields for kind, fields in events if kind == "result"]
    if code != 0 or not results:
        said = output.decode(errors="replace")[-_LAST_CHARACTERS:].strip() or "nothing"
        raise Unavailable(
            f"the scoring ended with {code} and said:\n{said}",
            mend="it needs the extras `train` and `evaluate`: pip install 'tunesmith[train,evaluate]'",
        )
    return results[-1]


def _text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None
