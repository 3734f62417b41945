#!/usr/bin/env bash
# Starts LoRA training: run.sh <config.yaml>. One process for each GPU in CUDA_VISIBLE_DEVICES; without any, one on the CPU.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
source "$here/../_shared/launch.sh"
launch_on_each_gpu lora "$1" "$here/recipe.yaml"
