"""``python -m morenas.benchmark``: search methods on problems whose best architecture is known."""

from morenas.benchmark.command import COMMAND
from morenas.run.words import run_words

if __name__ == "__main__":
    run_words(COMMAND)
