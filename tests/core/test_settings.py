"""Settings: file, then variables, then flags; every fault at once, and none is a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.errors import SettingsInvalid
from tunesmith.settings import DESCRIPTIONS, Settings, load


def faults_of(**given) -> str:
    with pytest.raises(SettingsInvalid) as refused:
        load(**{"environ": {}, **given})
    return str(refused.value)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "tunesmith.yaml"


def test_later_sources_win_and_say_so(config):
    """File, then variables, then flags; `tunesmith settings` can tell where each value came from."""
    config.write_text("port: 1\nmax_cpu_runs: 2\nlog_format: json\n")
    environ = {"TUNESMITH_PORT": "3", "TUNESMITH_MAX_CPU_RUNS": "4"}
    settings, sources = load(config=config, environ=environ, flags={"port": 5, "host": None})
    assert (settings.port, settings.max_cpu_runs, settings.log_format, settings.host) == (5, 4, "json", "127.0.0.1")
    origins = {source.name: source.origin for source in sources}
    assert origins["port"] == "--port"
    assert origins["max_cpu_runs"] == "TUNESMITH_MAX_CPU_RUNS"
    assert origins["log_format"] == str(config)
    assert origins["host"] == "default"


def test_every_setting_is_described():
    """`tunesmith settings` has a sentence for each."""
    assert set(DESCRIPTIONS) == set(Settings.__struct_fields__)


def test_all_faults_are_told_at_once(config):
    """Wrong names with the nearest right one, and wrong values with where they came from."""
    config.write_text("prot: 8000\nmax_cpu_runs: many\nlog_format: xml\nallowed_roots: 7\n")
    told = faults_of(config=config, environ={"TUNESMITH_STOP_GRACE_SECONDS": "soon"})
    for part in ("did you mean port?", "max_cpu_runs (from", "log_format", "TUNESMITH_STOP_GRACE_SECONDS", "allowed"):
        assert part in told


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("port", "http"),
        ("max_cpu_runs", "-1"),
        ("stop_grace_seconds", "-0.5"),
        ("stop_grace_seconds", "nan"),
        ("start_deadline_seconds", "inf"),
        ("max_upload_bytes", "-1"),
        ("allow_private_urls", "perhaps"),
        ("aliases", "small"),
        ("aliases", "small="),
        ("webhook_url", "example.org/hook"),
        ("webhook_url", "https:///hook"),
        ("webhook_url", "https://user:secret@example.org/hook"),
        ("webhook_url", "https://[example.org/hook"),
    ],
)
def test_values_that_cannot_work_are_refused(name, value):
    """Rather than failing later, or meaning something else."""
    told = faults_of(environ={f"TUNESMITH_{name.upper()}": value})
    assert f"{name} (from TUNESMITH_{name.upper()})" in told


def test_lists_and_aliases_in_variables():
    """Several values are separated by colons."""
    environ = {"TUNESMITH_ALLOWED_ROOTS": "/data:/models", "TUNESMITH_ALIASES": "small=a/b:mine=/models/x"}
    settings, _ = load(environ=environ)
    assert settings.roots == (Path("/data"), Path("/models"))
    assert settings.aliases == {"small": "a/b", "mine": "/models/x"}


def test_variables_of_runs_are_no_settings():
    """TUNESMITH_RUN_ID and the like reach processes started by a run; they are not mistaken for settings."""
    settings, _ = load(environ={"TUNESMITH_RUN_ID": "run_x", "TUNESMITH_PYTHON": "python", "HOME": "/"})
    assert settings == Settings()


@pytest.mark.parametrize("content", ["- a\n- b\n", "port: [1\n", "port: 1\nport: 2\n", "just text\n"])
def test_a_file_that_is_no_mapping_is_refused(config, content):
    """With the file's name, and the line where there is one."""
    config.write_text(content)
    assert str(config) in faults_of(config=config)


def test_a_missing_or_unreadable_file_is_refused(tmp_path):
    """A file that was named must be there and be a file."""
    assert "nothing.yaml" in faults_of(config=tmp_path / "nothing.yaml")
    assert str(tmp_path) in faults_of(config=tmp_path)


def test_an_empty_file_changes_nothing(config):
    """All lines commented out is a valid file."""
    config.write_text("# port: 1\n")
    assert load(config=config, environ={})[0] == Settings()


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("", False)],
)
def test_only_loopback_needs_no_key(host, loopback):
    """An empty host listens everywhere, so it counts as open."""
    assert Settings(host=host).is_loopback is loopback
