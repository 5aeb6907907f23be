"""Asynchronous successive halving (ASHA) over random architectures, by Optuna."""

from __future__ import annotations

import importlib.util

from morenas.base.errors import InputError
from morenas.base.seeds import derive
from morenas.benchmark.alone import Training, cohort, evaluate
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.problem import Problem, Shapes
from morenas.benchmark.reference import draw

FACTOR = 4  # of the training from one rung to the next; as many trials are judged before one is let through
RUNGS = (1, FACTOR, FACTOR**2)  # when a trial is judged, in the smallest trainings; the last is a whole one


def successive_halving(problem: Problem, seed: int) -> SearchResult:
    """Train random architectures, stop those that fall behind on "select", until one alone training is spent.

    Source: Li et al. 2020; a trial that was stopped is not taken up again.
    """
    if importlib.util.find_spec("optuna") is None:
        raise InputError("Successive halving needs optuna, which is not installed: pip install 'morenas[bench]'.")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.SuccessiveHalvingPruner(
        min_resource=RUNGS[0], reduction_factor=FACTOR, bootstrap_count=FACTOR
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    total, spent, curve = problem.recipe.steps, 0, list[tuple[float, Shapes]]()
    best, reached = None, (-1, float("inf"))
    while spent < total:
        [shapes] = draw(problem, 1, derive(seed, "halving", len(study.trials)))
        trial = study.ask()
        with cohort(problem, [shapes], seed) as members:
            training = Training(problem, members, seed)
            for rung, resource in enumerate(RUNGS):
                steps = min(round(resource / RUNGS[-1] * total), training.step + total - spent)
                spent += steps - training.step
                training.run(steps)
                [loss] = evaluate(problem, members, "select")
                trial.report(loss, resource)
                if (rung, -loss) > (reached[0], -reached[1]):
                    best, reached = shapes, (rung, loss)
                    curve.append((float(spent), shapes))
                if spent >= total or trial.should_prune():
                    break
        study.tell(trial, loss)
    assert best is not None
    return SearchResult(best, float(spent), curve, {"trials": float(len(study.trials))})
