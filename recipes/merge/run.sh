#!/usr/bin/env bash
# Merges an adapter into its base: run.sh <config.yaml>. One process, on the first GPU in CUDA_VISIBLE_DEVICES or on the CPU.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../_shared/launch.sh"
launch merge "$1" "$here/recipe.yaml"
