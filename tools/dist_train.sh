#!/usr/bin/env bash
# Train with several processes on each node, on GPUs or (over gloo) on CPUs.
# Usage: [PORT=29500] dist_train.sh CONFIG GPUS [train.py options]
#        NNODES=2 NODE_RANK=0 MASTER_ADDR=host dist_train.sh ...   on each node, with its own rank
set -euo pipefail
. "$(dirname "$0")/dist.sh"

usage_unless 2 'CONFIG GPUS [options of train.py]' "$@"
run_distributed "$2" train.py "$1" "${@:3}"
