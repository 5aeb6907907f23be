"""PARA: a large LoRA is trained, cut by one threshold of singular values, and what is left is trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from morenas.base.seeds import derive
from morenas.benchmark.alone import Training, cohort, evaluate
from morenas.benchmark.cohort import Cohort
from morenas.benchmark.methods.ours import RUN
from morenas.benchmark.methods.ranked import lora_shapes, most_ranks
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem, Shapes
from morenas.monarch import Factors
from morenas.space import Choice
from morenas.supernet.prepare import trainable_head

LARGE = 4.0  # rank of the large LoRA, in even ranks of the budget


def cut_lora(problem: Problem, seed: int) -> SearchResult:
    """Train a LoRA of ``LARGE`` times the budget for as long as our search, then keep the largest singular values.

    Its own schedule falls to zero, and the training of what is left has one of its own, from a ramp on.

    Source: Kumaravelu, Gupta and Srijith 2026, "Post-optimization adaptive rank allocation for LoRA" (arXiv
    2604.27796). Training on after the cut is ours, so that no pass of its share is left unused.
    """
    steps, rank = round(RUN.share * RUN.length * problem.recipe.steps), most_ranks(problem, LARGE)
    large = {name: Choice(1, min(rank, *features)) for name, features in problem.space.modules.items()}
    with cohort(problem, [large], seed) as members:
        Training(problem, members, seed, steps).run(steps)
        heads = members.head(0)
        spectra = {name: spectrum(pair) for name, pair in members.factors(0).items()}
    shapes = lora_shapes(problem, {name: values.tolist() for name, (values, _) in spectra.items()})
    starts = {name: shortened(spectra[name][1], choice.blk_r) for name, choice in shapes.items()}

    def finish(left: int) -> float:
        with _started(problem, shapes, starts, heads) as members:
            Training(problem, members, derive(seed, "para"), left).run(left)
            return evaluate(problem, members, "test")[0]

    return SearchResult(shapes, float(steps), finish=finish)


@contextmanager
def _started(
    problem: Problem, shapes: Shapes, starts: Mapping[str, Factors], heads: Mapping[str, Tensor]
) -> Iterator[Cohort]:
    """A cohort of one whose adapters and head start from these."""
    with trainable_head(problem.model, problem.head) as own:
        for name, value in heads.items():
            own[name].data.copy_(value)
        with Cohort(problem.model, problem.space.modules, [shapes], problem.head, starts=[starts]) as members:
            yield members


def spectrum(pair: Factors) -> tuple[Tensor, Factors]:
    """Singular values of a LoRA, descending, and the same LoRA with a slot for each, half of the value on each side.

    Args:
        pair: One block: ``first`` ``(1, r, n)`` and ``second`` ``(1, m, r)``.
    """
    (q, left), (p, right) = torch.linalg.qr(pair[1][0]), torch.linalg.qr(pair[0][0].T)
    u, values, vt = torch.linalg.svd(left @ right.T)
    root = values.sqrt()
    return values, ((root[:, None] * (vt @ p.T))[None], (q @ u * root)[None])


def shortened(pair: Factors, rank: int) -> Factors:
    """The first slots of a LoRA."""
    return pair[0][:, :rank].contiguous(), pair[1][:, :, :rank].contiguous()
