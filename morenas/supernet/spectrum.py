"""What each candidate could keep of a trained change of the weights: scores of every choice, in closed form.

The open supernet, every candidate with the same weight, is trained as one adapter. Its change D of a frozen weight is
then projected onto the class of every candidate, which leaves E = D - M. Two scores tell how little that loses:

- energy: ``|D|^2 - |E|^2``, which looks at the weights alone;
- curvature: ``rows (tr(G D A D') - tr(G E A E'))`` with ``A = mean x x'`` of inputs and ``G = mean g g'`` of the loss's
  gradients in outputs: the second-order change of the loss, inputs and gradients taken as independent (Martens and
  Grosse 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from morenas.base import processes
from morenas.monarch import Factors, Link, project, to_lora
from morenas.space.candidates import Choice
from morenas.supernet.inject import Supernet

TOKENS = 1024  # rows kept of what each layer saw, at most

FactorsByCount = dict[int, Factors]
"""Block count to ``first`` and ``second`` of the largest rank, under the cyclic link."""


class Sample(NamedTuple):
    """What a layer saw.

    Attributes:
        x: Inputs, ``(tokens, n)``.
        g: Gradients of the loss in its outputs, ``(tokens, m)``.
        rows: How many tokens these stand for. A layer that sees every token of a text adds to the loss more often than
            one that sees a pooled one, and its curvature counts as many times.
    """

    x: Tensor
    g: Tensor
    rows: int = 1


class Spectrum(NamedTuple):
    """Scores ``(groups, choices)``, higher is better, and every layer's projections by block count."""

    energy: Tensor
    curvature: Tensor
    blocks: dict[str, FactorsByCount]


def spectrum(supernet: Supernet, samples: Mapping[str, Sample]) -> Spectrum:
    """Score every choice by what it keeps of the change that the supernet, as it is mixed, makes.

    The curvature of a layer without a sample, which no loss calls, is zero.

    Raises:
        RuntimeError: If the supernet is neither mixed nor open.
    """
    space = supernet.space
    energy, curvature = (torch.zeros(len(space.groups), len(space.choices)) for _ in range(2))
    blocks = {}
    for group, names in enumerate(space.groups.values()):
        for name in names:
            change = supernet.layers[name].change()
            blocks[name] = projections(change, space.choices)
            energy[group] += kept(change, blocks[name], space.choices)
            if name in samples:
                curvature[group] += kept(change, blocks[name], space.choices, samples[name])
    return Spectrum(energy, curvature, blocks)


def projections(change: Tensor, choices: Iterable[Choice]) -> FactorsByCount:
    """The best blocks of every block count for ``change`` ``(m, n)``, at the largest rank; smaller ranks are nested."""
    adapters = [choice for choice in choices if choice.blk_r]
    rank = max(choice.blk_r for choice in adapters)
    return {count: project(change, count, rank, Link.CYCLIC) for count in sorted({c.nblocks for c in adapters})}


@torch.no_grad()
def kept(change: Tensor, blocks: FactorsByCount, choices: Iterable[Choice], sample: Sample | None = None) -> Tensor:
    """What every choice keeps of ``change`` ``(m, n)``: shape ``(choices,)``, dtype of ``change``, on the CPU.

    ``|D|^2 - |D - M|^2 = 2 <D, M> - <M, M>`` needs no ``(m, n)`` matrix for a choice: M is the sum of one outer product
    per slot, and an inner product of two of those is a product of two numbers.

    Args:
        blocks: The projections of ``change``, with every block count and rank of the choices.
        sample: What the layer saw, for the curvature; the energy without.
    """
    kept_by_rank = {count: _kept_by_rank(change, first, second, sample) for count, (first, second) in blocks.items()}
    nothing = change.new_zeros(())
    return torch.stack([kept_by_rank[count][rank - 1] if rank else nothing for count, rank in choices]).cpu()


def _kept_by_rank(change: Tensor, first: Tensor, second: Tensor, sample: Sample | None) -> Tensor:
    """What the first slots of every block keep, shape ``(ranks,)``."""
    a, b = to_lora(first, second, Link.CYCLIC, change.shape[1], change.shape[0])
    image, ins, outs, scale = change, a.T, b, 1.0
    if sample is not None:
        x, g = sample.x.to(change), sample.g.to(change)
        image, ins, outs, scale = g @ change @ x.T, x @ a.T, g @ b, sample.rows / (len(x) * len(x))
    slots = first.shape[:2]
    with_change = (image.T @ outs * ins).sum(dim=0).view(slots).sum(dim=0)
    among = ((ins.T @ ins) * (outs.T @ outs)).view(*slots, *slots).sum(dim=(0, 2))
    return scale * (2 * with_change.cumsum(0) - among.cumsum(0).cumsum(1).diagonal())


def sample_layers(layers: Mapping[str, nn.Module], losses: Sequence[Callable[[], Tensor]]) -> dict[str, Sample]:
    """Take each loss forward and backward, and keep up to ``TOKENS`` evenly spread rows of what every layer saw.

    Every loss gives as many; several processes share the losses. ``grad`` of no tensor is touched. Gradients are zero
    where the loss does not depend on a layer's output; layers that no loss calls are absent.

    Returns:
        Layer name to its sample, in float32.
    """
    most = -(-TOKENS // len(losses))
    seen: dict[str, list[Sample]] = {name: [] for name in layers}
    for calls in processes.collect(losses, lambda loss: _calls(layers, loss, most)):
        for name, sample in calls:
            seen[name].append(sample)
    return {name: _joined(samples) for name, samples in seen.items() if samples}


def _calls(layers: Mapping[str, nn.Module], loss: Callable[[], Tensor], most: int) -> list[tuple[str, Sample]]:
    """Rows of every call of a layer, by its name, in one pass forward and backward."""
    anchor = torch.zeros((), requires_grad=True)
    # With frozen weights the graph holds no layer's input: 5 % less memory at the search's peak.
    with _frozen(layers), _watching(layers, most, anchor) as calls:
        value = loss()
        made = list(calls)  # a checkpointed model calls its layers again in the backward pass
        torch.autograd.grad(value, anchor, allow_unused=True)
    if processes.count() == 1:
        return [(call.name, call.sample) for call in made]
    return [(call.name, Sample(call.x.cpu(), call.g.cpu(), call.rows)) for call in made]  # what is sent must be there


@torch.no_grad()
def sample_inputs(layers: Mapping[str, nn.Module], losses: Sequence[Callable[[], Tensor]]) -> dict[str, Tensor]:
    """Take each loss forward, and keep up to ``TOKENS`` rows of every layer's inputs, ``(tokens, n)`` in float32."""
    seen: dict[str, list[Sample]] = {name: [] for name in layers}
    with _watching(layers, -(-TOKENS // len(losses))) as calls:
        for loss in losses:
            loss()
    for call in calls:
        seen[call.name].append(call.sample)
    return {name: _joined(samples).x for name, samples in seen.items() if samples}


class _Call:
    """Evenly spread rows of one call of a layer: of its input, and of the gradient in its output once that is known."""

    def __init__(self, name: str, x: Tensor, output: Tensor, most: int) -> None:
        self.name, self.rows = name, output[..., 0].numel()
        self.taken = _spread(self.rows, most, x.device)
        self.x = x.detach().flatten(0, -2)[self.taken].float()
        self.g = self.x.new_zeros(len(self.taken), output.shape[-1])

    @property
    def sample(self) -> Sample:
        return Sample(self.x, self.g, self.rows)


class _Watch(torch.autograd.Function):
    """The identity, which keeps rows of the gradient as it passes.

    ``anchor`` is a leaf that every watched output leads to: a backward pass to it meets them all, whichever weights are
    trained, and holds no gradient longer than it is needed.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor, call: _Call) -> Tensor:
        ctx.call = call
        return output.clone()  # a view could not be changed in place by the model

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        ctx.call.g = grad.flatten(0, -2)[ctx.call.taken].float()
        return grad, None, None


@contextmanager
def _watching(layers: Mapping[str, nn.Module], most: int, anchor: Tensor | None = None) -> Iterator[list[_Call]]:
    """Note every call of the layers, in order, with at most so many rows each.

    Gradients come to the calls when a loss is differentiated in ``anchor``.
    """
    calls: list[_Call] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            calls.append(_Call(name, given[0], output, most))
            return output if anchor is None else cast(Tensor, _Watch.apply(output, anchor, calls[-1]))

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _frozen(layers: Mapping[str, nn.Module]) -> Iterator[None]:
    trained = [weight for layer in layers.values() for weight in layer.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)


def _joined(samples: list[Sample]) -> Sample:
    """One sample of several, of at most ``TOKENS`` rows."""
    x, g = (torch.cat(parts) for parts in zip(*((sample.x, sample.g) for sample in samples), strict=True))
    taken = _spread(len(x), TOKENS, x.device)
    return Sample(x[taken], g[taken], sum(sample.rows for sample in samples))


def _spread(rows: int, most: int, device: torch.device) -> Tensor:
    """Numbers of at most so many rows, evenly spread."""
    return torch.linspace(0, rows - 1, min(most, rows), device=device).round().long()
