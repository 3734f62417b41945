"""``FinetuneAPI``: POST /finetune for a training function of one's own. The whole service comes with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tunesmith.errors import InvalidInput
from tunesmith.finetune import RECIPES_FOLDER, FunctionDoor, name_faults, refer_to
from tunesmith.settings import load


class FinetuneAPI:
    """Serves one function.

    Args:
        model_name: the folder below ``finetuned`` that gets what is trained.
        run_finetune_func: defined with ``def`` at the top level of a file; docs/finetune.md says what it is called with.
        model_path: handed to the function as it is.
        finetune_data_dir: where the service keeps everything.

    Raises:
        InvalidInput: another process could not load the function.
    """

    def __init__(
        self,
        model_name: str,
        run_finetune_func: Callable[..., Any],
        model_path: str | Path,
        finetune_data_dir: str | Path,
    ) -> None:
        faults = name_faults(model_name, "model_name")
        if faults:
            raise InvalidInput(f"{model_name!r} {faults[0].message}", where="model_name", mend=faults[0].mend)
        self._door = FunctionDoor(
            model_name=model_name,
            model_path=str(model_path),
            function=refer_to(run_finetune_func),
        )
        self._folder = Path(finetune_data_dir).expanduser().resolve()

    def start(self, port: int = 8001, host: str = "127.0.0.1") -> None:
        """Serve until SIGTERM or SIGINT. All other settings are read as `tunesmith serve` reads them.

        Raises:
            StateFolderUnusable, StateFolderIncomplete, JournalDamaged, SettingsInvalid: it cannot start.
        """
        # Here, not earlier: whoever only defines a function need not load a server.
        from tunesmith.server.serve import serve  # noqa: PLC0415

        settings, _ = load(
            flags={
                "host": host,
                "port": port,
                "state_dir": self._folder / "state",
                "finetuned_dir": self._folder / "finetuned",
                "recipes_dir": RECIPES_FOLDER,
            }
        )
        if not settings.allowed_roots:
            settings = msgspec.structs.replace(settings, allowed_roots=(self._folder, Path.cwd()))
        serve(settings, self._door)
