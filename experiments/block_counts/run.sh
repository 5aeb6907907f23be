#!/usr/bin/env bash
# Planted transformers, in which the block count matters: the default search and controls of equal total cost. Problems
# and seeds from 1100 on, never tuned on. Some three minutes of one core a problem; a run that was stopped goes on from
# the problems that are done.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-experiments/block_counts}
export OMP_NUM_THREADS=1
methods=(lora para "eva ranks" "fisher ranks")
python -m morenas.benchmark --published --tables transformer --problems "${PROBLEMS:-10}" --seeds 1 --jobs "${JOBS:-1}" \
  --out "$out" --methods "${methods[@]}"
