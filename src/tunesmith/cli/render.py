"""How the command line looks: tables and facts on a terminal, plain text when piped, JSON when asked; events in words.

Text from outside is never read as markup, nor obeyed by a terminal. Moving displays are in ``display``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any

import click
import msgspec

from tunesmith.errors import Fault
from tunesmith.terminal import printable

_STYLES: Mapping[str, str] = MappingProxyType(
    {
        "succeeded": "green",
        "ok": "green",
        "running": "cyan",
        "starting": "cyan",
        "failed": "red",
        "broken": "red",
        "damaged": "red",
        "lost": "red",
        "stopping": "yellow",
        "cancelled": "yellow",
        "torn": "yellow",
    }
)
# In this order first; other metrics follow as they come.
_FIRST_METRICS = ("loss", "eval_loss", "exact_match")
_NEVER_FOLDED = ("run", "id", "state", "done", "age", "took", "files", "size")
_GAP = 2
"""Between two columns of a table."""
_NOT_SHOWN = frozenset({"at", "step", "total_steps", "epoch", "phase", "eta_seconds"})


def print_json(value: Any) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal that is wide enough; else aligned columns without any frame, and nothing cut off."""
    rows = [[_one_line(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and _print_rich_table(columns, rows):
        return
    lines = [[name.upper() for name in columns], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    for line in lines:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _print_rich_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
    """Whether there was room for it: what rich has no room for, it drops without a sign."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if _least_width(columns, rows) > console.width:
        return False
    # Without a frame: an id, a state and six more facts of a run fit into 80 columns.
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        # An id that is cut off is of no use to the next command.
        table.add_column(column, no_wrap=column in _NEVER_FOLDED, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    console.print(table)
    return True


def _least_width(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Of a table whose folded columns are as narrow as their names."""
    from rich.cells import cell_len

    gaps = _GAP * (len(columns) - 1)
    return gaps + sum(
        max(map(cell_len, (name, *(row[place] for row in rows)))) if name in _NEVER_FOLDED else cell_len(name)
        for place, name in enumerate(columns)
    )


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values below each other; what is missing is left out."""
    shown = {name: text for name, value in facts.items() if (text := _shown(value))}
    width = max((len(name) for name in shown), default=0)
    for name, text in shown.items():
        label = click.style(name.ljust(width), dim=True)
        value = click.style(text, fg=_STYLES[text]) if text in _STYLES else text
        click.echo(f"{label}  {value.replace(chr(10), chr(10) + ' ' * (width + 2))}")


def fault_text(fault: Mapping[str, Any] | None) -> str:
    """What failed, where, and how to fix it."""
    return str(msgspec.convert(fault, Fault)) if fault else ""


def event_line(kind: str, fields: Mapping[str, Any]) -> str:
    """One event of the line format, or one log line, in words."""
    match kind:
        case "log":
            return printable(click.unstyle(str(fields["line"]).rstrip("\r").rpartition("\r")[2]))
        case "metrics" | "progress":
            phase = ": ".join(filter(None, (phase_text(fields.get("phase")), part_text(fields.get("part")))))
            said = (phase, step_text(fields), metrics_text(fields))
            return "  ".join(part for part in said if part)
        case "checkpoint":
            return printable(f"checkpoint at step {fields.get('step', '?')}: {fields.get('path')}")
        case "artifact":
            return printable(f"{fields.get('kind', 'artifact')}: {fields.get('path')}")
        case "result":
            numbers = fields.get("metrics")
            parts = ["result", metrics_text(numbers if isinstance(numbers, dict) else {})]
            parts += [f"model {fields['model']}"] if fields.get("model") else []
            return printable("  ".join(part for part in parts if part))
        case _:
            fault = Fault(message=str(fields.get("text", "")), where=_text(fields, "where"), mend=_text(fields, "mend"))
            return printable(f"{fields.get('level', 'info')}: {fault}", lines=True)


def phase_text(phase: object) -> str:
    """``loading_model`` as people write it."""
    return printable(phase.replace("_", " ")) if isinstance(phase, str) else ""


def part_text(part: object) -> str:
    """What of its phase a process is at, if it told that."""
    return printable(part) if isinstance(part, str) else ""


def step_text(fields: Mapping[str, Any]) -> str:
    """``step 20/200`` as far as it is known."""
    step, total = fields.get("step"), fields.get("total_steps")
    if step is None:
        return ""
    return f"step {step}/{total}" if total else f"step {step}"


def metrics_text(fields: Mapping[str, Any]) -> str:
    """The numbers with their names, the ones that people look for first."""
    names = [name for name in _FIRST_METRICS if name in fields]
    names += [name for name in fields if name not in _FIRST_METRICS and name not in _NOT_SHOWN]
    return "  ".join(
        f"{printable(name)} {number_text(fields[name])}"
        for name in names
        if isinstance(fields[name], int | float | None)
    )


def number_text(value: float | None) -> str:
    """Four significant digits; whole numbers whole."""
    if value is None:
        return "nan"  # the line format has no other way to say it
    return str(int(value)) if abs(value) < 1e15 and value == int(value) else f"{value:.4g}"


def duration_text(seconds: float | None) -> str:
    """``1:04:09`` or ``0:35``."""
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def age_text(iso: str) -> str:
    """How long ago that was, in its largest unit: ``45s``, ``12m``, ``3h``, ``20d``."""
    then = datetime.fromisoformat(iso)
    seconds = max(0, round((datetime.now(then.tzinfo) - then).total_seconds()))
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def took_text(run: Mapping[str, Any]) -> str:
    """How long a run took, or has taken so far."""
    if not run.get("started_at"):
        return ""
    started = datetime.fromisoformat(run["started_at"])
    finished = datetime.fromisoformat(run["finished_at"]) if run.get("finished_at") else datetime.now(started.tzinfo)
    return duration_text((finished - started).total_seconds())


def bytes_text(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit in ("B", "kB") else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("the last unit always fits")


def _text(fields: Mapping[str, Any], name: str) -> str | None:
    value = fields.get(name)
    return value if isinstance(value, str) and value else None


def _shown(value: object) -> str:
    if value is None or value in ("", [], {}, ()):
        return ""
    if isinstance(value, list | tuple):
        return "\n".join(printable(str(item)) for item in value)
    return printable(str(value), lines=True)


def _one_line(cell: object) -> str:
    return " ".join(_shown(cell).split())
