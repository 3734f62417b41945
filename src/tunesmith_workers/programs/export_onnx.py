"""``export_onnx``: writes a model as an ONNX file. Started by recipes/export-onnx/run.sh."""

from __future__ import annotations

import importlib.util

from tunesmith_workers.process.config import OnnxConfig, read_arguments
from tunesmith_workers.process.faults import PackageMissing, run_and_exit
from tunesmith_workers.process.stopping import StopRequest

_NEEDED = ("onnx", "onnxscript", "onnxruntime")


def main() -> None:
    stop = StopRequest().listen()
    config, folders = read_arguments(OnnxConfig)
    refuse_missing(_NEEDED)
    from tunesmith_workers.export.onnx_export import export_onnx  # noqa: PLC0415  # seconds of imports, inside what reports faults

    export_onnx(config, folders, stop)


def refuse_missing(names: tuple[str, ...]) -> None:
    """Raises PackageMissing with all packages that are not installed."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise PackageMissing(
            f"an export to ONNX needs what is not installed: {', '.join(missing)}",
            mend="pip install 'tunesmith[export]'",
        )


if __name__ == "__main__":
    run_and_exit(main)
