"""``python -m morenas.compare RUN...``: one table of many runs, mean and spread over seeds."""

from morenas.compare.command import COMMAND
from morenas.run.words import run_words

if __name__ == "__main__":
    run_words(COMMAND)
