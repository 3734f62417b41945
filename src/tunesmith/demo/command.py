"""``tunesmith demo``: a real fine-tuning run from one command. The story itself is in ``story``."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.models import SMALL_MODEL
from tunesmith.cli.options import json_option
from tunesmith.cli.render import print_json

if TYPE_CHECKING:
    from tunesmith.demo.story import Outcome
    from tunesmith.settings import Settings

_NEEDED_RECIPES = ("lora", "evaluate")
_INTERRUPTED = 130


@click.command()
@click.option(
    "--state-dir", type=click.Path(path_type=Path), help="Where everything is kept (default: the setting, ./state)."
)
@click.option("--recipes-dir", type=click.Path(path_type=Path), help="Where the recipes are (default: the setting).")
@click.option("--model", default=SMALL_MODEL, show_default=True, help="The model to fine-tune.")
@click.option("--steps", type=click.IntRange(min=1), help="How many training steps; fewer are faster and learn less.")
@click.option("--keep-serving", is_flag=True, help="Leave the service running at the end, until Ctrl-C.")
@json_option
def demo(
    *,
    state_dir: Path | None,
    recipes_dir: Path | None,
    model: str,
    steps: int | None,
    keep_serving: bool,
    as_json: bool,
) -> None:
    """Fine-tune a small model on this machine and show what it learned.

    It fetches the model, starts the service if none holds the state folder, and then does over HTTP what any client
    could: score the model on orders it has never seen, fine-tune it with LoRA, score it again, and ask it a question. Ctrl-C
    stops the run.
    """
    from tunesmith.demo import interrupts
    from tunesmith.settings import load

    settings, _ = load(flags={"state_dir": state_dir, "recipes_dir": recipes_dir})
    interrupts.listen()
    try:
        _play(settings, model, steps, keep_serving=keep_serving, as_json=as_json)
    except KeyboardInterrupt:
        interrupts.heard()
        click.echo("\nstopped; what is done so far is kept", err=True)
        sys.exit(_INTERRUPTED)


def _play(settings: Settings, model: str, steps: int | None, *, keep_serving: bool, as_json: bool) -> None:
    from tunesmith.cli.client import Service
    from tunesmith.cli.display import display
    from tunesmith.cli.models import fetch, refuse_without_train_extra
    from tunesmith.demo import orders
    from tunesmith.demo.host import hosting
    from tunesmith.demo.story import play, write_data
    from tunesmith.paths import StatePaths

    os.umask(0o077)  # the state folder is for its owner only
    began = time.monotonic()
    progress_stream = sys.stderr if as_json else sys.stdout
    _refuse_without_recipes(settings.recipes_dir)
    refuse_without_train_extra()
    paths = StatePaths(settings.state_dir)
    with display("model", stream=progress_stream) as shown:
        folder = fetch(model, paths, shown)
    data = write_data(paths.root / "demo")
    hyperparams = {**orders.DEMO_HYPERPARAMS, **({"training.max_steps": steps} if steps else {})}
    with hosting(settings, paths.root / "demo" / "server.log") as host:
        click.echo(f"service: {host.url}", file=progress_stream)
        stays = keep_serving or not host.is_ours
        with Service.found_by(lambda: host.url) as service:
            outcome = play(
                service,
                paths,
                model=folder.name,
                data=data,
                hyperparams=hyperparams,
                show=lambda label: display(label, stream=progress_stream),
                keeps_engines=stays,
            )
        url = host.url if stays else None
        _show(outcome, settings, seconds=time.monotonic() - began, url=url, as_json=as_json)
        if keep_serving and host.is_ours:
            click.echo(f"\nserving at {host.url}; Ctrl-C stops it", err=True)
            signal.pause()


def _show(outcome: Outcome, settings: Settings, *, seconds: float, url: str | None, as_json: bool) -> None:
    from tunesmith.demo.report import print_report

    if as_json:
        _print_outcome(outcome, seconds)
    else:
        print_report(outcome, state_dir=settings.state_dir, seconds=seconds, url=url)


def _print_outcome(outcome: Outcome, seconds: float) -> None:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(outcome, enc_hook=str)
    print_json({**fields, "seconds": round(seconds, 1)})


def _refuse_without_recipes(recipes_dir: Path) -> None:
    from tunesmith.errors import MissingReference

    missing = [name for name in _NEEDED_RECIPES if not (recipes_dir / name / "recipe.yaml").is_file()]
    if missing:
        raise MissingReference(
            f"there is no recipe {' and no recipe '.join(missing)}",
            where=str(recipes_dir),
            mend="run the demo in a clone of the repository, or name its recipes folder with --recipes-dir",
        )
