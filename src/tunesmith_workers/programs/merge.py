"""``merge``: adds an adapter to the weights of its base. Started by recipes/merge/run.sh."""

from __future__ import annotations

from tunesmith_workers.process.config import MergeConfig, read_arguments
from tunesmith_workers.process.faults import run_and_exit
from tunesmith_workers.process.stopping import StopRequest


def main() -> None:
    stop = StopRequest().listen()
    config, folders = read_arguments(MergeConfig)
    from tunesmith_workers.export.merge import merge  # noqa: PLC0415  # seconds of imports, inside what reports faults

    merge(config, folders, stop)


if __name__ == "__main__":
    run_and_exit(main)
