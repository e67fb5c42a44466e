#!/usr/bin/env bash
# Test with several processes on each node, on GPUs or (over gloo) on CPUs.
# Usage: [PORT=29500] dist_test.sh CONFIG CHECKPOINT GPUS [test.py options]
#        NNODES=2 NODE_RANK=0 MASTER_ADDR=host dist_test.sh ...   on each node, with its own rank
set -euo pipefail
. "$(dirname "$0")/dist.sh"

usage_unless 3 'CONFIG CHECKPOINT GPUS [options of test.py]' "$@"
run_distributed "$3" test.py "$1" "$2" "${@:4}"
