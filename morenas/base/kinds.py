"""Fixed sets of names, apart from the code they choose, so that a name is checked without importing it."""

KINDS = ("classification", "regression", "choice", "generation")
CAUSAL = ("choice", "generation")
"""Examples are records of instruction, input, output and answer; of a "choice" the answer is one of a few."""

SHARINGS = ("full", "per_nblocks")
"""Whether the block counts of a supernet layer share their factors, or each has its own."""
GRANULARITIES = ("module", "type", "layer", "all")
"""Which modules take one choice together: none, those of a kind of layer, of a depth, or all of them."""
POOLINGS = ("own", "mean")
"""What a classifier's head reads of a sequence: what the model gives it by itself, or the mean of all tokens."""
