"""One check for each behaviour that the SDKs rely on, all of them whatever fails, under majors 1, 2 and 3.

Numbers in the other modules stand for: 1 retries, 2 pages, 3 names with a slash, 4 deletions, 5 validation, 6 streams.
Webhooks (7) are checked elsewhere, with `client.webhooks.unwrap`; a stream that breaks off in `broken_stream.py`.
"""

from __future__ import annotations

import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import behaviours_chat
import behaviours_errors
import behaviours_files
import behaviours_jobs
import behaviours_pages
from scene import Scene, opened
from sdk_parts import Steps, arguments, described, say

HERE = str(Path(__file__).parent)

CHECKS: tuple[Callable[[Scene], None], ...] = (
    *behaviours_errors.CHECKS,
    *behaviours_files.CHECKS,
    *behaviours_jobs.CHECKS,
    *behaviours_chat.CHECKS,
    *behaviours_pages.CHECKS,
    behaviours_files.a_deleted_model,
)


def main() -> int:
    asked = arguments(__doc__)
    steps = Steps()
    with contextlib.ExitStack() as stack:
        with steps.step("a small job that succeeds"):
            scene = stack.enter_context(opened(asked))
        failed = [check.__name__ for check in CHECKS if not kept(scene, check)]
    steps.outcome(checks=len(CHECKS), failed=failed)
    return 1 if failed else 0


def kept(scene: Scene, check: Callable[[Scene], None]) -> bool:
    """Whether one behaviour is as its docstring says; says where it is not."""
    promise = (check.__doc__ or "").strip()
    began = time.monotonic()
    try:
        check(scene)
    except Exception as error:  # noqa: BLE001 - whatever a check meets, the others are of interest, too
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(HERE)]
        where = ", ".join(f"{frame.name}:{frame.lineno}" for frame in frames[1:])
        say(f"FAIL {check.__name__}: {promise}\n     at {where}\n     {described(error)}")
        return False
    say(f"ok   {check.__name__}: {promise}  {time.monotonic() - began:.2f} s")
    return True


if __name__ == "__main__":
    sys.exit(main())
