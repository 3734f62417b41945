"""The walls: what the control plane may import, and what it must never."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

import tunesmith
from support.server import clean_environment
from tunesmith.contract import environment
from tunesmith.runner.local import shim

PACKAGE = Path(tunesmith.__file__).parent
WORKERS = PACKAGE.with_name("tunesmith_workers")
ROOT = PACKAGE.parents[1]
HEAVY = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy", "huggingface_hub", "onnxruntime")

LONGEST_FUNCTION = 40
LONGEST_MEDIAN_MODULE = 120

A_WHOLE_APPLICATION = """
import pathlib, tempfile
from tunesmith.app import open_services
from tunesmith.server.application import create_app
from tunesmith.settings import Settings
with tempfile.TemporaryDirectory() as folder:
    create_app(open_services(Settings(state_dir=pathlib.Path(folder), recipes_dir=pathlib.Path(folder))))
"""


def imported_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import tunesmith",
        "import tunesmith.app, tunesmith.server.serve",
        "import tunesmith.cli, tunesmith.cli.serve, tunesmith.cli.runs, tunesmith.cli.logs, tunesmith.cli.watch",
        "import tunesmith.testing",
        "from tunesmith import FinetuneAPI; import tunesmith.finetune.worker",
        A_WHOLE_APPLICATION,
    ],
    ids=["package", "server", "command line", "fakes", "finetuning", "a whole application"],
)
def test_the_control_plane_loads_nothing_heavy(statement):
    """It starts in well under a second, and no training library can take it down."""
    assert not imported_by(statement) & set(HEAVY)


def test_the_contract_needs_almost_nothing():
    """Workers import it, and so may anybody's training script: the standard library and msgspec."""
    statement = "import tunesmith.contract.events, tunesmith.contract.environment, tunesmith.contract.manifest, tunesmith.progress"
    third_party = imported_by(statement) - imported_by("pass") - set(sys.stdlib_module_names)
    assert third_party <= {"tunesmith", "msgspec", "typing_extensions"}  # msgspec takes the last one where it is there


def test_workers_know_only_the_contract():
    """From the control plane they import what both sides of a process agree on and nothing else."""
    for path in WORKERS.rglob("*.py"):
        for name in imports_of(path):
            if name.partition(".")[0] == "tunesmith":
                assert name == "tunesmith.contract" or name.startswith("tunesmith.contract."), f"{path}: {name}"


def test_the_shim_needs_the_standard_library_only():
    """One lives beside every run, and it must start where nothing is installed."""
    for name in imports_of(PACKAGE / "runner/local/shim.py"):
        assert name.partition(".")[0] in sys.stdlib_module_names, name


def test_the_shim_is_found_by_its_mark():
    """It stands alone, so it names the variable for itself, and servers look for it by the contract's name."""
    assert shim._OWN_MARK == environment.SHIM_OF


def test_the_contracts_hold():
    """Doors know services, services the journal, recipes and runner, those the records; nobody the other way."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    kept = re.search(r"Contracts: (\d+) kept, 0 broken", done.stdout)
    assert kept, done.stdout
    assert int(kept[1]) >= 5


def test_functions_are_short():
    """What does not fit on a page holds more than one idea."""
    long = [
        f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"
        for package in (PACKAGE, WORKERS)
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > LONGEST_FUNCTION
    ]
    assert long == []


def test_modules_are_short():
    """Half of them at least can be read in two minutes."""
    lengths = [
        len(path.read_text(encoding="utf-8").splitlines())
        for package in (PACKAGE, WORKERS)
        for path in package.rglob("*.py")
    ]
    assert statistics.median(lengths) <= LONGEST_MEDIAN_MODULE


def test_structs_are_decoded_by_decoders_made_beforehand():
    """A struct is described by msgspec when it is first decoded: two threads that do so at once can end the process."""
    known_from_the_start = {"dict", "list", "tuple", "str", "int", "float", "bool", "bytes", "Any"}
    late = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for package in (PACKAGE, WORKERS)
        for path in sorted(package.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "msgspec.json.decode"
        for given in node.keywords
        if {part.id for part in ast.walk(given.value) if isinstance(part, ast.Name)} - known_from_the_start
    ]
    assert late == []


def test_no_modules_import_each_other():
    """Not even inside functions, and neither do the packages right below tunesmith: each can be read before its callers."""
    graph = grimp.build_graph("tunesmith", "tunesmith_workers", exclude_type_checking_imports=True, cache_dir=None)
    modules = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    packages: dict[str, set[str]] = {}
    for name, imported in modules.items():
        if name.startswith("tunesmith."):
            package = package_of(name)
            packages.setdefault(package, set()).update({package_of(other) for other in imported} - {package})
    for imports in (modules, packages):
        TopologicalSorter(imports).prepare()  # raises CycleError, with the circle


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it; ``from a import b`` counts as ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= (
                {f"{node.module}.{alias.name}" for alias in node.names}
                if node.module == "tunesmith"
                else {str(node.module)}
            )
    return found
