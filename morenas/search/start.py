"""Where the architecture's logits start, once the weights are warm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Protocol

from torch import Tensor

from morenas.search.mixture import Mixture
from morenas.space import SearchSpace
from morenas.supernet import Supernet
from morenas.supernet.spectrum import sample_layers, spectrum

SPECTRUM_BATCHES = 3  # batches of the architecture's data that a spectral start looks at, or one for 16 weight steps


@dataclass(frozen=True)
class WarmedUp:
    """What a start is given when the warm-up is over.

    Attributes:
        supernet: Its weights are as the warm-up left them; they may be changed.
        mixture: The logits, still zero; ``mixture.start_at`` sets them.
        loss: Loss on a numbered batch of the architecture's data, of the supernet as it is arranged.
        steps: Weight steps of the whole search.
    """

    supernet: Supernet
    mixture: Mixture
    loss: Callable[[int], Tensor]
    steps: int


class Start(Protocol):
    """Sets the logits between the warm-up and the first architecture step.

    ``open_warmup`` says what the warm-up trains: the open supernet, every candidate with the same weight; or the
    mixture of the candidates. After an open warm-up the optimizer's moments are dropped.
    """

    open_warmup: ClassVar[bool]

    def __call__(self, warm: WarmedUp) -> list[Tensor]:
        """Return further scores of every choice for the selection, each ``(groups, choices)``, higher is better."""
        ...


@dataclass(frozen=True)
class SpectralStart:
    """At closed-form scores of what each candidate keeps of the change that the open supernet learns in the warm-up.

    Every block count takes its own projection of that change for its factors. The logits are set by the scores of the
    curvature; those of the energy go to the selection beside them.

    Attributes:
        entropy: How sure of its scores it is: mean entropy of the distribution that it starts with, in nats a group.
    """

    entropy: float = 0.5
    open_warmup: ClassVar[bool] = True

    def __call__(self, warm: WarmedUp) -> list[Tensor]:
        warm.supernet.open()
        if not any(bool(layer.change().any()) for layer in warm.supernet.layers.values()):
            return []  # the loss reaches no adapter: there is nothing to take apart, and no logit moves
        losses = [partial(warm.loss, number) for number in range(spectrum_batches(warm.steps))]
        found = spectrum(warm.supernet, sample_layers(warm.supernet.layers, losses))
        for name, layer in warm.supernet.layers.items():
            layer.load(found.blocks[name])
        warm.mixture.start_at(found.curvature, self.entropy)
        return [found.energy]


@dataclass(frozen=True)
class LevelStart:
    """At zero: the mixture of the warm-up goes on, and descent alone says what differs."""

    open_warmup: ClassVar[bool] = False

    def __call__(self, warm: WarmedUp) -> list[Tensor]:
        return []


def open_weight(space: SearchSpace, rank: float) -> float:
    """Weight of every slot of the open supernet: it moves a layer as far as an adapter of this rank, at most.

    A step of Adam moves every factor by the learning rate, whatever its gradient, and what the slots add to a layer's
    output then adds up: all block counts at the largest rank would move it several times as far as an adapter does,
    and are ruined by rates that an adapter bears.
    """
    counts = {choice.nblocks for choice in space.choices if choice.blk_r}
    return min(1.0, rank / (len(counts) * max(choice.blk_r for choice in space.choices)))


def spectrum_batches(steps: int) -> int:
    """Batches that a spectral start looks at in a search of so many weight steps."""
    return max(1, min(SPECTRUM_BATCHES, steps // 16))
