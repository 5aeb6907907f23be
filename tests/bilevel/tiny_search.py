"""The bilevel problem of a search on a tiny classifier, as ``morenas.search.engine`` builds it, in any precision."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tiny_models import shallow, tiny_batch
from torch import Tensor, nn

from morenas.base.registry import registry
from morenas.base.seeds import derive
from morenas.bilevel import BilevelLoop, BilevelProblem, Level, Schedule, Step, StepReport, first_order, hold_budget
from morenas.models import target_linears
from morenas.models.heads import find_head
from morenas.space import SearchSpace, build_space
from morenas.supernet import Supernet

WARMUP, RATE, CLIP, BUDGET, TEMPERATURE = 8, 5e-3, 1.0, 300, 1.0


class _Enough(Exception):
    pass


@dataclass
class TinySearch:
    """A loop that has warmed its weights up and stands before an upper step."""

    problem: BilevelProblem
    loop: BilevelLoop

    @classmethod
    def build(
        cls,
        warmup: int = WARMUP,
        accumulation: int = 1,
        bf16: bool = False,
        dtype: torch.dtype = torch.float32,
        relaxation: str = "softmax",
        family: str = "bert",
        sharing: str = "full",
        **config: Any,
    ) -> TinySearch:
        """Dropout is that of the model's config; ``config`` overrides it."""
        model: nn.Module = shallow(family, **config)
        model.to(dtype).requires_grad_(False)
        head = [parameter for name in find_head(model) for parameter in model.get_submodule(name).parameters()]
        space = build_space(target_linears(model, "all-linear", find_head(model)), [1, 2, 4], [0, 1, 2])
        supernet = Supernet(model, space, sharing)
        arch = torch.zeros(space.costs().shape, dtype=dtype, requires_grad=True)
        weights = [*supernet.weights().values(), *(weight.requires_grad_() for weight in head)]
        losses = _Losses(model, supernet, space, arch, relaxation)
        problem = BilevelProblem(
            Level("lower", lambda n: losses("lower", n, bf16), accumulation, lambda n: losses("lower", n, False)),
            Level("upper", lambda n: losses("upper", n, bf16), accumulation),
            weights,
            [arch],
        )
        optimizers = torch.optim.AdamW(weights, RATE, weight_decay=1e-3), torch.optim.Adam([arch], 0.1)
        schedule = Schedule(3 * WARMUP, warmup, 1, max_grad_norm=CLIP)
        search = cls(problem, BilevelLoop(problem, first_order, *optimizers, schedule))
        return search.warmed_up(warmup)

    def warmed_up(self, steps: int) -> TinySearch:
        def stop(report: StepReport) -> None:
            if report.step + 1 == steps:
                raise _Enough

        with contextlib.suppress(_Enough):
            if steps:
                self.loop.run(stop)
        return self

    def step(self) -> Step:
        """The upper step that is next, as the loop gives it to its hypergradient."""
        seen: list[Step] = []

        def note(problem: BilevelProblem, step: Step) -> Any:
            seen.append(step)
            raise _Enough

        self.loop.hypergradient = note
        with contextlib.suppress(_Enough):
            self.loop.run()
        return seen[0]

    def state(self) -> dict[str, Tensor]:
        return {name: value.clone() for name, value in self.loop.state_tensors().items()}


@dataclass
class _Losses:
    model: nn.Module
    supernet: Supernet
    space: SearchSpace
    arch: Tensor
    relaxation: str

    def __call__(self, level: str, number: int, bf16: bool) -> Tensor:
        """Every draw is seeded by the number of the micro-batch; dropout is for the weights alone."""
        seed = derive(0, level, number)
        torch.default_generator.manual_seed(seed)
        tilted = hold_budget(
            self.arch.masked_fill(~self.space.admissible(), -torch.inf), self.space.costs(), BUDGET, TEMPERATURE
        )
        generator = torch.Generator().manual_seed(seed)
        self.supernet.mix(registry("relaxation").build(self.relaxation).mixing_probs(tilted, TEMPERATURE, generator))
        self.model.train(level == "lower")
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss: Tensor = self.model(**tiny_batch(size=8, seed=seed % 2**31)).loss
        return loss


def cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    a, b = (torch.cat([tensor.double().flatten() for tensor in tensors]) for tensors in (one, other))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Norm of the difference over the norm of what is expected."""
    a, b = (torch.cat([tensor.double().flatten() for tensor in tensors]) for tensors in (found, expected))
    return float((a - b).norm() / b.norm())
