#!/usr/bin/env bash
# Search, fine-tune and export on a real tiny Llama: BoolQ (choices) and GSM8K (free text), from local files.
#   DATA=<folder with commonsense/ and math/> LLAMA=<folder of stories260K> bash experiments/language/run.sh <output folder>
set -euo pipefail
cd "$(dirname "$0")/../.."
out=${1:?name an output folder}
common=(model=local "model.name_or_path=$LLAMA" training.learning_rate=5e-3 training.epochs=1 device=cpu threads=1
        task.prompt=plain task.max_length=512 task.truncate=true compare=lora tracking=local)

run() {  # <task> <folder> <examples>
    local directory=$out/${1//\//-}
    python -m morenas.search "+task=$1" "task.data_dir=$2" "task.max_examples=$3" "${common[@]}" "hydra.run.dir=$directory"
    for form in lora more merged; do
        python -m morenas.export "run=$directory" "to=$form" "out=$directory/export/$form"
    done
    python experiments/language/check_export.py "$directory"
}

run commonsense/boolq "$DATA/commonsense" 4000
run math/gsm8k "$DATA/math" 2000
python -m morenas.compare "$out/commonsense-boolq" "$out/math-gsm8k"
