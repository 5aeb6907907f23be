"""Several architectures trained side by side in one model, each as if it were alone.

Members lie along the batch: the examples of member k follow those of member k - 1. Frozen layers see one large batch;
every adapted layer multiplies each member's part by that member's own adapter. Losses are summed, so that no member's
gradient knows of another's, gradients are clipped member by member, and AdamW looks at one number at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morenas.base.seeds import derive
from morenas.benchmark.problem import Batches, Shapes
from morenas.bilevel.loop import ramp_and_cosine
from morenas.monarch import Link, add_to, block_sizes, cast_for_autocast, init_first_, link_permutation, to_lora
from morenas.space.choices import Choice
from morenas.supernet.layer import WrappedLinear, adapter_dtype

RAMP = 0.06  # share of the steps over which the learning rate rises

Blocks = tuple[Tensor, Tensor]
"""``first`` ``(N, r, ceil(n / N))`` and ``second`` ``(N, ceil(m / N), r)``, under the cyclic link."""

Losses = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
"""Loss of every example of a batch, shape ``(examples,)``."""


class CohortLinear(WrappedLinear):
    """A frozen linear layer plus one Monarch adapter a member, each written as a LoRA pair of the largest rank.

    Shapes: ``a`` ``(members, rank, n)``, ``b`` ``(members, m, rank)``. Invariant: a number that is no part of a
    member's blocks is zero, and so is its gradient; ``factors`` gives the blocks back as they are.
    """

    def __init__(self, base: nn.Module, features: tuple[int, int], blocks: Sequence[Blocks | None]) -> None:
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
    def factors(self, member: int) -> Blocks | None:
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


class Cohort:
    """Members of a cohort and the model that they share.

    The model is changed in place until ``remove``, or the end of a ``with`` block, puts every layer back; the model's
    own parameters are left as they are.

    Attributes:
        size: Members.
        params: What is trained, every tensor with members first.
    """

    def __init__(
        self,
        model: nn.Module,
        modules: Mapping[str, tuple[int, int]],
        members: Sequence[Shapes],
        head: Sequence[str] = (),
        seed: int = 0,
        starts: Sequence[Mapping[str, Blocks] | None] | None = None,
    ) -> None:
        """Put the members' adapters and heads into ``model``.

        Args:
            model: Its linear layers may be adapted, ``nn.Linear`` or GPT-2's ``Conv1D``.
            modules: Name to ``(in_features, out_features)`` of every layer that a member may adapt.
            members: An architecture each: module name to choice, modules without an adapter absent or of rank 0.
            head: Modules that every member trains whole, from the model's own.
            seed: Decides the start of every member's adapters, whatever the other members are.
            starts: Blocks, by member and module, to start from instead; None for a member without.
        Raises:
            ValueError: If a head has parameters outside of linear layers.
        """
        self.model, self.size = model, len(members)
        self._adapted: dict[str, CohortLinear] = {}
        self._heads: dict[str, CohortHead] = {}
        blocks = [
            _start(shapes, modules, derive(seed, "cohort"), None if starts is None else starts[member])
            for member, shapes in enumerate(members)
        ]
        copied = [name for module in head for name in _linears_of_head(model, module)]
        for name, features in modules.items():
            if any(name in given for given in blocks):
                layer = model.get_submodule(name)
                self._adapted[name] = CohortLinear(layer, features, [given.get(name) for given in blocks])
        for name in copied:
            self._heads[name] = CohortHead(cast(nn.Linear, model.get_submodule(name)), self.size)
        layers: dict[str, nn.Module] = {**self._adapted, **self._heads}
        for name, layer in layers.items():
            _replace(model, name, layer)
        self.params = [layer.get_parameter(kind) for layer in self._adapted.values() for kind in ("a", "b")]
        self.params += [parameter for layer in self._heads.values() for parameter in _own(layer)]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.remove()

    def remove(self) -> None:
        """Put the original layers back."""
        layers: dict[str, CohortLinear | CohortHead] = {**self._adapted, **self._heads}
        for name, layer in layers.items():
            _replace(self.model, name, layer.base)

    def repeat(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The batch once for every member."""
        return {key: value.repeat(self.size, *[1] * (value.ndim - 1)) for key, value in batch.items()}

    def factors(self, member: int) -> dict[str, Blocks]:
        """A member's blocks by module, under the cyclic link, as ``Supernet.factors`` gives them."""
        blocks = {name: layer.factors(member) for name, layer in self._adapted.items()}
        return {name: pair for name, pair in blocks.items() if pair is not None}

    def head(self, member: int) -> dict[str, Tensor]:
        """A member's trained head: parameter name, relative to the model, to value."""
        return {
            f"{name}.{kind}": value
            for name, layer in self._heads.items()
            for kind, value in layer.tensors(member).items()
        }


def train(
    cohort: Cohort,
    losses: Losses,
    batches: Batches,
    steps: int,
    learning_rate: float,
    weight_decay: float = 1e-3,
    max_grad_norm: float = 1.0,
    start: int = 0,
    total: int | None = None,
    after: Callable[[int], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> Tensor:
    """Train every member by AdamW on the same batches.

    Args:
        losses: Loss of every example.
        batches: Number to batch, of one member; the first is number ``start``.
        steps: Where training ends, counted from zero.
        learning_rate: Largest rate; ``ramp_and_cosine`` says how it rises and falls.
        max_grad_norm: Largest norm of a member's gradient; 0 for no limit.
        start: Where training begins.
        total: Steps that the schedule counts on; ``steps`` unless given.
        after: Called after every step with the number of steps done.
        optimizer: From ``adamw``, with the state of the steps before ``start``; a new one unless given.
    Returns:
        Mean loss of every member at the last step, before it: shape ``(members,)``.
    """
    optimizer = optimizer or adamw(cohort, weight_decay)
    loss = torch.full((cohort.size,), math.nan)
    for step in range(start, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * ramp_and_cosine(step, total or steps, RAMP)
        loss = losses(cohort.model, cohort.repeat(batches[step])).view(cohort.size, -1).mean(1)
        for parameter, grad in zip(cohort.params, _gradients(loss, cohort.params, max_grad_norm), strict=True):
            parameter.grad = grad
        optimizer.step()
        if after is not None:
            after(step + 1)
    return loss.detach()


def adamw(cohort: Cohort, weight_decay: float = 1e-3) -> torch.optim.AdamW:
    """The optimizer of a cohort; it works number by number, so that members do not meet in it."""
    # Without an adapter and a head nothing is trained, and AdamW wants a parameter.
    params = cohort.params or [nn.Parameter(torch.zeros(0))]
    return torch.optim.AdamW(params, weight_decay=weight_decay, foreach=True)


def _gradients(loss: Tensor, params: Sequence[Tensor], max_grad_norm: float) -> list[Tensor]:
    """Gradients of every member's loss, each member's scaled to a norm of at most ``max_grad_norm``."""
    if not params:
        return []
    grads = list(torch.autograd.grad(loss.sum(), params))
    if not max_grad_norm:
        return grads
    norms = torch.stack([grad.flatten(1).square().sum(1) for grad in grads]).sum(0).sqrt()
    factors = (max_grad_norm / (norms + 1e-6)).clamp(max=1)
    return [grad * factors.view(-1, *[1] * (grad.ndim - 1)).to(grad.dtype) for grad in grads]


def _start(
    shapes: Shapes, modules: Mapping[str, tuple[int, int]], seed: int, given: Mapping[str, Blocks] | None
) -> dict[str, Blocks]:
    """The blocks that one member starts from."""
    adapted = {name: Choice(*shapes[name]) for name in modules if name in shapes and Choice(*shapes[name]).blk_r}
    if given is not None:
        return {name: given[name] for name in adapted}
    generator = torch.Generator().manual_seed(seed)
    return {name: _fresh(modules[name], choice, generator) for name, choice in adapted.items()}


def _fresh(features: tuple[int, int], choice: Choice, generator: torch.Generator) -> Blocks:
    """Blocks as a discrete adapter starts: ``first`` at random, ``second`` zero."""
    width, height = block_sizes(*features, choice.nblocks)
    first = init_first_(torch.empty(choice.nblocks, choice.blk_r, width), generator)
    return first, torch.zeros(choice.nblocks, height, choice.blk_r)


def _ones(blocks: Blocks | None) -> Blocks | None:
    return None if blocks is None else (torch.ones_like(blocks[0]), torch.ones_like(blocks[1]))


def _write(blocks: Blocks | None, features: tuple[int, int], like: Tensor) -> tuple[Tensor, Tensor]:
    """Blocks as a LoRA pair ``(N r, n)``, ``(m, N r)`` of the dtype of ``like``; of rank 0 where there are none."""
    if blocks is None:
        return like.new_zeros(0, features[0]), like.new_zeros(features[1], 0)
    first, second = (side.detach().to(like) for side in blocks)
    return to_lora(first, second, Link.CYCLIC, *features)


def _read(a: Tensor, b: Tensor, shape: Choice, features: tuple[int, int]) -> Blocks:
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


def _linears_of_head(model: nn.Module, head: str) -> list[str]:
    """Names of the linear layers in a head.

    Raises:
        ValueError: If other modules of it have parameters.
    """
    linears = []
    for name, module in model.get_submodule(head).named_modules(prefix=head):
        if isinstance(module, nn.Linear):
            linears.append(name)
        elif any(True for _ in module.parameters(recurse=False)):
            raise ValueError(
                f"Head '{name}' is a {type(module).__name__}: a cohort copies linear layers alone; train the "
                "architectures one by one."
            )
    return linears


def _own(module: nn.Module) -> list[nn.Parameter]:
    return list(module.parameters(recurse=False))


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
