"""Products with block-diagonal matrices between tokens ``(tokens, features)`` and the few values between two factors.

Those values, ``hidden``, lie features first, ``(N * q, tokens)``: a batched product of narrow blocks is several times
as quick with a long last dimension as with one of a few columns.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

ALIASED = 2048
"""Bytes. Rows a multiple of it apart share few sets of the first cache, and a product of few terms is written into
them four times as slowly as into rows ``GAP`` bytes further apart."""
GAP = 64


def gather(x: Tensor, blocks: Tensor) -> Tensor:
    """Multiply the k-th slice of every token by the k-th block.

    Args:
        x: Shape ``(tokens, N * p)``.
        blocks: Shape ``(N, q, p)``.
    Returns:
        Shape ``(N * q, tokens)``.
    """
    if len(blocks) == 1:  # N = 1, LoRA: a plain product
        return (x @ blocks[0].T).T
    return torch.bmm(blocks, _slices(x, len(blocks)).transpose(1, 2)).flatten(0, 1)


def scatter(hidden: Tensor, blocks: Tensor) -> Tensor:
    """The adjoint of ``gather`` in ``x``: shape ``(N * q, tokens)`` to ``(tokens, N * p)``, rows perhaps apart."""
    nblocks, _, width = blocks.shape
    if _is_traced():
        return torch.bmm(_columns(hidden, nblocks), blocks).transpose(0, 1).flatten(1)
    features = nblocks * width
    out = hidden.new_empty(hidden.shape[1], features + _gap(features, hidden))[:, :features]
    _bmm_into(out.unflatten(1, (nblocks, width)), hidden, blocks)
    return out


def scatter_interleaved(hidden: Tensor, blocks: Tensor) -> Tensor:
    """``interleave(scatter(hidden, blocks), N)``, rows perhaps apart."""
    nblocks, _, width = blocks.shape
    if _is_traced():
        return interleave(scatter(hidden, blocks), nblocks)
    features = nblocks * width
    gap = -(-_gap(features, hidden) // nblocks)  # behind every slice, and so behind every row once they are dealt out
    out = hidden.new_empty(hidden.shape[1], nblocks, width + gap)
    _bmm_into(out[..., :width], hidden, blocks)
    return interleave(out.flatten(1), nblocks)[:, :features]


def outer(hidden: Tensor, x: Tensor, nblocks: int) -> Tensor:
    """Sum over tokens of the outer products of like slices, the gradient of ``gather`` in its blocks.

    Args:
        hidden: Shape ``(N * q, tokens)``.
        x: Shape ``(tokens, N * p)``.
    Returns:
        Shape ``(N, q, p)``.
    """
    return torch.bmm(_columns(hidden, nblocks).transpose(1, 2), _slices(x, nblocks))


def interleave(x: Tensor, nblocks: int) -> Tensor:
    """Deal a token's N slices out in turn: feature ``l * s + i`` of ``(tokens, N * s)`` goes to ``i * N + l``.

    Shuffling the channels of a picture of one column is the same map; torch computes it as quickly as a copy.
    """
    tokens, features = x.shape
    # Channels are the features: N groups of them, dealt out in turn.
    picture = x.reshape(1, tokens, 1, features).permute(0, 3, 1, 2)  # channels last in memory, the quick way
    return F.channel_shuffle(picture, nblocks).permute(0, 2, 3, 1).reshape(tokens, features)


def deinterleave(x: Tensor, nblocks: int) -> Tensor:
    """The inverse of ``interleave``."""
    return interleave(x, x.shape[1] // nblocks)


def _slices(x: Tensor, nblocks: int) -> Tensor:
    tokens, features = x.shape
    return x.view(tokens, nblocks, features // nblocks).transpose(0, 1)


def _columns(hidden: Tensor, nblocks: int) -> Tensor:
    rank, tokens = hidden.shape
    return hidden.view(nblocks, rank // nblocks, tokens).transpose(1, 2)


def _bmm_into(out: Tensor, hidden: Tensor, blocks: Tensor) -> None:
    """A batched product into a view ``(tokens, N, p)``: the copy that puts a token's blocks side by side would cost
    more than the product."""
    # Under autocast ``gather`` comes out in half precision, and ``out=`` is out of autocast's reach.
    torch.bmm(_columns(hidden, len(blocks)), blocks.to(hidden.dtype), out=out.transpose(0, 1))


def _is_traced() -> bool:
    """Whether ``out=`` cannot be used: autograd does not take it, torch.compile for contiguous tensors alone."""
    return torch.is_grad_enabled() or torch.compiler.is_compiling()


def _gap(features: int, like: Tensor) -> int:
    return 0 if features * like.element_size() % ALIASED else GAP // like.element_size()
