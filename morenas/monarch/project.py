"""The best Monarch approximation of a dense matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from morenas.monarch.link import Link, link_permutation
from morenas.monarch.shapes import block_sizes


def project(dense: Tensor, nblocks: int, blk_r: int, link: Link) -> tuple[Tensor, Tensor]:
    """Project a dense matrix onto the Monarch matrices of one shape, in the Frobenius norm.

    The sub-matrix between input block k and output block l is a sum of one outer product per slot that links them,
    and no two sub-matrices share a slot, so a truncated SVD of each is the optimum. Singular values are split evenly.

    Args:
        dense: Shape ``(m, n)``.
    Returns:
        ``first`` ``(N, r, ceil(n / N))`` and ``second`` ``(N, ceil(m / N), r)``, dtype of ``dense``.

    Source: Dao et al. 2022, section 3.1, theorem 1, for rectangular blocks.
    """
    rows, columns = dense.shape
    width, height = block_sizes(columns, rows, nblocks)
    padded = F.pad(dense, (0, nblocks * width - columns, 0, nblocks * height - rows))
    # Row o = s * N + l belongs to output block l, column i = k * p + q to input block k.
    pieces = padded.view(height, nblocks, nblocks, width).permute(1, 2, 0, 3)  # (l, k, s, p)
    # torch has no SVD in half precision.
    precise = pieces.to(torch.promote_types(dense.dtype, torch.float32))
    u, values, vt = torch.linalg.svd(precise, full_matrices=False)
    root = values.sqrt()  # half to each factor: with all of it in one, the other's gradients would be that much larger
    first = dense.new_zeros(nblocks, blk_r, width)
    second = dense.new_zeros(nblocks, height, blk_r)
    # Slots come in ascending order, and each takes the largest singular value that its pair of blocks has left. Under
    # the cyclic link the slots of a smaller rank so hold the projection of that rank.
    used = [[0] * nblocks for _ in range(nblocks)]
    for slot, value in enumerate(link_permutation(link, nblocks, blk_r).tolist()):
        (out_block, out_slot), (in_block, in_value) = divmod(slot, blk_r), divmod(value, blk_r)
        rank = used[out_block][in_block]
        used[out_block][in_block] += 1
        # A sub-matrix has no more singular values than rows or columns: slots beyond them stay zero.
        if rank < root.shape[-1]:
            scale = root[out_block, in_block, rank]
            first[in_block, in_value] = scale * vt[out_block, in_block, rank]
            second[out_block, :, out_slot] = scale * u[out_block, in_block, :, rank]
    return first, second
