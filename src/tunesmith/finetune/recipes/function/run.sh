#!/usr/bin/env bash
# Runs the function that a config names: run.sh <config.yaml>. One process; what it does with GPUs is its own affair.
set -euo pipefail

exec "${TUNESMITH_PYTHON:-python}" -m tunesmith.finetune.worker "$1"
