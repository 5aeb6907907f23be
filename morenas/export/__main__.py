"""``python -m morenas.export``: what a run trained, in a form that others load."""

from morenas.export.command import COMMAND
from morenas.run.words import run_words

if __name__ == "__main__":
    run_words(COMMAND)
