"""The old service with four jobs, the new home, and the command line that has the SDK."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from import_parts import (
    HAS_SDK,
    KEY,
    NO_SDK,
    OLD_MODEL,
    PYTHONS,
    UNKNOWN_MODEL,
    finished_job,
    hyperparameters,
    python_with_sdk,
    rows,
    upload,
    write_lora,
)

from support.deployed import remove_all
from support.server import ServerProcess, clean_environment
from support.tiny_model import save_tiny_model, tiny_tokenizer


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("import") / "tiny", tiny_tokenizer())


def served_with(tiny: Path, root: Path) -> dict[str, str]:
    """Names of OpenAI's stand for the tiny model, which one thread is enough for."""
    return {
        "TUNESMITH_ALIASES": f"{OLD_MODEL}={tiny}:{UNKNOWN_MODEL}={tiny}",
        "TUNESMITH_ALLOWED_ROOTS": f"{tiny.parent}:{root}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


@pytest.fixture(scope="session")
def recipes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("import-recipes")
    write_lora(folder)
    return folder


@pytest.fixture(scope="session")
def old(tmp_path_factory, recipes, tiny) -> Iterator[ServerProcess]:
    """What plays OpenAI."""
    state = tmp_path_factory.mktemp("openai") / "state"
    environment = served_with(tiny, state)
    with ServerProcess.start(state, recipes, environment) as server:
        yield server
        with server.client() as client:
            remove_all(client)


@pytest.fixture(scope="session")
def jobs(old) -> dict[str, dict]:
    """Two that succeeded, one that failed, and one whose training file was deleted."""
    with old.client() as client:
        numbers = upload(client, rows(40), "numbers.jsonl")
        some = upload(client, rows(8, "another"), "some.jsonl")
        letters = upload(client, rows(24, "letter"), "letters.jsonl")
        gone = upload(client, rows(12, "gone"), "gone.jsonl")
        found = {
            "orders": finished_job(
                client,
                training_file=numbers,
                validation_file=some,
                suffix="Orders",
                seed=7,
                metadata={"team": "sales"},
                method=hyperparameters(n_epochs=2, batch_size=12, learning_rate_multiplier=1.5),
            ),
            "plain": finished_job(client, training_file=letters, seed=11, model=UNKNOWN_MODEL),
            "failed": finished_job(client, training_file=some, method=hyperparameters(n_epochs=9)),
            "gone": finished_job(client, training_file=gone, seed=5),
        }
        assert [job["status"] for job in found.values()] == ["succeeded", "succeeded", "failed", "succeeded"]
        client.delete(f"/v1/files/{gone}").raise_for_status()
    return found


@pytest.fixture
def home(tmp_path, recipes, tiny) -> Iterator[ServerProcess]:
    """The new home, which calls OpenAI's model by an alias."""
    state = tmp_path / "state"
    environment = served_with(tiny, tmp_path)
    with ServerProcess.start(state, recipes, environment) as server:
        yield server
        with server.client() as client:
            remove_all(client)


@pytest.fixture
def command(old, home, tmp_path) -> Callable[..., list[str]]:
    """What starts a command with the SDK in reach."""
    if not (HAS_SDK or PYTHONS):
        pytest.skip(NO_SDK)

    def made(*args: object) -> list[str]:
        return [python_with_sdk()[0], "-m", "tunesmith", *map(str, args)]

    return made


@pytest.fixture
def environment(home) -> dict[str, str]:
    variables = {"TUNESMITH_URL": home.url, "OPENAI_API_KEY": KEY}
    return clean_environment({**variables, **(python_with_sdk()[1] if HAS_SDK or PYTHONS else {})})


@pytest.fixture
def importing(old, command, environment, tmp_path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Imports from the old service, to the end. Whatever it says, the key is not in it."""

    def run(*args: object, url: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command("import-openai", "--openai-base-url", url or f"{old.url}/v1", *args),
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert KEY not in done.stdout + done.stderr
        return done

    return run
