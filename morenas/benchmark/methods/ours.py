"""The search as users get it, and variants of it: ``morenas.search_architecture``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from morenas.base.seeds import derive
from morenas.benchmark.alone import mean_loss, train_alone
from morenas.benchmark.descend import descend
from morenas.benchmark.methods.lora import equal_lora
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem, Recipe
from morenas.benchmark.reference import random_architectures
from morenas.search.config import SearchKeys
from morenas.search.engine import SearchData, SearchOutcome, SearchSettings, search_architecture
from morenas.search.length import RunLength
from morenas.supernet import Supernet

RUN = SearchKeys()


def searched(
    steps: float | None = None, warmup: float = 1.0, length: float = RUN.length, **changes: Any
) -> Callable[[Problem, int], SearchResult]:
    """A method that searches with the default settings but for ``changes``.

    Without ``steps`` it is one run, and ``details`` say what comes of it: the test loss ("one_run") of the found
    adapter once it was trained on from the supernet's weights, that of LoRA of equal parameters trained alone for as
    many passes ("lora_equal_passes"), and how many they are, in trainings alone ("one_run_cost"). "worth" is
    what the search itself expects to gain over LoRA.

    Args:
        steps: Weight steps of a search alone, as a share of the recipe's; None for those of the one run.
        warmup: Share of the weight steps before the first architecture step.
        length: Passes of the one run, as a multiple of the recipe's.
    """

    def method(problem: Problem, seed: int) -> SearchResult:
        recipe, whole = problem.recipe, RunLength(length * problem.recipe.steps, RUN.share)

        def settings(total: int) -> SearchSettings:
            return _settings(recipe, total, warmup, seed=seed, **changes)

        total = whole.search_steps(settings) if steps is None else round(steps * recipe.steps)
        details, scores = dict[str, float](), list[float]()

        def inspect(supernet: Supernet, outcome: SearchOutcome, measure: Callable[[Sequence[int]], float]) -> None:
            scores.extend(_scores(problem, measure))
            details.update(_gap(problem, supernet, outcome))
            if steps is None:
                trained = whole.found_steps(outcome.architecture.search["passes"])
                details["one_run"] = _carry_on(problem, supernet, outcome, trained, seed)

        outcome = search_architecture(
            problem.model,
            SearchData(
                problem.batches("search_train", derive(seed, "search", "train")),
                problem.batches("search_val", derive(seed, "search", "val")),
            ),
            problem.space,
            problem.budget,
            settings(total),
            problem.head,
            loss=lambda model, batch: problem.losses(model, batch).mean(),
            inspect=inspect,
        )
        if outcome.worth is not None:
            details["worth"] = outcome.worth.gain
        passes: float = outcome.architecture.search["passes"]
        if steps is None:
            in_all = passes + whole.found_steps(passes)
            [rival] = train_alone(problem, [equal_lora(problem, seed).shapes], seed, round(in_all))
            details.update(one_run_cost=in_all / recipe.steps, lora_equal_passes=rival.test)
        return SearchResult(outcome.shapes, passes, [(passes, outcome.shapes)], details, scores)

    return method


def _settings(recipe: Recipe, steps: int, warmup: float, **changes: Any) -> SearchSettings:
    return SearchSettings(
        steps=steps,
        warmup=round(warmup * steps),
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        **changes,
    )


def _scores(problem: Problem, measure: Callable[[Sequence[int]], float]) -> list[float]:
    """The supernet's losses of the reference architectures."""
    space = problem.space
    scores = []
    for shapes in random_architectures(problem):
        picks = [space.choices.index(shapes.get(names[0], space.choices[0])) for names in space.groups.values()]
        scores.append(measure(picks))
    return scores


def _carry_on(problem: Problem, supernet: Supernet, outcome: SearchOutcome, steps: int, seed: int) -> float:
    """Test loss of what was found, once its adapters were trained on with the rate falling to zero."""
    supernet.draw(outcome.shapes)
    weights = [weight for weight in problem.model.parameters() if weight.requires_grad]
    descend(problem, weights, steps, derive(seed, "carried"), split="final", ramp=0.0)
    return mean_loss(problem, "test")


def _gap(problem: Problem, supernet: Supernet, outcome: SearchOutcome) -> dict[str, float]:
    """Test losses, for the report alone: of the final mixture, and of what was found, in the supernet's weights."""
    supernet.mix(outcome.probs)
    relaxed = mean_loss(problem, "test")
    supernet.draw(outcome.shapes)
    return {"relaxed": relaxed, "inherited": mean_loss(problem, "test")}
