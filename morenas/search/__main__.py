"""``python -m morenas.search``: find an adapter architecture under a budget, fine-tune it, measure it."""

from morenas.run.launch import launch
from morenas.search.phase import COMMAND

if __name__ == "__main__":
    launch(COMMAND)
