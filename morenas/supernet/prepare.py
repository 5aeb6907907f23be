"""Make a model ready to be searched, and give it back as it came."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from morenas.space.choices import SearchSpace
from morenas.supernet.inject import Supernet


@contextmanager
def prepared(
    model: nn.Module,
    space: SearchSpace,
    sharing: str,
    seed: int,
    head: Sequence[str] = (),
    open_weight: float = 1.0,
) -> Iterator[tuple[Supernet, dict[str, nn.Parameter]]]:
    """Freeze the model but for its head and inject a supernet; undo all of it at the end.

    Yields:
        The supernet, and the head's parameters by name.
    Raises:
        ValueError: If ``sharing`` is unknown.
        AttributeError: If the model lacks a module of the space or the head.
    """
    with trainable_head(model, head) as head_weights:
        supernet = Supernet(model, space, sharing, seed, open_weight)
        try:
            yield supernet, head_weights
        finally:
            supernet.remove()


@contextmanager
def trainable_head(model: nn.Module, head: Sequence[str]) -> Iterator[dict[str, nn.Parameter]]:
    """Freeze the model but for the modules named.

    At the end the values of their parameters and of all buffers, every ``grad``, and the flags of every parameter and
    module are those of before.

    Raises:
        AttributeError: If the model lacks a module named.
    """
    required = {parameter: (parameter.requires_grad, parameter.grad) for parameter in model.parameters()}
    training = {module: module.training for module in model.modules()}
    head_weights = {
        f"{module}.{name}": parameter
        for module in head
        for name, parameter in model.get_submodule(module).named_parameters()
    }
    initial = {tensor: tensor.detach().clone() for tensor in (*head_weights.values(), *model.buffers())}
    model.requires_grad_(False)
    for parameter in head_weights.values():
        parameter.requires_grad_(True)
    try:
        yield head_weights
    finally:
        with torch.no_grad():
            for tensor, value in initial.items():
                if not torch.equal(tensor, value):  # a buffer that was expanded cannot be written
                    tensor.copy_(value)
        for parameter, (requires_grad, grad) in required.items():
            parameter.requires_grad_(requires_grad).grad = grad
        for module, flag in training.items():
            module.training = flag


def evaluation_mode(model: nn.Module) -> None:
    """Evaluation mode, in which gradient checkpointing stays on for layers that have no dropout of their own.

    transformers' layers do so in training mode alone; the architecture is judged without dropout, in as little memory.
    """
    model.eval()
    for module in model.modules():
        checkpointed = isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
        own = getattr(module, "dropout", 0.0)  # a dropout module is in evaluation mode already, a rate is not
        if checkpointed and not (isinstance(own, float) and own > 0):
            module.training = True
