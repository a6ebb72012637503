#!/usr/bin/env bash
# LaMPE against the model as it is, on two nodes of four GPUs: sbatch examples/slurm.sh
# Ray's head and workers run beside the command; sent again, the same script goes on where it stopped.
# Who shares the nodes cannot use this cluster: it wants a token, made once, in ~/.ray, which every node has to see.
#SBATCH --job-name=lampe-eval
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.log
set -euo pipefail

export RAY_USAGE_STATS_ENABLED=0
ray get-auth-token --generate >/dev/null && export RAY_AUTH_MODE=token # an old Ray knows of no tokens
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
address="$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | cut -d ' ' -f 1):6379"
start="ray start --block --disable-usage-stats --num-gpus=$SLURM_GPUS_ON_NODE"

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap $start --head --port=6379 --include-dashboard=false &
sleep 20
if [ "$SLURM_NNODES" -gt 1 ]; then
    srun --nodes=$((SLURM_NNODES - 1)) --ntasks=$((SLURM_NNODES - 1)) --exclude="$head" --overlap $start --address="$address" &
    sleep 20
fi

srun --nodes=1 --ntasks=1 --nodelist="$head" --overlap lampe-eval run --engine ray --address "$address" \
    --model llama3.1-8b-instruct --method original,yarn,lampe --bench ruler --lengths 32k,64k,128k \
    --output results/llama3.1-ruler
