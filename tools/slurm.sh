# Sourced by slurm_train.sh and slurm_test.sh.

# usage_unless COUNT ARGUMENTS GIVEN...: ends with the usage where fewer are given.
usage_unless() {
    local count=$1 arguments=$2
    shift 2
    [ $# -ge "$count" ] && return
    echo "usage: $0 $arguments" >&2
    exit 2
}

# run_slurm PARTITION JOB_NAME TOOL ARGUMENTS...: one task a GPU.
run_slurm() {
    local partition=$1 job_name=$2 tool=$3
    shift 3
    # SRUN_ARGS holds several words, so it stays unquoted.
    exec srun -p "$partition" \
        --job-name="$job_name" \
        --gres=gpu:"${GPUS_PER_NODE:-8}" \
        --ntasks="${GPUS:-8}" \
        --ntasks-per-node="${GPUS_PER_NODE:-8}" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --kill-on-bad-exit=1 \
        ${SRUN_ARGS:-} \
        python -u "$(dirname "$0")/$tool" "$@" --launcher=slurm
}
