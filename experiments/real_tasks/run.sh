#!/usr/bin/env bash
# Run the rows that are missing, then write the table. GLUE, MODELS and RUNS are folders; further words go to series.py.
#
#     GLUE=<folder> MODELS=<folder> RUNS=<folder> JOBS=4 experiments/real_tasks/run.sh --only-tasks stsb,rte
#     GLUE=… MODELS=… RUNS=… LAUNCHER="sbatch --wrap" experiments/real_tasks/run.sh
#
# JOBS processes of one thread side by side, 1 unless given; one that was stopped goes on from the rows that are there.
# With LAUNCHER every row that can be run now is given to it as one argument; call again when those have ended, for
# what waited for them. A row that is given twice is run once.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1
series=(python experiments/real_tasks/series.py --glue "$GLUE" --models "$MODELS" --runs "$RUNS" "$@")
if [[ -n ${LAUNCHER:-} ]]; then
    read -ra launcher <<<"$LAUNCHER"
    "${series[@]}" --list | while read -r command; do "${launcher[@]}" "$command" </dev/null; done
    exit
fi
pids=()
for ((job = 0; job < ${JOBS:-1}; job++)); do
    "${series[@]}" &
    pids+=($!)
done
failed=0
for pid in "${pids[@]}"; do wait "$pid" || failed=1; done
python experiments/real_tasks/table.py --write
exit $failed
