#!/usr/bin/env bash
# Every section of the speed bench, one JSON and one picture each; a good hour on two cores with nothing else to do.
#
#     REFERENCE=<checkout of the paper's repository> MINILM=<folder of all-MiniLM-L6-v2> GLUE=<folder of GLUE files> \
#         bash experiments/speed/run.sh <output folder>
set -euo pipefail
out=$1

section() {
    local name=$1
    shift
    python scripts/bench_speed.py --json "$out/$name.json" --sections "$name" "$@" | tee "$out/$name.txt"
}

mkdir -p "$out"
section layers --reference "$REFERENCE"
section large --reference "$REFERENCE"
section models --minilm "$MINILM"
section supernet --minilm "$MINILM"
section scaling
section runs --minilm "$MINILM" --glue "$GLUE" --run-pairs 10 --run-steps 40
