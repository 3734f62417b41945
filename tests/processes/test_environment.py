"""Programs get of the server's environment what they need and what the operator lists; its secrets stay with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.server import ServerProcess, start_run, wait_for_run, write_recipe
from tunesmith.runner.local.environment import inherited

CANARY = "canary-of-the-server"
SECRETS = {
    "AWS_SECRET_ACCESS_KEY": CANARY,
    "DATABASE_URL": f"postgres://service:{CANARY}@db/x",
    "HF_TOKEN": CANARY,
    "HUGGING_FACE_HUB_TOKEN": CANARY,
    "WANDB_API_KEY": CANARY,
    "HTTPS_PROXY": f"http://user:{CANARY}@proxy:3128",
    "TUNESMITH_API_KEY": CANARY,
    "SOME_THING": CANARY,
}
ORDINARY = {
    "HF_HOME": "/cache/hf",
    "HF_HUB_OFFLINE": "1",
    "CUDA_HOME": "/usr/local/cuda",
    "NVIDIA_VISIBLE_DEVICES": "all",
    "LC_NUMERIC": "C.UTF-8",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "NO_PROXY": "localhost",
}
SHOWS = 'env -0 > "$TUNESMITH_OUTPUT_DIR/environment"'


def environment_of_a_run(place: Path, more: dict[str, str]) -> dict[str, str]:
    write_recipe(place / "recipes", "shows", SHOWS)
    with ServerProcess.start(place / "state", place / "recipes", more) as server, server.client() as client:
        run_id = start_run(client, "shows")
        assert wait_for_run(client, run_id)["status"] == "succeeded"
        said = (server.state_dir / "runs" / run_id / "output" / "environment").read_text()
        assert CANARY not in (server.state_dir / "runs" / run_id / "attempts/1/command.json").read_text()
    return dict(one.split("=", 1) for one in said.split("\0") if one)


def test_a_run_has_no_secret_of_the_server(tmp_path: Path) -> None:
    """Also none that a familiar name or an address hides; what a training needs is there."""
    found = environment_of_a_run(tmp_path, {**SECRETS, **ORDINARY})
    assert CANARY not in "".join(found.values())
    assert not set(SECRETS) & set(found)
    assert found.items() >= ORDINARY.items()
    assert found["TUNESMITH_RUN_ID"].startswith("run_")
    assert {"PATH", "HOME", "TUNESMITH_PYTHON", "CUDA_VISIBLE_DEVICES"} <= set(found)


def test_a_run_has_what_the_operator_lists(tmp_path: Path) -> None:
    """By name, or by how names begin."""
    more = {"TUNESMITH_RUN_ENVIRONMENT": "HF_TOKEN:WANDB_*:HTTPS_PROXY", **SECRETS}
    found = environment_of_a_run(tmp_path, more)
    listed = {"HF_TOKEN", "WANDB_API_KEY", "HTTPS_PROXY"}
    assert {name: found[name] for name in listed} == {name: SECRETS[name] for name in listed}
    assert not (set(SECRETS) - listed) & set(found)
    assert "TUNESMITH_RUN_ENVIRONMENT" not in found


@pytest.mark.parametrize("listed", [(), ("*",)])
def test_the_servers_own_variables_are_never_passed_on(listed: tuple[str, ...]) -> None:
    """Whatever is listed."""
    assert "TUNESMITH_API_KEY" not in inherited(listed, {"TUNESMITH_API_KEY": CANARY})


def test_workers_get_the_same(tmp_path: Path) -> None:
    """Programs that answer questions are started by the same rule as runs."""
    assert inherited(("SOME_THING",), {**SECRETS, **ORDINARY}) == {"SOME_THING": CANARY, **ORDINARY}
