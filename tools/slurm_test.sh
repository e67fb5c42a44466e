#!/usr/bin/env bash
# Test under slurm, one task a GPU.
# Usage: [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS="..."]
#        slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [test.py options]
set -euo pipefail
. "$(dirname "$0")/slurm.sh"

usage_unless 4 'PARTITION JOB_NAME CONFIG CHECKPOINT [options of test.py]' "$@"
run_slurm "$1" "$2" test.py "$3" "$4" "${@:5}"
