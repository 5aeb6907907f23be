#!/usr/bin/env bash
# Search, final fine-tune, equal-parameter LoRA and LoRA r = 32 on RTE (three seeds) and MRPC (one), from local files,
# then controls on MRPC: the found architecture without what the search had trained, and other learning rates for LoRA.
#
#     GLUE=<folder of GLUE files> MINILM=<folder of all-MiniLM-L6-v2> bash experiments/glue_minilm/run.sh <output folder>
#
# One thread a run; WORKERS=2 keeps two runs going at a time. A run that is there already is left alone, so an
# interrupted series is taken up by the same command. With "cost" as a second argument: what a search and its final
# fine-tune take beside a LoRA r = 32 of as many final steps, in alternation, on a machine with nothing else to do.
set -euo pipefail
out=$1
workers=${WORKERS:-1}

run() {
    local command=$1 task=$2 epochs=$3 seed=$4 name=$5
    shift 5
    [ -f "$out/$task/$name-seed$seed/results.json" ] && return
    rm -rf "$out/$task/$name-seed$seed"
    python -m "morenas.$command" +task="glue/$task" task.data_dir="$GLUE" model=local model.name_or_path="$MINILM" \
        seed="$seed" training.epochs="$epochs" training.batch_size=16 training.evals="$epochs" \
        tracking=local device=cpu threads=1 hydra.run.dir="$out/$task/$name-seed$seed" "$@"
}

# Begin a job once fewer than $workers are running.
job() {
    while [ "$(jobs -rp | wc -l)" -ge "$workers" ]; do wait -n; done
    "$@" &
}

# The search as it was when the table was made.
level=(search.start=level relaxation.sharing=full selection=budgeted search.steps_fraction=0.4)

pair() {
    run search "$@" found "${level[@]}" training.learning_rate=2e-3 compare=lora comparison.learning_rate=1e-3
    run finetune "$@" lora32 method=lora method.rank=32 training.learning_rate=5e-4
}

control() {
    run finetune mrpc 2 0 "$@"
}

if [ "${2:-}" = cost ]; then
    for pair in 0 1 2; do
        run search mrpc 1 "$pair" found "${level[@]}" training.learning_rate=2e-3 training.max_steps=60
        run finetune mrpc 1 "$pair" lora32 method=lora method.rank=32 training.learning_rate=5e-4 training.max_steps=60
    done
    exit
fi

job pair mrpc 2 0
job pair rte 5 0
job pair rte 5 1
job pair rte 5 2
wait

job control fresh architecture="$out/mrpc/found-seed0/architecture.json" training.learning_rate=2e-3
job control lora32-lr1e-3 method=lora method.rank=32 training.learning_rate=1e-3
job control lora2-lr2e-3 method=lora method.rank=2 training.learning_rate=2e-3
job control lora32-lr2e-3 method=lora method.rank=32 training.learning_rate=2e-3
job control lora32-lr2e-4 method=lora method.rank=32 training.learning_rate=2e-4
job control lora2-lr5e-4 method=lora method.rank=2 training.learning_rate=5e-4
wait
