#!/usr/bin/env bash
# Exports a model to ONNX: run.sh <config.yaml>. One process, on the CPU.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../_shared/launch.sh"
launch export_onnx "$1" "$here/recipe.yaml"
