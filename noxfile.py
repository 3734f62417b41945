"""What is run on this project, by name. Sessions use the environment that nox itself is installed in: one install serves all.

python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[all,dev]' && .venv/bin/nox
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests"]
nox.options.error_on_external_run = False

_BIN = Path(sys.executable).parent
_ENV = {"PATH": f"{_BIN}{os.pathsep}{os.environ.get('PATH', '')}"}


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, and the walls between the rooms."""
    session.run("ruff", "check", ".", env=_ENV)
    session.run("ruff", "format", "--check", ".", env=_ENV)
    session.run("lint-imports", env=_ENV)


@nox.session
def types(session: nox.Session) -> None:
    """Strict types in everything below src."""
    session.run("mypy", env=_ENV)


@nox.session
def tests(session: nox.Session) -> None:
    """The default suite, with coverage of the control plane."""
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=_ENV)
    session.run("coverage", "combine", "-q", env=_ENV)
    session.run("coverage", "report", env=_ENV)


@nox.session
def torture(session: nox.Session) -> None:
    """Slow and repetitive: every failpoint, random kills, big logs. Bounded in count and time."""
    session.run("pytest", "-m", "torture", "--timeout", "1800", *session.posargs, env=_ENV)


@nox.session
def bench(session: nox.Session) -> None:
    """Measurements beside their rivals, printed as ratios. Names of benchmarks may be given."""
    for name in session.posargs or sorted(path.stem for path in Path("benchmarks").glob("*.py")):
        session.run("python", f"benchmarks/{name}.py", env=_ENV)


@nox.session
def demo(session: nox.Session) -> None:
    """Fine-tune a real model on this machine, over HTTP, and show its scores before and after."""
    session.run("tunesmith", "demo", *session.posargs, env=_ENV)
