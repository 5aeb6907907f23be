"""``python -m morenas.finetune``: fine-tune a found architecture, or a baseline, in the same harness."""

from morenas.finetune.phase import execute
from morenas.run.launch import launch
from morenas.run.schema import FinetuneRunConfig

if __name__ == "__main__":
    launch("finetune", FinetuneRunConfig, execute)
