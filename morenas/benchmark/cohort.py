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
from torch import Tensor, nn

from morenas.base.seeds import derive
from morenas.benchmark.cohort_layers import CohortHead, CohortLinear
from morenas.benchmark.problem import Batches, Shapes
from morenas.bilevel.loop import ramp_and_cosine
from morenas.monarch import Factors, block_sizes, init_first_
from morenas.space.candidates import Choice

RAMP = 0.06  # share of the steps over which the learning rate rises
Losses = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
"""Loss of every example of a batch, shape ``(examples,)``."""


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
        starts: Sequence[Mapping[str, Factors] | None] | None = None,
    ) -> None:
        """Put the members' adapters and heads into ``model``.

        Args:
            model: Its linear layers may be adapted, ``nn.Linear`` or GPT-2's ``Conv1D``.
            modules: Name to ``(in_features, out_features)`` of every layer that a member may adapt.
            members: An architecture each: module name to choice, modules without an adapter absent or of rank 0.
            head: Modules that every member trains whole, from the model's own.
            seed: Decides the start of every member's adapters, whatever the other members are.
            starts: Factors, by member and module, to start from instead; None for a member without.
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

    def factors(self, member: int) -> dict[str, Factors]:
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
    shapes: Shapes, modules: Mapping[str, tuple[int, int]], seed: int, given: Mapping[str, Factors] | None
) -> dict[str, Factors]:
    """The blocks that one member starts from."""
    adapted = {name: Choice(*shapes[name]) for name in modules if name in shapes and Choice(*shapes[name]).blk_r}
    if given is not None:
        return {name: given[name] for name in adapted}
    generator = torch.Generator().manual_seed(seed)
    return {name: _fresh(modules[name], choice, generator) for name, choice in adapted.items()}


def _fresh(features: tuple[int, int], choice: Choice, generator: torch.Generator) -> Factors:
    """Factors as a discrete adapter starts: ``first`` at random, ``second`` zero."""
    width, height = block_sizes(*features, choice.nblocks)
    first = init_first_(torch.empty(choice.nblocks, choice.blk_r, width), generator)
    return first, torch.zeros(choice.nblocks, height, choice.blk_r)


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
