"""The kinds of task there are, and which of them a causal language model answers."""

KINDS = ("classification", "regression", "choice", "generation")
CAUSAL = ("choice", "generation")
"""Examples are records of instruction, input, output and answer; of a "choice" the answer is one of a few."""
