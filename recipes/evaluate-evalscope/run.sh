#!/usr/bin/env bash
# Has evalscope score a served model: run.sh <config.yaml>. One process of ours, and evalscope's in an environment of its own.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../_shared/launch.sh"
export EVALSCOPE_PYTHON="${EVALSCOPE_PYTHON:-$here/../../.venvs/evalscope/bin/python}"
launch evaluate_evalscope "$1" "$here/recipe.yaml"
