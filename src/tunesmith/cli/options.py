"""The options that many commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")

state_dir_option = click.option(
    "--state-dir", type=click.Path(path_type=Path), help="The state folder (default: the setting of that name)."
)

url_option = click.option(
    "--url",
    envvar="TUNESMITH_URL",
    show_envvar=True,
    help="Address of the service (default: the server that holds ./state, else http://127.0.0.1:8000).",
)

set_option = click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override an option; may be given more than once."
)


def hyperparams_from(settings: tuple[str, ...]) -> dict[str, Any]:
    """What ``--set`` was given, as YAML reads it: ``lr=1e-4`` is a number, ``targets=[q, v]`` a list."""
    from tunesmith.safe_yaml import load

    wanted = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--set {setting!r} is not KEY=VALUE")
        wanted[key] = load(value, source=f"--set {key}")
    return wanted


def asks_service(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds ``--url`` and hands the command an open ``service``."""

    @url_option
    @functools.wraps(command)
    def with_service(url: str | None, **given: Any) -> Any:
        from tunesmith.cli.client import Service, locator

        with Service.found_by(locator(url)) as service:
            return command(service=service, **given)

    return with_service
