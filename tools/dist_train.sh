#!/usr/bin/env bash
# Train with several processes on each node, on GPUs or (over gloo) on CPUs.
# Usage: [PORT=29500] dist_train.sh CONFIG GPUS [train.py options]
#        NNODES=2 NODE_RANK=0 MASTER_ADDR=host dist_train.sh ...   on each node, with its own rank
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [options of train.py]" >&2
    echo "on each of 2 nodes: NNODES=2 NODE_RANK=0 (1, ...) MASTER_ADDR=HOST $0 ..." >&2
    exit 2
fi
CONFIG=$1
GPUS=$2
shift 2

if [ "${NNODES:-1}" -gt 1 ]; then # or every node would wait for others as the first one
    : "${NODE_RANK:?is not set: 0 on the first node, 1 on the next}"
    : "${MASTER_ADDR:?is not set: the address of the node of rank 0}"
fi

exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --nproc_per_node="$GPUS" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    "$(dirname "$0")/train.py" "$CONFIG" --launcher pytorch "$@"
