# Sourced by dist_train.sh and dist_test.sh.

# usage_unless COUNT ARGUMENTS GIVEN...: ends with the usage where fewer are given.
usage_unless() {
    local count=$1 arguments=$2
    shift 2
    [ $# -ge "$count" ] && return
    echo "usage: $0 $arguments" >&2
    echo "on each of 2 nodes: NNODES=2 NODE_RANK=0 (1, ...) MASTER_ADDR=HOST $0 ..." >&2
    exit 2
}

# run_distributed GPUS TOOL ARGUMENTS...: the tool in GPUS processes on each node.
run_distributed() {
    local gpus=$1 tool=$2
    shift 2
    if [ "${NNODES:-1}" -gt 1 ]; then # or every node would wait for others as the first one
        : "${NODE_RANK:?is not set: 0 on the first node, 1 on the next}"
        : "${MASTER_ADDR:?is not set: the address of the node of rank 0}"
    fi
    # Seconds for the step in progress and its checkpoint when the run is stopped; torchrun has 30.
    export PET_SHUTDOWN_TIMEOUT="${PET_SHUTDOWN_TIMEOUT:-300}"
    exec python -m torch.distributed.run \
        --nnodes="${NNODES:-1}" \
        --node_rank="${NODE_RANK:-0}" \
        --nproc_per_node="$gpus" \
        --master_addr="${MASTER_ADDR:-127.0.0.1}" \
        --master_port="${PORT:-29500}" \
        "$(dirname "$0")/$tool" "$@" --launcher pytorch
}
