"""What stops a worker, said so that a person can mend it, and the one place where any exception becomes such words.

    WorkerFault               what failed, where, how to fix it
    ├── BadConfig             the config names something that does not fit
    ├── BadRows               the data cannot be used
    ├── ModelUnavailable      the model is missing, incomplete, or the hub cannot be reached
    ├── PackageMissing        an extra of the package is not installed
    ├── Diverged              training produced numbers that are not finite
    ├── Inexact               what was exported does not compute what the model computes
    ├── OutOfSpace            the disk is full
    └── Unexpected            none of these: most likely a bug

No exception of a library reaches a person bare: ``explain`` translates the ones that have a known mend.
"""

from __future__ import annotations

import atexit
import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from tunesmith.contract.calls import OUT_OF_SPACE, PACKAGE_MISSING, UNEXPECTED
from tunesmith_workers.process.events import emit

STOPPED = 128 + 15
"""Exit code after SIGTERM, as a shell would report it."""

MOST_LISTED = 20
"""More faults than this are counted, not listed."""


class WorkerFault(Exception):
    """Base of everything a worker refuses. Carries what failed, where, and how to fix it."""

    def __init__(self, text: str, *, where: str | None = None, mend: str | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.where = where
        self.mend = mend


class BadConfig(WorkerFault):
    """The config cannot be used as it is."""


class BadRows(WorkerFault):
    """The data cannot be used as it is."""


class ModelUnavailable(WorkerFault):
    """There is no usable model behind the name."""


class PackageMissing(WorkerFault):
    """A Python package that this work needs is not installed."""


class Diverged(WorkerFault):
    """The loss or a gradient is not finite."""


class Inexact(WorkerFault):
    """Something was exported that does not compute what the model computes."""


class OutOfSpace(WorkerFault):
    """There is no room to write."""


class Unexpected(WorkerFault):
    """Nobody has thought of this."""


_CAUSES: Mapping[type[WorkerFault], str] = MappingProxyType(
    {OutOfSpace: OUT_OF_SPACE, PackageMissing: PACKAGE_MISSING, Unexpected: UNEXPECTED}
)
"""What the caller of a worker must tell apart from a request that makes no sense."""


def reporting(main: Callable[[], None]) -> int:
    """Run ``main``; tell what stopped it, with the traceback before it in the log. The exit code is returned."""
    try:
        main()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else 1
    except WorkerFault as fault:
        if fault.__cause__ is not None:
            traceback.print_exc()
        _tell(fault)
        return 1
    except Exception as error:  # noqa: BLE001  # the outermost edge of the process: whatever it is, it is told
        traceback.print_exc()
        _tell(explain(error))
        return 1
    return 0


def explain(error: BaseException) -> WorkerFault:
    """The fault that an exception of a library stands for."""
    for cause in _chain(error):
        if isinstance(cause, WorkerFault):
            return cause
        if is_out_of_memory(cause):
            return WorkerFault(
                f"out of memory: {_first_line(cause)}",
                where="training.per_device_train_batch_size",
                mend="halve it and double training.gradient_accumulation_steps, lower data.max_length, or set "
                "training.gradient_checkpointing to true",
            )
        if _is_disk_full(cause):
            return OutOfSpace(
                f"the disk is full: {_first_line(cause)}",
                where=_filename(cause),
                mend="free some space, or lower checkpoint.save_total_limit; complete checkpoints are unharmed",
            )
    return Unexpected(
        f"{type(error).__name__}: {_first_line(error)}",
        where=_last_place(error),
        mend="the traceback stands above this line in the run's log",
    )


def listed(faults: list[str]) -> str:
    """Faults as one text, the first ones in full and the rest as a number."""
    shown = faults[:MOST_LISTED]
    more = [f"and {len(faults) - len(shown)} more"] if len(faults) > len(shown) else []
    return "\n".join(f"  - {line}" for line in shown + more)


def error_of(fault: WorkerFault) -> dict[str, Any]:
    """The fields of the ``message`` event that tells of it. A fault that stands for several has them as ``faults``."""
    cause = next((cause for kind, cause in _CAUSES.items() if isinstance(fault, kind)), None)
    faults = msgspec.to_builtins(getattr(fault, "faults", ())) or None
    words = {"level": "error", "text": fault.text, "where": fault.where, "mend": fault.mend, "cause": cause}
    return {**words, "faults": faults}


def _tell(fault: WorkerFault) -> None:
    emit("message", **error_of(fault))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def is_out_of_memory(error: BaseException) -> bool:
    # torch names its class, but on a CPU it raises a bare RuntimeError; importing torch here would slow every error.
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
    )


def _is_disk_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    text = str(error)
    # safetensors and torch's zip writer report the system's error as text.
    return any(
        sign in text
        for sign in ("No space left on device", "File too large", "Disk quota exceeded", "PytorchStreamWriter failed")
    )


def _filename(error: BaseException) -> str | None:
    name = getattr(error, "filename", None)
    return str(name) if name else None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or "no further words"


def _last_place(error: BaseException) -> str | None:
    frames = traceback.extract_tb(error.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None


def run_and_exit(main: Callable[[], None]) -> None:
    """End this process with what ``main`` came to.

    What must happen at the exit happens; then the interpreter is not taken apart, which takes seconds with torch in it.
    """
    code = reporting(main)
    if _is_in_group():
        sys.exit(code)
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001  # what the interpreter itself does first
        atexit._run_exitfuncs()  # noqa: SLF001  # and then
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: BLE001  # the interpreter tells of it
        sys.exit(code)
    os._exit(code)


def _is_in_group() -> bool:
    """Whether other processes train with this one, whose connections torch ends."""
    distributed = sys.modules.get("torch.distributed")
    return distributed is not None and distributed.is_available() and bool(distributed.is_initialized())
