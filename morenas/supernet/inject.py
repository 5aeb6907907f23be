"""Put a supernet layer in the place of every searched linear layer, and take them out again."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from morenas.space.candidates import Choice
from morenas.space.choices import SearchSpace
from morenas.supernet.layer import SupernetLinear


class Supernet:
    """The supernet layers of a model.

    The model is changed in place: every searched layer is wrapped, until ``remove`` puts the originals back. The
    model's own parameters are left as they are; freezing them is the caller's business.

    Attributes:
        open_weight: Of every slot while the supernet is open.
    """

    def __init__(
        self, model: nn.Module, space: SearchSpace, sharing: str = "full", seed: int = 0, open_weight: float = 1.0
    ) -> None:
        self.model = model
        self.space = space
        self.open_weight = open_weight
        generator = torch.Generator().manual_seed(seed)
        self.layers = {
            name: SupernetLinear(model.get_submodule(name), features, space.choices, sharing, generator)
            for name, features in space.modules.items()
        }
        for name, layer in self.layers.items():
            _replace(model, name, layer)

    def weights(self) -> dict[str, nn.Parameter]:
        """Adapter weights by name, in module order."""
        return {
            f"{name}.{kind}": weight
            for name, layer in self.layers.items()
            for kind, weight in (("first", layer.first), ("second", layer.second))
        }

    def mix(self, probs: Tensor) -> None:
        """Set the mixing probabilities ``(groups, choices)`` of the passes to come.

        Of a group whose row is one-hot and needs no gradient, the chosen candidate alone is computed. Probabilities
        are best given on the CPU: elsewhere, looking for such rows waits for the device.
        """
        drawn = _drawn(probs)
        device = next(iter(self.layers.values())).first.device
        for row, index, names in zip(
            probs.to(device, non_blocking=True).unbind(), drawn, self.space.groups.values(), strict=True
        ):
            for name in names:
                if index is None:
                    self.layers[name].mix(row)
                else:
                    self.layers[name].draw(self.space.choices[index])

    def open(self) -> None:
        """Let every slot of every layer take part with ``open_weight`` in the passes to come."""
        for layer in self.layers.values():
            layer.open(self.open_weight)

    def draw(self, shapes: Mapping[str, Choice]) -> None:
        """Take one architecture in the passes to come; modules that it does not name go without an adapter."""
        for name, layer in self.layers.items():
            layer.draw(Choice(*shapes.get(name, (1, 0))))

    def factors(self, shapes: Mapping[str, Choice]) -> dict[str, tuple[Tensor, Tensor]]:
        """The trained blocks of an architecture, as discrete adapters under the cyclic link take them."""
        return {name: self.layers[name].factors(Choice(*shape)) for name, shape in shapes.items()}

    def remove(self) -> None:
        """Put the original layers back."""
        for name, layer in self.layers.items():
            _replace(self.model, name, layer.base)


def _drawn(probs: Tensor) -> list[int | None]:
    """Of each row the index of its only choice; None where there are several, or where gradients are to reach all."""
    if probs.requires_grad:
        return [None] * len(probs)
    only = (probs == 1).any(dim=1) & ((probs != 0).sum(dim=1) == 1)
    return [index if one else None for index, one in zip(probs.argmax(dim=1).tolist(), only.tolist(), strict=True)]


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
