# What the shipped recipes share: how their run.sh starts a program of ours. Sourced, never started; see docs/recipes.md.
# Who copies a recipe to another recipes folder takes this file along, or writes a run.sh that needs none.

python="${TUNESMITH_PYTHON:-python}"

# The module behind a program's name.
module_of() {
  echo "tunesmith_workers.programs.$1"
}

# launch PROGRAM CONFIG RECIPE: one process, which takes the place of the shell.
launch() {
  exec "$python" -m "$(module_of "$1")" "$2" "$3"
}

# launch_on_each_gpu PROGRAM CONFIG RECIPE: one process for each GPU in CUDA_VISIBLE_DEVICES; without any, one on the CPU.
launch_on_each_gpu() {
  # Set by the service. By hand it may be unset, which means: all GPUs of this machine.
  if [[ -z "${CUDA_VISIBLE_DEVICES+set}" ]] && command -v nvidia-smi >/dev/null; then
    CUDA_VISIBLE_DEVICES="$(nvidia-smi --query-gpu=index --format=csv,noheader 2>/dev/null | paste -sd, - || true)"
    export CUDA_VISIBLE_DEVICES
  fi
  local commas="${CUDA_VISIBLE_DEVICES-}"
  commas="${commas//[^,]/}"
  local processes=$((${#commas} + 1))
  if ((processes > 1)); then
    exec "$python" -m accelerate.commands.launch --multi_gpu --num_machines 1 --num_processes "$processes" \
      --mixed_precision no --dynamo_backend no --main_process_port 0 \
      -m "$(module_of "$1")" "$2" "$3"
  fi
  launch "$@"
}
