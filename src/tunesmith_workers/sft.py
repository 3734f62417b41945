"""The name that recipes copied from an earlier version start; the program is ``programs.sft``."""

from __future__ import annotations

from tunesmith_workers.process.faults import run_and_exit
from tunesmith_workers.programs.sft import main

if __name__ == "__main__":
    run_and_exit(main)
