"""``python -m morenas.finetune``: fine-tune a found architecture, or a baseline, in the same harness."""

from morenas.finetune.phase import COMMAND
from morenas.run.launch import launch

if __name__ == "__main__":
    launch(COMMAND)
