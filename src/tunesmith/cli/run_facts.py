"""How one run is printed, whichever command shows it."""

from __future__ import annotations

from typing import Any

from tunesmith.cli.render import fault_text, metrics_text, print_facts, took_text


def print_run(run: dict[str, Any]) -> None:
    """Everything worth knowing about a run, and where its files are."""
    step = run["current_step"]
    print_facts(
        {
            "run": run["run_id"],
            "state": run["status"],
            "recipe": run["recipe"],
            "experiment": run["experiment_id"],
            "model": run["model"],
            "dataset": (run["dataset"] or {}).get("path"),
            "progress": done_text(run) + (f" (step {step}/{run['total_steps'] or '?'})" if step else ""),
            "metrics": metrics_text(run["metrics"]),
            "took": took_text(run),
            "created": _time(run["created_at"]),
            "error": fault_text(run["error"]),
            "warnings": run["warnings"],
            "notes": run["notes"],
            "result": run["output_path"],
            "checkpoint": run["ckpt_path"],
            "files": run["run_dir"],
            "command": run["start_command"],
        }
    )


def done_text(run: dict[str, Any]) -> str:
    return f"{run['progress']:.0%}"


def _time(iso: str) -> str:
    """To the second, in UTC as everywhere."""
    return iso[:19].replace("T", " ")
