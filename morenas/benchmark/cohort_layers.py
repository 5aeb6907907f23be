"""The layers of a cohort: one frozen layer with an adapter, or a copy of the head, for every member.

Members lie along the batch, as ``morenas.benchmark.cohort`` says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morenas.monarch import Factors, Link, add_to, block_sizes, cast_for_autocast, link_permutation, to_lora
from morenas.space.candidates import Choice
from morenas.supernet.layer import WrappedLinear, adapter_dtype


class CohortLinear(WrappedLinear):
    """A frozen linear layer plus one Monarch adapter a member, each written as a LoRA pair of the largest rank.

    Shapes: ``a`` ``(members, rank, n)``, ``b`` ``(members, m, rank)``. Invariant: a number that is no part of a
    member's blocks is zero, and so is its gradient; ``factors`` gives the blocks back as they are.
    """

    def __init__(self, base: nn.Module, features: tuple[int, int], blocks: Sequence[Factors | None]) -> None:
        """Wrap ``base``, a linear map of ``features`` ``(n, m)``; a member without an adapter has None for blocks."""
        super().__init__(base)
        self.features = features
        self.shapes = [None if pair is None else Choice(*pair[0].shape[:2]) for pair in blocks]
        like = _trained_like(next(base.parameters()))
        self.a, self.b = map(nn.Parameter, _stack([_write(pair, features, like) for pair in blocks]))
        supports = _stack([_write(_ones(pair), features, like) for pair in blocks])
        for parameter, support in zip((self.a, self.b), supports, strict=True):
            _keep_zeros(parameter, support)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(members * examples, ..., n)`` to ``(members * examples, ..., m)``."""
        members = _members_of(x, self.a)
        result: Tensor = self.base(x)
        inputs, a, b = cast_for_autocast(x.to(self.a.dtype), self.a, self.b)
        hidden = inputs.reshape(members, -1, inputs.shape[-1]) @ a.transpose(1, 2)
        plus = result.reshape(members, -1, result.shape[-1])
        return add_to(plus, hidden.dtype, lambda onto: _product(hidden, b.transpose(1, 2), onto)).view_as(result)

    @torch.no_grad()
    def factors(self, member: int) -> Factors | None:
        """The blocks of a member, as the discrete adapter of its shape takes them; None without an adapter."""
        shape = self.shapes[member]
        return None if shape is None else _read(self.a[member], self.b[member], shape, self.features)


class CohortHead(nn.Module):
    """A linear layer that is trained whole, one copy a member: ``weight`` ``(members, m, n)``, ``bias`` with m last."""

    bias: nn.Parameter | None

    def __init__(self, base: nn.Linear, members: int) -> None:
        """Start every copy as ``base`` is."""
        super().__init__()
        self.base = base
        like = _trained_like(base.weight)
        self.weight = nn.Parameter(base.weight.detach().to(like).repeat(members, 1, 1))
        self.bias = None if base.bias is None else nn.Parameter(base.bias.detach().to(like).repeat(members, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(members * examples, ..., n)`` to ``(members * examples, ..., m)``, in the dtype of ``x``."""
        flat = x.to(self.weight.dtype).reshape(_members_of(x, self.weight), -1, x.shape[-1])
        out = _product(flat, self.weight.transpose(1, 2), self.bias)
        return out.reshape(*x.shape[:-1], -1).to(x.dtype)

    def tensors(self, member: int) -> dict[str, Tensor]:
        """The parameters of a member's copy, as a state dict of the layer has them."""
        bias = {} if self.bias is None else {"bias": self.bias[member, 0].detach().clone()}
        return {"weight": self.weight[member].detach().clone(), **bias}


def _ones(blocks: Factors | None) -> Factors | None:
    return None if blocks is None else (torch.ones_like(blocks[0]), torch.ones_like(blocks[1]))


def _write(blocks: Factors | None, features: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Factors as a LoRA pair ``(N r, n)``, ``(m, N r)`` of the dtype of ``like``; of rank 0 where there are none."""
    if blocks is None:
        return like.new_zeros(0, features[0]), like.new_zeros(features[1], 0)
    first, second = (side.detach().to(like) for side in blocks)
    return to_lora(first, second, Link.CYCLIC, *features)


def _read(a: Tensor, b: Tensor, shape: Choice, features: tuple[int, int]) -> Factors:
    """The blocks of which ``_write`` makes ``a`` and ``b``, themselves padded with zeros to a larger rank."""
    (nblocks, blk_r), (in_features, out_features) = shape, features
    width, height = block_sizes(in_features, out_features, nblocks)
    rank = nblocks * blk_r
    inputs = F.pad(a[:rank], (0, nblocks * width - in_features)).view(nblocks, blk_r, nblocks, width)
    linked = b.T[link_permutation(Link.CYCLIC, nblocks, blk_r, b.device)]  # row l * r + a: slot a of block l
    outputs = F.pad(linked, (0, nblocks * height - out_features)).view(nblocks, blk_r, height, nblocks)
    first = inputs.diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    second = outputs.diagonal(dim1=0, dim2=3).permute(2, 1, 0)
    return first.contiguous(), second.contiguous()


def _stack(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """LoRA pairs padded to the largest rank: ``(members, rank, n)`` and ``(members, m, rank)``."""
    rank = max(a.shape[0] for a, _ in pairs)
    return (
        torch.stack([F.pad(a, (0, 0, 0, rank - a.shape[0])) for a, _ in pairs]),
        torch.stack([F.pad(b, (0, rank - b.shape[1])) for _, b in pairs]),
    )


def _keep_zeros(parameter: nn.Parameter, support: Tensor) -> None:
    parameter.register_hook(lambda grad: grad * support)


def _trained_like(weight: Tensor) -> Tensor:
    """An empty tensor of the device and dtype in which what is trained beside ``weight`` is kept."""
    return torch.empty(0, device=weight.device, dtype=adapter_dtype(weight))


def _members_of(x: Tensor, parameter: Tensor) -> int:
    """The number of members, which must lie along the first dimension of ``x``.

    Raises:
        ValueError: If they cannot, as where a model adapts what all examples share, relative positions say.
    """
    members = parameter.shape[0]
    if x.shape[0] % members:
        raise ValueError(
            f"{members} members do not lie along the first dimension of an input of shape {tuple(x.shape)}; leave the "
            "layers out that see no batch, or train the architectures one by one."
        )
    return members


def _product(left: Tensor, right: Tensor, onto: Tensor | None) -> Tensor:
    return left @ right if onto is None else torch.baddbmm(onto, left, right)
