"""Functions of one's own: which can be served, what they are called with, and what they may answer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.server import clean_environment
from tunesmith import FinetuneAPI
from tunesmith.errors import InvalidInput, MissingReference
from tunesmith.finetune.function import FunctionReference, call, load, refer_to
from tunesmith.finetune.job import Data, Job, Model, Training
from tunesmith.finetune.results import Results

OFFERED = {"train_dataset_path": "a", "param_dict": {}, "report": print}
FIGURE = {"x_axis": [1], "x_label": "step", "losses": [0.5]}


def job_of(folder: Path, every: int = 1, measurement="step") -> Job:
    training = Training(
        file=str(folder / "own.py"),
        module="own",
        function="train",
        show_frequency=every,
        measurement=measurement,
        total_epoch_number=9,
        param_dict={},
    )
    data = Data(train="rows", valid="rows", test="rows", max_download_bytes=0, allow_private_urls=False)
    paths = Model(path="base", output_path=str(folder / "out/model_files"), log_path=str(folder / "out/finetune.log"))
    return Job(model=paths, data=data, training=training)


class Told(list):
    """Remembers the results that were told, as they are in their files."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __call__(self, event, /, **fields) -> None:
        if event == "result":
            self.append(msgspec.json.decode((self._folder / fields["finetune"]).read_bytes()))


@settings(deadline=None, max_examples=50)
@given(every=st.integers(1, 7), steps=st.lists(st.integers(1, 5), min_size=1, max_size=12), marks=st.booleans())
def test_due_results_and_the_last_are_told(tmp_path_factory, every, steps, marks):
    """The first result at or beyond each multiple, and the last, which alone is final, marked by the function or not."""
    folder = tmp_path_factory.mktemp("results")
    told = Told(folder)
    results = Results(job_of(folder, every), folder, told)
    places = [sum(steps[: n + 1]) for n in range(len(steps))]
    for idx in places:
        results.take({"idx": idx, "is_final": marks and idx == places[-1], "fig_param": FIGURE})
    results.finish()
    assert [one["is_final"] for one in told] == [False] * (len(told) - 1) + [True]
    assert told[-1]["idx"] == places[-1]
    due = [now for before, now in zip([0, *places], places, strict=False) if now // every > before // every]
    not_final = [one["idx"] for one in told[:-1]]
    assert not_final == (due if not marks else [idx for idx in due if idx != places[-1]])


def test_results_come_in_order(tmp_path):
    """A step that was told already, and anything after the final one, is a mistake of the function."""
    results = Results(job_of(tmp_path), tmp_path, Told(tmp_path))
    results.take({"idx": 2, "fig_param": FIGURE})
    with pytest.raises(InvalidInput, match="result 2 came after result 2"):
        results.take({"idx": 2, "fig_param": FIGURE})
    results.take({"idx": 2, "is_final": True, "fig_param": FIGURE})
    with pytest.raises(InvalidInput, match="after the final one"):
        results.take({"idx": 3, "fig_param": FIGURE})


def test_numbers_of_other_libraries_are_numbers(tmp_path):
    """Whatever has `tolist`, as arrays, tensors and their scalars do; NaN is told as null."""

    class Array:
        def __init__(self, value) -> None:
            self.value = value

        def tolist(self):
            return self.value

    told = Told(tmp_path)
    results = Results(job_of(tmp_path), tmp_path, told)
    figure = {"x_axis": Array([1, 2]), "x_label": "step", "losses": [Array(0.5), float("nan")]}
    results.take({"idx": Array(2), "fig_param": figure, "test_accuracy": Array(0.25)})
    (result,) = told
    assert (result["idx"], result["test_accuracy"]) == (2, 0.25)
    assert result["fig_param"]["losses"] == [0.5, None]
    assert result["output_model_path"] == str(tmp_path / "out/model_files")


def test_a_huge_result_is_refused(tmp_path):
    """It says what to do about it, instead of failing on the way to the receiver."""
    many = 200_000
    figure = {"x_axis": list(range(many)), "x_label": "step", "losses": [0.5] * many}
    with pytest.raises(InvalidInput, match="draw fewer points"):
        Results(job_of(tmp_path), tmp_path, Told(tmp_path)).take({"idx": 1, "fig_param": figure})


def test_only_what_the_signature_names_is_given():
    """By name; all of it with `**kwargs`; what has a default may be anything; the rest is refused before the call."""
    assert call(lambda train_dataset_path: train_dataset_path, OFFERED) == "a"
    assert call(lambda **everything: everything, OFFERED) == OFFERED
    assert call(lambda param_dict, seed=7: (param_dict, seed), OFFERED) == ({}, 7)
    with pytest.raises(InvalidInput, match="it wants seed, which nobody gives it"):
        call(lambda param_dict, seed: (param_dict, seed), OFFERED)


def test_a_function_must_be_loadable_by_another_process(tmp_path):
    """No lambdas, no inner functions, no objects; and the model's name becomes a folder."""

    def inner() -> None:
        """Cannot be found by name."""

    for bad in (inner, lambda: None, print, Told):
        with pytest.raises(InvalidInput, match="cannot be loaded by another process"):
            FinetuneAPI("digits", bad, "base", tmp_path)
    with pytest.raises(InvalidInput, match="cannot be a folder's name"):
        FinetuneAPI("../up", job_of, "base", tmp_path)
    assert refer_to(job_of) == FunctionReference(file=__file__, module="test_functions", name="job_of")


def test_a_function_in_a_package_keeps_its_relative_imports(tmp_path):
    """The module is imported by its dotted name, from the folder above its outermost package."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "numbers.py").write_text("seven = 7\n")
    (package / "train.py").write_text(
        "from .numbers import seven\nclass T:\n    @staticmethod\n    def f(): return seven\n"
    )
    before = list(sys.path)
    reference = FunctionReference(file=str(package / "train.py"), module="own_package.train", name="T.f")
    assert load(reference)() == 7
    sys.path[:] = before


def test_a_function_that_is_gone_is_reported(tmp_path):
    """The file was moved, or edited, after the server had started."""
    reference = FunctionReference(file=str(tmp_path / "own_gone.py"), module="own_gone", name="train")
    with pytest.raises(MissingReference, match="is gone"):
        load(reference)
    (tmp_path / "own_gone.py").touch()
    before = list(sys.path)
    with pytest.raises(MissingReference, match="has no function train any more"):
        load(reference)
    sys.path[:] = before


REPORTS = """
import os, subprocess, sys
def train(report, param_dict, output_log_path):
    for idx in range(1, 4):
        print("half a line", end="")
        report({"idx": idx, "fig_param": {"x_axis": [idx], "x_label": "step", "losses": [idx]}})
    os.write(1, b"below Python\\n")
    subprocess.run(["echo", "from a child"], check=True)
    print("w" * 40_000, end="\\r", file=sys.stderr)
"""


def test_what_it_prints_never_spoils_an_event(tmp_path):
    """Half lines, C code, child processes, bars: all in both logs, and every event on a line of its own in one of them."""
    (tmp_path / "own.py").write_text(REPORTS)
    config = tmp_path / "config.yaml"
    config.write_bytes(msgspec.json.encode(job_of(tmp_path)))  # JSON is YAML, too
    done = subprocess.run(
        [sys.executable, "-m", "tunesmith.finetune.worker", config],
        env=clean_environment({"TUNESMITH_RUN_DIR": str(tmp_path)}),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.split(b"\n")
    events = [line for line in lines if b"tunesmith" in line]
    assert len(events) == 3 + 4
    assert all(msgspec.json.decode(line) for line in events)
    log = (tmp_path / "out/finetune.log").read_bytes()
    assert log.startswith(b"half a linehalf a linehalf a linebelow Python\nfrom a child\nwww")
    assert b"tunesmith" not in log
    assert done.stdout.count(b"half a line") == 3
    assert b"from a child\n" in done.stdout


def test_importing_the_package_stays_light():
    """No server, no HTTP: a script that serves a function pays for them when it starts to serve."""
    code = """
import sys, tunesmith
assert not {"litestar", "httpx", "msgspec", "tunesmith.finetune_api"} & set(sys.modules)
from tunesmith import FinetuneAPI
assert "litestar" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env=clean_environment())


REPORTS_FROM_THREADS = """
import sys, threading
from tunesmith.finetune.result import read_result
sys.setswitchinterval(1e-6)
begin = threading.Barrier(64)
figure = {"x_axis": [1], "x_label": "step", "losses": [0.5]}
def report():
    begin.wait()
    read_result({"idx": 1, "fig_param": figure}, measurement="step", output_model_path="", output_log_path="")
threads = [threading.Thread(target=report) for _ in range(64)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_threads_may_report_their_first_results_at_once():
    """A function that trains in threads of its own does; msgspec must not describe a result while others
    read one. Without that every fifth of these processes crashed.
    """
    for _ in range(20):
        done = subprocess.run(
            [sys.executable, "-c", REPORTS_FROM_THREADS],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
