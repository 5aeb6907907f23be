"""Link maps: which value of the first blocks goes to which slot of the second."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from morenas.monarch.constant import constant


class Link(StrEnum):
    """How value ``(k, j)``, the j-th output of input block k, reaches slot ``(l, a)`` of output block l.

    ``MONARCH``, the paper's: with ``i = k * r + j``, ``l = i mod N`` and ``a = i div N``.
    ``CYCLIC``: ``l = (k + j) mod N`` and ``a = j``. Nested in r, and connected where N does not divide r.
    """

    MONARCH = "monarch"
    CYCLIC = "cyclic"


def link_permutation(link: Link, nblocks: int, blk_r: int, device: torch.device | str = "cpu") -> Tensor:
    """Return the permutation ``p`` of ``nblocks * blk_r`` values: slot ``l * r + a`` takes value ``p[l * r + a]``.

    Values are numbered ``k * r + j``.
    """
    return _permutation(Link(link), nblocks, blk_r, str(device))


@constant
def _permutation(link: Link, nblocks: int, blk_r: int, device: str) -> Tensor:
    block = torch.arange(nblocks, device=device).unsqueeze(1)
    slot = torch.arange(blk_r, device=device)
    # ``Link`` says where a value goes; wanted is where slot (l, a) takes its value from, the inverse. Cyclic: value
    # (l - a, a), number (l - a) mod N * r + a. Monarch: the value whose number is a * N + l.
    permutation = (block - slot) % nblocks * blk_r + slot if link is Link.CYCLIC else slot * nblocks + block
    return permutation.flatten()
