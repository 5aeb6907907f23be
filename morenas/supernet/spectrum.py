"""What each candidate could keep of a trained change of the weights: scores of every choice, in closed form.

The open supernet, every candidate present with weight 1, is trained as one adapter. Its change D of a frozen weight is
then projected onto the class of every candidate, which leaves E = D - M. Two scores tell how little that loses:

- energy: ``|D|^2 - |E|^2``, which looks at the weights alone;
- curvature: ``rows (tr(G D A D') - tr(G E A E'))`` with ``A = mean x x'`` of inputs and ``G = mean g g'`` of the loss's
  gradients in outputs: the second-order change of the loss, inputs and gradients taken as independent (Martens and
  Grosse 2015).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from morenas.monarch import Link, project, to_dense
from morenas.space.choices import Choice
from morenas.supernet.inject import Supernet

TOKENS = 1024  # rows kept of what each layer saw, at most

Blocks = dict[int, tuple[Tensor, Tensor]]
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
    blocks: dict[str, Blocks]


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


def projections(change: Tensor, choices: Iterable[Choice]) -> Blocks:
    """The best blocks of every block count for ``change`` ``(m, n)``, at the largest rank; smaller ranks are nested."""
    adapters = [choice for choice in choices if choice.blk_r]
    rank = max(choice.blk_r for choice in adapters)
    return {count: project(change, count, rank, Link.CYCLIC) for count in sorted({c.nblocks for c in adapters})}


@torch.no_grad()
def kept(change: Tensor, blocks: Blocks, choices: Iterable[Choice], sample: Sample | None = None) -> Tensor:
    """What every choice keeps of ``change`` ``(m, n)``: shape ``(choices,)``, dtype of ``change``, on the processor.

    Args:
        blocks: The projections of ``change``, with every block count and rank of the choices.
        sample: What the layer saw, for the curvature; the energy without.
    """
    size = _energy if sample is None else _curvature(sample, change)
    whole = size(change)
    return torch.stack([whole - size(error) for error in _errors(change, blocks, choices)]).cpu()


def _energy(matrix: Tensor) -> Tensor:
    return matrix.square().sum()


def _curvature(sample: Sample, like: Tensor) -> Callable[[Tensor], Tensor]:
    """``rows tr(G E A E')`` as a function of E ``(m, n)``, by second moments or by rows, whichever multiply less."""
    x, g = sample.x.to(like), sample.g.to(like)
    (tokens, n), m = x.shape, g.shape[1]
    scale = sample.rows / tokens**2
    if n * (n + m) < tokens * (n + tokens):
        moments, gradients = x.T @ x, g.T @ g
        return lambda matrix: scale * ((matrix @ moments) * (gradients @ matrix)).sum()
    return lambda matrix: scale * (g @ matrix @ x.T).square().sum()


def _errors(change: Tensor, blocks: Blocks, choices: Iterable[Choice]) -> Iterator[Tensor]:
    """What each choice leaves of ``change``."""
    out_features, in_features = change.shape
    for count, rank in choices:
        if rank:
            first, second = blocks[count]
            yield change - to_dense(first[:, :rank], second[:, :, :rank], Link.CYCLIC, in_features, out_features)
        else:
            yield change


def sample_layers(layers: Mapping[str, nn.Module], losses: Iterable[Callable[[], Tensor]]) -> dict[str, Sample]:
    """Take each loss forward and backward, and keep up to ``TOKENS`` evenly spread rows of what every layer saw.

    ``grad`` of no tensor is touched. Gradients are zero where the loss does not depend on a layer's output; layers
    that no loss calls are absent.

    Returns:
        Layer name to its sample, in float32.
    """
    seen: dict[str, list[Sample]] = {name: [] for name in layers}
    for loss in losses:
        calls, value = _watched(layers, loss)
        outputs = [call.output for call in calls]
        grads = torch.autograd.grad(value, outputs, allow_unused=True, materialize_grads=True)
        for call, grad in zip(calls, grads, strict=True):
            x, g = call.x.flatten(0, -2), grad.flatten(0, -2)
            seen[call.name].append(_thin([Sample(x, g, len(x))]))
    return {name: _thin(samples) for name, samples in seen.items() if samples}


@torch.no_grad()
def sample_inputs(layers: Mapping[str, nn.Module], losses: Iterable[Callable[[], Tensor]]) -> dict[str, Tensor]:
    """Take each loss forward, and keep up to ``TOKENS`` rows of every layer's inputs, ``(tokens, n)`` in float32."""
    seen: dict[str, list[Sample]] = {name: [] for name in layers}
    for loss in losses:
        for name, x, _ in _watched(layers, loss)[0]:
            rows = x.flatten(0, -2)
            seen[name].append(_thin([Sample(rows, rows, len(rows))]))
    return {name: _thin(samples).x for name, samples in seen.items() if samples}


class _Call(NamedTuple):
    """A call of a layer: input ``(..., n)``, without its graph, and output ``(..., m)``."""

    name: str
    x: Tensor
    output: Tensor


def _watched(layers: Mapping[str, nn.Module], loss: Callable[[], Tensor]) -> tuple[list[_Call], Tensor]:
    """Every call of the layers during a loss, in order, and the loss."""
    calls: list[_Call] = []

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def hook(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if torch.is_grad_enabled() and not output.requires_grad:  # all below it is frozen
                output = output.detach().requires_grad_().clone()
            calls.append(_Call(name, given[0].detach(), output))
            return output

        return hook

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        return calls, loss()
    finally:
        for handle in handles:
            handle.remove()


def _thin(samples: list[Sample]) -> Sample:
    x, g = (torch.cat(parts).float() for parts in zip(*((sample.x, sample.g) for sample in samples), strict=True))
    taken = torch.linspace(0, len(x) - 1, min(TOKENS, len(x)), device=x.device).round().long()
    return Sample(x[taken], g[taken], sum(sample.rows for sample in samples))
