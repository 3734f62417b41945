"""The command line. Every command lives in a module of its own, imported only when it is called: starting is fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import click

from tunesmith import __version__
from tunesmith.errors import TunesmithError
from tunesmith.terminal import printable

# name -> (module, attribute, one line of help); the help is here so that listing it imports nothing.
_COMMANDS: Mapping[str, tuple[str, str, str]] = MappingProxyType(
    {
        "serve": ("tunesmith.cli.serve", "serve", "Start the service."),
        "demo": (
            "tunesmith.demo.command",
            "demo",
            "Fine-tune a real model on this machine, over HTTP, from one command.",
        ),
        "runs": ("tunesmith.cli.runs", "runs", "Start, list, show, cancel, pause and resume runs."),
        "experiments": ("tunesmith.cli.experiments", "experiments", "List, show and create experiments."),
        "projects": ("tunesmith.cli.projects", "projects", "List, show and create projects, and start runs of them."),
        "logs": ("tunesmith.cli.logs", "logs", "Print a run's log; -f follows it."),
        "watch": ("tunesmith.cli.watch", "watch", "Follow a run with a live progress bar."),
        "datasets": (
            "tunesmith.cli.datasets",
            "datasets",
            "List, show, create and delete datasets, upload files, preview.",
        ),
        "data": ("tunesmith.cli.data", "data", "Check a data file, and split it for training."),
        "recipes": ("tunesmith.cli.recipes", "recipes", "List, show and check recipes."),
        "models": ("tunesmith.cli.models", "models", "List models, pull new ones, look up a model reference."),
        "chat": ("tunesmith.cli.chat", "chat", "Chat with any model: a run's, a checkpoint, a deployment, a hub id."),
        "deployments": (
            "tunesmith.cli.deployments",
            "deployments",
            "Serve models: list, create, show, delete, read logs.",
        ),
        "import-openai": (
            "tunesmith.from_openai.command",
            "import_openai",
            "Bring the fine-tuning jobs of an OpenAI account here.",
        ),
        "compare-openai": (
            "tunesmith.from_openai.compare",
            "compare_openai",
            "Compare a model of OpenAI's with one here, on held-out rows.",
        ),
        "keys": ("tunesmith.cli.keys", "keys", "Create, list and revoke API keys."),
        "state": ("tunesmith.cli.state", "state", "Verify and repair the state folder."),
        "settings": ("tunesmith.cli.settings", "settings", "Print every setting and where it came from."),
    }
)


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        if cmd_name not in _COMMANDS:
            return None
        module, attribute, _ = _COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in _COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except TunesmithError as error:
            click.echo(printable(f"error: {error}", lines=True), err=True)
            sys.exit(1)


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tunesmith")
def main() -> None:
    """Tunesmith: a self-hosted fine-tuning service for language models."""
