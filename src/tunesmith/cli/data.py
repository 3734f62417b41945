"""``tunesmith data``: checking a data file, and making training, validation and test files of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunesmith.cli.options import asks_service, json_option
from tunesmith.cli.render import bytes_text, print_facts, print_json, print_table

if TYPE_CHECKING:
    from tunesmith.cli.client import Service

_PATIENCE_SECONDS = 24 * 3600.0
_SHOWN_ERRORS = 20


@click.group()
def data() -> None:
    """Check a data file, and make training, validation and test files of it.

    A FILE is a path, or an uploaded dataset's id or name. Paths are those of the machine that the service runs on.
    """


@data.command()
@click.argument("file")
@click.option("--errors", "max_errors", type=click.IntRange(0, 1000), default=100, help="At most this many faults.")
@json_option
@asks_service
def validate(*, service: Service, file: str, max_errors: int, as_json: bool) -> None:
    """Look at every row of FILE. Exits with 1 when some cannot be used."""
    from urllib.parse import urlencode

    query = urlencode({"file_path": _absolute(file), "max_errors": max_errors})
    with _waiting(f"reading {file}"):
        verdict = service.post(f"/api/data/validate?{query}", patience_seconds=_PATIENCE_SECONDS)
    if as_json:
        print_json(verdict)
    else:
        _print_verdict(verdict)
    if not verdict["valid"]:
        sys.exit(1)


@data.command()
@click.argument("file")
@click.argument("out")
@click.option("--train", "train_ratio", type=float, default=0.8, show_default=True, help="Share of training rows.")
@click.option("--val", "val_ratio", type=float, default=0.1, show_default=True, help="Share of validation rows.")
@click.option("--test", "test_ratio", type=float, default=0.1, show_default=True, help="Share of test rows.")
@click.option("--shuffle/--no-shuffle", default=True, show_default=True, help="Deal rows at random, or in their order.")
@click.option(
    "--seed", type=click.IntRange(min=0), default=42, show_default=True, help="The same seed, the same files."
)
@click.option(
    "--to-shape",
    type=click.Choice(["messages", "conversations", "instruction", "prompt_completion"]),
    help="Convert every row (default: ShareGPT and instruction rows become messages, others stay).",
)
@click.option("--system", "default_system", help="A system message for conversations that have none.")
@click.option("--deidentify", metavar="POLICY", help="Take every text through this de-identification policy.")
@click.option("--locale", type=click.Choice(["zh-CN", "en-US"]), help="For the de-identification.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that holds other files, too.")
@json_option
@asks_service
def process(
    *,
    service: Service,
    file: str,
    out: str,
    train_ratio: float,
    val_ratio: float,
    test_ratio: float,
    shuffle: bool,
    seed: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Make train.json, val.json and test.json of FILE in the folder OUT."""
    split = {"train_ratio": train_ratio, "val_ratio": val_ratio, "test_ratio": test_ratio}
    request = {
        "input_file": _absolute(file),
        "output_dir": str(Path(out).absolute()),
        "split_config": {**split, "shuffle": shuffle, "seed": seed},
        **options,
    }
    with _waiting(f"processing {file}"):
        report = service.post("/api/data/process", request, patience_seconds=_PATIENCE_SECONDS)
    if as_json:
        print_json(report)
    else:
        _print_report(report)


def _absolute(file: str) -> str:
    """A path that is there as the service sees it, whose folder is another; anything else may be a dataset's name."""
    return str(Path(file).absolute()) if "/" in file or Path(file).exists() else file


@contextmanager
def _waiting(text: str) -> Iterator[None]:
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(text):
        yield


def _print_verdict(verdict: Mapping[str, Any]) -> None:
    stats = verdict["stats"]
    print_facts(
        {
            "verdict": "ok" if verdict["valid"] else "failed",
            "format": f"{verdict['format']}, {bytes_text(stats['bytes'])}",
            "rows": f"{verdict['valid_count']} of {verdict['total']} can be used",
            "shapes": _counts(stats["shapes"]),
            "messages": _counts(stats["roles"]),
            "duplicates": stats["duplicates"] or None,
            "faults": _counts(stats["faults"]),
        }
    )
    _print_lengths(stats["characters"])
    _print_errors(verdict["errors"], verdict["error_count"])


def _print_report(report: Mapping[str, Any]) -> None:
    deidentified = report["deidentified"]
    print_facts(
        {
            "rows": f"{report['written']} of {report['total']} written",
            "files": _counts(report["counts"]),
            "changed": _counts(report["changes"]),
            "deidentified": _counts(deidentified["counts"]) or "nothing found" if deidentified else None,
            "policy": f"{deidentified['policy_id']} {deidentified['policy_version']}" if deidentified else None,
            "duplicates": report["stats"]["duplicates"] or None,
            "rejected": f"{report['rejected']}, see {report['files']['rejected']}" if report["rejected"] else None,
            "report": report["files"]["report_page"],
        }
    )
    _print_errors(report["errors"], report["rejected"])


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in counts.items())


def _print_lengths(characters: Mapping[str, Mapping[str, Any]]) -> None:
    rows = [
        (name, str(one["count"]), f"{one['mean']:.0f}", str(one["min"]), str(one["max"]))
        for name, one in characters.items()
        if one["count"]
    ]
    if rows:
        click.echo()
        print_table(("characters", "count", "mean", "min", "max"), rows)


def _print_errors(errors: list[Mapping[str, Any]], total: int) -> None:
    if not errors:
        return
    click.echo()
    shown = errors[:_SHOWN_ERRORS]
    print_table(("line", "field", "what is wrong"), [(str(e["line"]), e["field"] or "", e["message"]) for e in shown])
    if total > len(shown):
        click.echo(f"and {total - len(shown)} more; --json shows up to --errors of them", err=True)
