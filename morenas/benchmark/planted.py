"""Planted problems: frozen random residual nets whose data were made by a known adapter on every module.

A problem is a pure function of its family and number. Families go from easy to hard; development looks at numbers
below 100 and the published table at 1100 to 1149 only. (Those from 1000 to 1049 were published before, and seen.)
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from morenas.base.errors import InputError, suggest
from morenas.base.seeds import derive
from morenas.benchmark.batches import ShuffledBatches
from morenas.benchmark.problem import Batch, Recipe, Shapes, cost
from morenas.monarch import Link, block_sizes, to_dense
from morenas.space import Choice, SearchSpace, build_space

NBLOCKS, RANKS = (1, 2, 4, 8), (0, 1, 2, 4)
WIDTHS = (32, 32, 32, 48, 48, 64, 64, 96, 128)  # drawn evenly: small ones are more frequent
DEEP = 12  # modules above which nets are narrow, so that no problem takes many times as long as another
MODULES = (4, 6, 8, 8, 12, 12, 16, 24)
STRENGTH = 0.7  # norm of a planted change, relative to the frozen weight's
Net = TypeVar("Net", bound=nn.Module)
SHARES = {"search_train": 0.60, "search_val": 0.25, "select": 0.15}
TEST = 2048  # examples, without noise


@dataclass(frozen=True)
class Family:
    """What makes problems of a family hard.

    Attributes:
        examples: Of all splits but the test set.
        per_module: Examples for each module, in place of ``examples`` where above 0.
        noise: Standard deviation of what is added to every target.
        decay: Orders of magnitude that the inputs' standard deviations span over a random rotation; 0 is white.
        dense: Norm of a dense change that no class holds, relative to the planted one.
        budget: Share of the planted architecture's parameters.
        nblocks: Block counts that are planted.
    """

    examples: int = 4096
    per_module: int = 0
    noise: float = 0.05
    decay: float = 0.0
    dense: float = 0.0
    budget: float = 1.0
    nblocks: tuple[int, ...] = NBLOCKS


FAMILIES = {
    "plain": Family(),
    "noisy": Family(per_module=256, noise=0.5),
    "correlated": Family(decay=1.5),
    "outside": Family(dense=0.35),
    "half": Family(budget=0.5),
}
"""The published families, easy first."""


class ResidualNet(nn.Module):
    """Blocks ``x + s tanh(W x)`` of one square module, or ``x + s V tanh(W x)`` of two rectangular ones."""

    def __init__(self, width: int, hidden: list[int | None]) -> None:
        """Build a block for each entry: its inner width, or None for a square module. Weights hold no values yet."""
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.ModuleList([_linear(width, width)] if h is None else [_linear(width, h), _linear(h, width)])
            for h in hidden
        )
        self.scale = len(hidden) ** -0.5

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., width)`` to ``(..., width)``."""
        for block in self.blocks:
            inner_layer, *outer = cast(nn.ModuleList, block)
            inner = torch.tanh(inner_layer(x))
            x = x + self.scale * (outer[0](inner) if outer else inner)
        return x


class PlantedProblem:
    """A problem of one family; see ``morenas.benchmark.problem.Problem``.

    ``planted`` is the architecture that made the data. Its parameters are the budget but where the family says less.

    Another table of such problems names itself and its families, and plants in nets of its own.

    Attributes:
        changes: Of every module, what was added to its weight ``(m, n)`` when the data were made.
    """

    table = "planted"
    families: ClassVar[Mapping[str, Family]] = FAMILIES
    draws = ""  # what the names of its draws begin with
    recipe = Recipe(steps=600, learning_rate=1e-2, batch_size=128)
    model: nn.Module
    head: tuple[str, ...] = ()
    tokens: tuple[int, ...] = ()
    """Sizes between an example and its features: none, or the length of a sequence."""

    def __init__(self, family: str, number: int) -> None:
        """Make problem ``number`` of a family.

        Raises:
            InputError: If the family is unknown.
        """
        if family not in self.families:
            known = self.families
            raise InputError(f"{self.table} family {family!r}: choose from {', '.join(known)}{suggest(family, known)}")
        self.family, self.number, self.rules = family, number, self.families[family]
        rng = random.Random(f"{self.draws}{family}/{number}")
        self._plant(rng, torch.Generator().manual_seed(derive(number, self.table, family)))

    def _plant(self, rng: random.Random, generator: torch.Generator) -> None:
        """Make the frozen net, the space, the planted architecture, its budget and the data."""
        modules = rng.choice(MODULES)
        width = rng.choice(WIDTHS if modules <= DEEP else WIDTHS[:5])
        hidden = _hidden_widths(rng, modules)
        hidden = [h and max(32, min(128, round(h * width))) for h in hidden]
        self.model = _frozen_net(width, hidden, generator)  # type: ignore[arg-type]
        self.space = _space(self.model)
        self.planted = plant(self.space, rng, self.rules.nblocks)
        self.budget = int(self.rules.budget * cost(self.space, self.planted))
        teacher = _frozen_net(width, hidden, generator)  # type: ignore[arg-type]
        self._teach(teacher, width, generator)

    def _teach(self, teacher: nn.Module, width: int, generator: torch.Generator) -> None:
        """Make the teacher of a net of the model's kind, and the data with it."""
        teacher.requires_grad_(False).load_state_dict(self.model.state_dict())
        self.changes = {
            name: _change(self.space.modules[name], self.planted.get(name), self.rules.dense, generator)
            for name in self.space.modules
        }
        for name, change in self.changes.items():
            teacher.get_submodule(name).get_parameter("weight").add_(change)
        self._make_data(teacher, width, generator)

    def _make_data(self, teacher: nn.Module, width: int, generator: torch.Generator) -> None:
        shape = _input_shape(width, self.rules.decay, generator)

        def draw(examples: int, noise: float) -> dict[str, Tensor]:
            x = torch.randn(examples, *self.tokens, width, generator=generator) @ shape
            y: Tensor = teacher(x)
            return {"x": x, "y": y + noise * torch.randn(y.shape, generator=generator)}

        examples = self.rules.per_module * len(self.space.modules) or self.rules.examples
        self._test, self._train = draw(TEST, 0.0), draw(examples, self.rules.noise)
        ends = [round(examples * sum(list(SHARES.values())[: k + 1])) for k in range(len(SHARES))]
        self._rows = {name: range(start, end) for name, start, end in zip(SHARES, [0, *ends], ends, strict=False)}
        self._rows["final"] = range(ends[1])

    def examples(self, split: str) -> Batch:
        """The whole split, ``x`` and ``y`` of shape ``(examples, *tokens, width)``.

        Raises:
            KeyError: If there is no such split.
        """
        if split == "test":
            return self._test
        rows = self._rows[split]
        return {key: values[rows.start : rows.stop] for key, values in self._train.items()}

    def batches(self, split: str, seed: int) -> ShuffledBatches:
        """Shuffled batches of the split."""
        return ShuffledBatches(self.examples(split), self.recipe.batch_size, seed)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean squared error of each example, shape ``(examples,)``."""
        return F.mse_loss(model(batch["x"]), batch["y"], reduction="none").flatten(1).mean(dim=1)


def _hidden_widths(rng: random.Random, modules: int) -> list[float | None]:
    """Inner widths of blocks, relative to the net's: as many blocks as use up ``modules``."""
    left, hidden = modules, list[float | None]()
    while left:
        rectangular = left >= 2 and rng.random() < 0.5
        hidden.append(rng.choice((0.5, 1.0, 2.0)) if rectangular else None)
        left -= 2 if rectangular else 1
    return hidden


def _linear(in_features: int, out_features: int) -> nn.Linear:
    """A layer without values: torch would draw them from its global generator."""
    return cast(nn.Linear, nn.utils.skip_init(nn.Linear, in_features, out_features))


def _frozen_net(width: int, hidden: list[int | None], generator: torch.Generator) -> ResidualNet:
    return frozen(ResidualNet(width, hidden), generator)


def frozen(net: Net, generator: torch.Generator) -> Net:
    """The net with random values: biases small, weights such that features keep their size."""
    net.requires_grad_(False)
    for name, parameter in net.named_parameters():
        scale = 0.1 if name.endswith("bias") else parameter.shape[1] ** -0.5
        parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return net


def _space(net: nn.Module) -> SearchSpace:
    linears = {name: (m.in_features, m.out_features) for name, m in net.named_modules() if isinstance(m, nn.Linear)}
    return build_space(linears, NBLOCKS, RANKS)


def plant(space: SearchSpace, rng: random.Random, nblocks: Sequence[int], needed: Sequence[int] = ()) -> Shapes:
    """An even draw of "none" or a shape of these block counts for every module; at least two modules get an adapter.

    Args:
        needed: Block counts that occur in the draw whatever happens.
    """
    choices = [choice for choice in space.choices if not choice.blk_r or choice.nblocks in nblocks]
    while True:
        drawn = {name: rng.choice(choices) for name in space.modules}
        planted = {name: choice for name, choice in drawn.items() if choice.blk_r}
        if len(planted) >= 2 and {choice.nblocks for choice in planted.values()}.issuperset(needed):
            return planted


def _change(features: tuple[int, int], choice: Choice | None, dense: float, generator: torch.Generator) -> Tensor:
    """What the data know of a module: a Monarch matrix of norm ``STRENGTH sqrt(m)``, and a dense remainder."""
    n, m = features
    change = torch.zeros(m, n)
    if choice is not None:
        width, height = block_sizes(n, m, choice.nblocks)
        first = torch.randn(choice.nblocks, choice.blk_r, width, generator=generator)
        second = torch.randn(choice.nblocks, height, choice.blk_r, generator=generator)
        change = _of_norm(to_dense(first, second, Link.CYCLIC, n, m), STRENGTH * math.sqrt(m))
    if dense:
        change = change + _of_norm(torch.randn(m, n, generator=generator), dense * STRENGTH * math.sqrt(m))
    return change


def _of_norm(matrix: Tensor, norm: float) -> Tensor:
    return matrix * (norm / matrix.norm())


def _input_shape(width: int, decay: float, generator: torch.Generator) -> Tensor:
    """What white noise is multiplied with to give inputs, ``(width, width)``; variance 1 a feature in the mean."""
    if not decay:
        return torch.eye(width)
    rotation = torch.linalg.qr(torch.randn(width, width, generator=generator))[0]
    return _of_norm(rotation * torch.logspace(0, -decay, width) @ rotation.T, math.sqrt(width))
