"""``python -m morenas.search``: find an adapter architecture under a budget, fine-tune it, measure it."""

from morenas.run.launch import launch
from morenas.run.schema import SearchRunConfig
from morenas.search.phase import execute

if __name__ == "__main__":
    launch("search", SearchRunConfig, execute)
