#!/bin/bash
# Pre-training on several machines of a SLURM cluster: sbatch docs/examples/slurm.sh
# One task a machine; torchrun starts a process for each of its GPUs. 120 s before the time is up, or
# when the job is pre-empted, the run saves its state; the job goes back to the queue and goes on.
# DRY_RUN=1 prints what would be started.
#SBATCH --job-name=videomae
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=96
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:TERM@120
set -euo pipefail

RECIPE=${RECIPE:-vit_g_hybrid}
DATA=${DATA:?the data list}
OUTPUT=${OUTPUT:?the folder of the run, on a file system that all machines see}
GPUS=${SLURM_GPUS_ON_NODE:-8}
NODES=${SLURM_JOB_NUM_NODES:-1}
FIRST=$(scontrol show hostnames "${SLURM_JOB_NODELIST:-localhost}" | head -n 1)
PORT=$((29500 + ${SLURM_JOB_ID:-0} % 1000)) # another job may be on the machine
# Of the 120 s; torchrun would kill what has not saved its state after 30
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}

command=(torchrun
    --nnodes "$NODES" --nproc-per-node "$GPUS" --max-restarts 3
    --rdzv-backend c10d --rdzv-endpoint "$FIRST:$PORT" --rdzv-id "${SLURM_JOB_ID:-0}"
    -m videomae_fast pretrain --recipe "$RECIPE" --data "$DATA" --output "$OUTPUT"
    --shard node --checkpoint-every 500)

if [ -n "${DRY_RUN:-}" ]; then
    echo "${command[@]}"
    exit 0
fi

# The signal comes to this shell alone: it is passed on, and the job queued again. Not to srun, which
# kills what it started, at SIGTERM
srun "${command[@]}" &
steps=$!
requeue() {
    scancel --signal=TERM "$SLURM_JOB_ID"
    wait "$steps" || true
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
}
trap requeue TERM
wait "$steps"
