#!/usr/bin/env bash
# Starts full fine-tuning: run.sh <config.yaml>. One process for each GPU in CUDA_VISIBLE_DEVICES; without any, one on the CPU.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
python="${TUNESMITH_PYTHON:-python}"
# Set by the service. By hand it may be unset, which means: all GPUs of this machine.
if [[ -z "${CUDA_VISIBLE_DEVICES+set}" ]] && command -v nvidia-smi >/dev/null; then
  CUDA_VISIBLE_DEVICES="$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, - || true)"
  export CUDA_VISIBLE_DEVICES
fi
commas="${CUDA_VISIBLE_DEVICES-}"
commas="${commas//[^,]/}"
processes=$((${#commas} + 1))

if ((processes > 1)); then
  exec "$python" -m accelerate.commands.launch --multi_gpu --num_machines 1 --num_processes "$processes" \
    --mixed_precision no --dynamo_backend no --main_process_port 0 \
    -m tunesmith_workers.programs.sft "$1" "$here/recipe.yaml"
fi
exec "$python" -m tunesmith_workers.programs.sft "$1" "$here/recipe.yaml"
