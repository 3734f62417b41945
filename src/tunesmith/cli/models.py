"""``tunesmith models``: the models below the state folder, fetching new ones in a process of their own, and what a reference
stands for.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.options import asks_service, json_option, state_dir_option
from tunesmith.cli.render import bytes_text, print_facts, print_json, print_table
from tunesmith.errors import Conflict, InvalidInput, TunesmithError, Unavailable
from tunesmith.paths import StatePaths

if TYPE_CHECKING:
    from tunesmith.cli.client import Service
    from tunesmith.cli.display import Display

PULLED_FROM = "PULLED_FROM"
SMALL_MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
_NEEDED = ("torch", "transformers", "gguf")
_LAST_LINES = 5


@click.group()
def models() -> None:
    """List models, pull new ones, and look up what a model reference stands for."""


@models.command("list")
@state_dir_option
@json_option
def list_models(*, state_dir: Path | None, as_json: bool) -> None:
    """List the models below the state folder. A run's result is named by the run's id and is not listed here."""
    found = [_facts(folder) for folder in _folders(_paths(state_dir))]
    if as_json:
        print_json(found)
    elif not found:
        click.echo(f"no models yet; `tunesmith models pull {SMALL_MODEL}` fetches a small one", err=True)
    else:
        rows = [(model["name"], bytes_text(model["bytes"]), model["pulled_from"] or "") for model in found]
        print_table(("model", "size", "pulled from"), rows)


@models.command()
@click.argument("name")
@state_dir_option
@json_option
def pull(*, name: str, state_dir: Path | None, as_json: bool) -> None:
    """Fetch a model by its hub id; runs can then name it, and need no network."""
    from tunesmith.cli.display import display

    os.umask(0o077)  # the state folder is for its owner only
    with display(name, stream=sys.stderr if as_json else None) as shown:
        folder = fetch(name, _paths(state_dir), shown)
    facts = _facts(folder)
    if as_json:
        print_json(facts)
    else:
        print_facts({"model": facts["name"], "size": bytes_text(facts["bytes"]), "files": facts["folder"]})


@models.command()
@click.argument("reference", metavar="REF")
@json_option
@asks_service
def resolve(*, service: Service, reference: str, as_json: bool) -> None:
    """Show what a model reference stands for: a run, checkpoint, mark, deployment, alias, pulled model, path or hub id."""
    found = service.get("/v1/models/resolve", ref=reference)
    if as_json:
        print_json(found)
        return
    facts = {name: found[name] for name in ("reference", "kind", "alias_of", "path", "base") if found[name] is not None}
    print_facts(facts | {"meaning": found["explanation"]})


def fetch(name: str, paths: StatePaths, shown: Display) -> Path:
    """Fetch a model unless it is here already; answers its folder.

    Raises:
        Unavailable: it could not be fetched, with what the process said; or what fetching needs is not installed.
        Conflict: the folder holds a model of another owner.
    """
    folder = paths.models / _folder_name(name)
    origin = folder / PULLED_FROM
    if is_complete(folder):
        if "/" in name and origin.is_file() and origin.read_text(encoding="utf-8").strip() != name:
            raise Conflict("holds another model of that name", where=str(folder), mend="rename or remove that folder")
        shown.note(f"{name} is here already: {folder} (remove the folder to fetch it again)")
        return folder
    refuse_without_train_extra()
    paths.create()
    _pull(name, folder, shown)
    if not origin.exists():
        origin.write_text(f"{name}\n", encoding="utf-8")
    return folder


def is_complete(folder: Path) -> bool:
    """A model that can be loaded; the puller gives a folder its name only when all is in it."""
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def refuse_without_train_extra(needed: Sequence[str] = _NEEDED) -> None:
    """Raises Unavailable, saying what is missing and how to install it. Imports none of it."""
    missing = [module for module in needed if importlib.util.find_spec(module) is None]
    if missing:
        raise Unavailable(
            f"models and trainings need {', '.join(missing)}, not installed in {sys.prefix}",
            mend="install the `train` extra: pip install 'tunesmith[train]'",
        )


def _pull(name: str, folder: Path, shown: Display) -> None:
    from tunesmith.contract.events import read_line

    command = [sys.executable, "-m", "tunesmith_workers.programs.pull", name, str(folder)]
    reported: TunesmithError | None = None
    last_lines: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        assert child.stdout is not None
        try:
            for line in child.stdout:
                event = read_line(line.rstrip(b"\n"))
                if event is None:
                    last_lines.append(line.decode(errors="replace").rstrip())
                elif event[1].get("level") == "error":
                    reported = _as_error(event[1])
                else:
                    shown.take(*event)
        except BaseException:
            child.send_signal(signal.SIGINT)  # so that it clears its scratch folder
            raise
    if child.returncode != 0:
        said = "\n".join(last_lines) or "nothing"
        raise reported or Unavailable(
            f"{name} could not be fetched; the process ended with {child.returncode} and said:\n{said}",
            mend="check the name and the network",
        )


def _as_error(fields: Mapping[str, Any]) -> TunesmithError:
    return Unavailable(str(fields.get("text")), where=fields.get("where"), mend=fields.get("mend"))


def _folder_name(name: str) -> str:
    """What a model is called below state/models: the last part of its hub id."""
    last = name.rstrip("/").rpartition("/")[2]
    if last in ("", ".", "..") or "\0" in name:
        raise InvalidInput(f"{name!r} cannot name a model", where="NAME", mend="name it like owner/model")
    return last


def _folders(paths: StatePaths) -> list[Path]:
    try:
        return sorted(folder for folder in paths.models.iterdir() if is_complete(folder))
    except FileNotFoundError:
        return []


def _facts(folder: Path) -> dict[str, Any]:
    origin = folder / PULLED_FROM
    return {
        "name": folder.name,
        "bytes": sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        "pulled_from": origin.read_text(encoding="utf-8").strip() if origin.is_file() else None,
        "folder": str(folder),
    }


def _paths(state_dir: Path | None) -> StatePaths:
    from tunesmith.settings import load

    settings, _ = load(flags={"state_dir": state_dir})
    return StatePaths(settings.state_dir)
