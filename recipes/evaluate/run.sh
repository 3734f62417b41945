#!/usr/bin/env bash
# Scores a model on rows: run.sh <config.yaml>. One process, on the first GPU in CUDA_VISIBLE_DEVICES or on the CPU.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../_shared/launch.sh"
launch evaluate "$1" "$here/recipe.yaml"
