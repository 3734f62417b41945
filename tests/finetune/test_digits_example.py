"""The example as its README says: served, asked, told, and good at reading digits."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.server import ServerProcess, clean_environment

EXAMPLE = Path(__file__).parents[2] / "examples/digits"
pytestmark = [pytest.mark.training, pytest.mark.timeout(400)]


class Digits(ServerProcess):
    """The example's own script."""

    def _command(self) -> list[str]:
        script = EXAMPLE / "finetune_digits.py"
        return [sys.executable, str(script), "--data", str(self.state_dir.parent), "--port", str(self._port)]


def test_it_reaches_95_percent(tmp_path):
    """Callbacks at epochs 5, 10, 15 and 20, the last one with at least 0.95 test accuracy and the model's folder.

    On an idle machine that is a matter of seconds.
    """
    pytest.importorskip("sklearn")
    pytest.importorskip("torch")
    rows = tmp_path / "rows"
    subprocess.run([sys.executable, EXAMPLE / "write_rows.py", rows], check=True, timeout=100, env=clean_environment())
    with Digits.start(tmp_path / "state", tmp_path, {"TUNESMITH_ALLOW_PRIVATE_URLS": "true"}) as server:
        done = subprocess.run(
            [sys.executable, EXAMPLE / "receiver.py", rows, "--service", server.url],
            capture_output=True,
            text=True,
            env=clean_environment(),
            timeout=300,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    told = re.findall(r"epoch (\d+): loss [\d.]+, test accuracy ([\d.]+)", done.stdout)
    assert [int(epoch) for epoch, _ in told] == [5, 10, 15, 20]
    assert float(told[-1][1]) >= 0.95
    (model,) = re.findall(r"model: (.*)", done.stdout)
    assert (Path(model) / "best_model_epoch.pth").stat().st_size > 1000
    assert "epoch 20: loss" in (Path(model).parent / "finetune.log").read_text()
