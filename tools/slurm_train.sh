#!/usr/bin/env bash
# Train under slurm, one task a GPU.
# Usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS="..."]
#        slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [train.py options]
set -euo pipefail
. "$(dirname "$0")/slurm.sh"

usage_unless 4 'PARTITION JOB_NAME CONFIG WORK_DIR [options of train.py]' "$@"
run_slurm "$1" "$2" train.py "$3" --work-dir="$4" "${@:5}"
