#!/usr/bin/env bash
# The default search and the training of what it finds as one run, beside the same without architecture steps and beside
# LoRA of equal parameters after as many passes. Problems and seeds from 1100 on, never tuned on. An hour of one core for
# each of two processes; a run that was stopped goes on from the problems that are done.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-experiments/one_run}
export OMP_NUM_THREADS=1
methods=("no architecture steps" lora)
python -m morenas.benchmark --published --tables tabular --seeds 5 --jobs 2 --out "$out/tabular" --methods "${methods[@]}"
python -m morenas.benchmark --published --tables planted --problems 10 --seeds 1 --jobs 2 --out "$out/planted" --methods "${methods[@]}"
