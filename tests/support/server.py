"""A real server in a process of its own, for tests: started, killed, started again. Talks to it over real HTTP only.

Nothing here asserts what the server does; it only fails when the server does not come up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import yaml

from tunesmith.server.state_lock import holder

FINAL_STATES = frozenset({"succeeded", "failed", "cancelled", "lost"})
_HEALTHY_SECONDS = 60.0
_STOP_SECONDS = 60.0
_POLL_SECONDS = 0.02


class ServerProcess:
    """``tunesmith serve`` on a state folder. As a context manager it cancels what still runs and stops."""

    def __init__(
        self,
        state_dir: Path,
        recipes_dir: Path,
        env: Mapping[str, str] | None = None,
        *,
        port: int = 0,
        flags: Sequence[str] = (),
    ) -> None:
        self.state_dir = state_dir
        self.recipes_dir = recipes_dir
        self.log = state_dir.with_name(f"{state_dir.name}.server.log")
        self.url = ""
        self._env = dict(env or {})
        self._port = port
        self._flags = tuple(flags)
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        state_dir: Path,
        recipes_dir: Path,
        env: Mapping[str, str] | None = None,
        *,
        port: int = 0,
        flags: Sequence[str] = (),
    ) -> Self:
        """A server that answers; ``env`` is added to an environment without TUNESMITH_ variables."""
        server = cls(state_dir, recipes_dir, env, port=port, flags=flags)
        server.up()
        return server

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was not started"
        return self._process.pid

    @property
    def output(self) -> str:
        """What all servers of this object have printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def up(self) -> None:
        """Start, and wait until it is healthy. Once it had a port, it comes back on the same one."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.state_dir.parent,
                env=clean_environment(self._env),
            )
        self._wait_until_healthy()
        self._port = int(self.url.rpartition(":")[2])

    def _command(self) -> list[str]:
        command = [sys.executable, "-m", "tunesmith", "serve", "--port", str(self._port)]
        return [*command, "--state-dir", str(self.state_dir), "--recipes-dir", str(self.recipes_dir), *self._flags]

    def kill9(self) -> None:
        """End it as a power cut would; runs go on."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Ask it to stop, and answer its exit code; runs go on."""
        return self._end(signal.SIGTERM)

    def wait(self) -> int:
        """Its exit code, once it has ended by itself."""
        assert self._process is not None, "the server was not started"
        return self._process.wait(_STOP_SECONDS)

    def client(self, **options: Any) -> httpx.Client:
        """A client of this server that trusts no proxy variable."""
        return httpx.Client(base_url=self.url, timeout=100.0, trust_env=False, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(httpx.HTTPError), self.client() as client:
            for run in client.get("/v1/runs", params={"limit": 1000}).json().get("runs", []):
                if run["status"] not in FINAL_STATES:
                    client.post(f"/v1/runs/{run['run_id']}/cancel")
        self.stop()

    def _end(self, how: signal.Signals) -> int:
        assert self._process is not None, "the server was not started"
        self._process.send_signal(how)
        try:
            return self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise AssertionError(f"the server did not end within {_STOP_SECONDS} s:\n{self.output}") from None

    def _wait_until_healthy(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _HEALTHY_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            held_by = holder(self.state_dir / "lock")
            if held_by is not None and held_by.pid == self.pid and held_by.address:
                with contextlib.suppress(httpx.HTTPError):
                    if httpx.get(f"{held_by.address}/healthz", trust_env=False).status_code == 200:
                        self.url = held_by.address
                        return
            time.sleep(_POLL_SECONDS)
        self._process.kill()
        self._process.wait()
        raise AssertionError(f"the server did not come up:\n{self.output}")


def write_recipe(
    recipes_dir: Path,
    name: str,
    script: str,
    config: Mapping[str, Any] | None = None,
    **keys: Any,
) -> Path:
    """A valid recipe folder around a bash snippet (``$1`` is the config's path). ``keys`` go into recipe.yaml as they are.

    Without ``data=[...]`` it needs neither data nor a model.
    """
    folder = recipes_dir / name
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "name": name,
        "kind": "train",
        "summary": f"{name}, for the tests",
        "data": [],
        "resources": {"gpus": 0, "cpu": True},
        "config": dict(config or {"training": {"max_steps": 1}}),
        **keys,
    }
    about = f"# For the tests. By hand: bash {name}/run.sh config.yaml\n"
    (folder / "recipe.yaml").write_text(about + yaml.safe_dump(content, sort_keys=False))
    opening = "#!/usr/bin/env bash\n# For the tests.\nset -euo pipefail\n"
    (folder / "run.sh").write_text(opening + textwrap.dedent(script).strip() + "\n")
    return folder


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment without TUNESMITH_ variables of whoever runs the tests, and with ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("TUNESMITH_")}
    return {**kept, **(more or {})}


def start_run(client: httpx.Client, recipe: str, **request: Any) -> str:
    """Create an experiment with one run of ``recipe``; answers the run's id."""
    experiment = client.post("/v1/experiments", json={"name": recipe, "task_type": "sft"}).raise_for_status().json()
    answer = client.post(f"/v1/experiments/{experiment['id']}/runs", json={"recipe": recipe, **request})
    assert answer.status_code == 201, answer.text
    run_id: str = answer.json()["run_id"]
    return run_id


def wait_for_run(
    client: httpx.Client,
    run_id: str,
    until: Callable[[dict[str, Any]], bool] = lambda run: run["status"] in FINAL_STATES,
    seconds: float = 60.0,
) -> dict[str, Any]:
    """The run once it is as wanted (by default: over)."""
    for run in polled(lambda: client.get(f"/v1/runs/{run_id}").raise_for_status().json(), seconds):
        if until(run):
            return run
    raise AssertionError(f"after {seconds} s the run is still {run}")


def polled(look: Callable[[], Any], seconds: float = 60.0) -> Iterator[Any]:
    """Looks again and again until the deadline has passed."""
    deadline = time.monotonic() + seconds
    while True:
        yield look()
        if time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)
