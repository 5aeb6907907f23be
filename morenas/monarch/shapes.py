"""Sizes of blocks and numbers of parameters."""

from __future__ import annotations

from torch import Tensor

Factors = tuple[Tensor, Tensor]
"""``first`` ``(N, r, ceil(n / N))`` and ``second`` ``(N, ceil(m / N), r)``: the two sides of a Monarch matrix."""


def block_sizes(in_features: int, out_features: int, nblocks: int) -> tuple[int, int]:
    """Return the input and output width of a block, ``(ceil(n / N), ceil(m / N))``."""
    return -(-in_features // nblocks), -(-out_features // nblocks)


def num_parameters(in_features: int, out_features: int, nblocks: int, blk_r: int) -> int:
    """Return the number of stored parameters: ``r (n + m)`` where N divides both, a little more where it pads."""
    return blk_r * nblocks * sum(block_sizes(in_features, out_features, nblocks))


def check_divides(name: str, features: int, nblocks: int) -> None:
    """Refuse a feature count that cannot be cut into equal blocks.

    Raises:
        ValueError: Naming the module, the rule and the counts that fit.
    """
    if features % nblocks:
        fitting = [str(n) for n in range(1, features + 1) if features % n == 0]
        listed = ", ".join(fitting[:5]) + (" …" if len(fitting) > 5 else "")
        raise ValueError(
            f"MoRe '{name}': {features} features cannot be cut into nblocks={nblocks} blocks of equal size; "
            f"choose from {listed} or set pad=true."
        )


def check_blocks(first: Tensor, second: Tensor) -> None:
    """Refuse factors that do not chain.

    Raises:
        ValueError: If block counts or ranks differ.
    """
    if first.ndim != 3 or second.ndim != 3 or first.shape[:2] != (second.shape[0], second.shape[2]):
        raise ValueError(
            f"Blocks do not chain: first has shape {tuple(first.shape)}, which should be (N, r, p); "
            f"second has {tuple(second.shape)}, which should be (N, s, r)."
        )
