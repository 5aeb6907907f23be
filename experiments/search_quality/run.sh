#!/usr/bin/env bash
# The published table of search quality: fifty planted problems and search seeds from 1100 on, never tuned on. Some two
# hours of one core for each of two processes. A run that was stopped goes on from the problems that are done.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:-experiments/search_quality}
export OMP_NUM_THREADS=1
python -m morenas.benchmark --published --tables planted tabular --problems 10 --seeds 5 --jobs 2 --out "$out"
