"""Asynchronous successive halving (ASHA) over random architectures, by Optuna."""

from __future__ import annotations

import importlib.util

from morenas.benchmark.alone import Training, cohort, evaluate
from morenas.benchmark.methods.found import Found
from morenas.benchmark.methods.random import draw
from morenas.benchmark.problem import Problem, Shapes
from morenas.errors import InputError
from morenas.seeds import derive

RUNGS = (1 / 16, 1 / 4, 1)  # shares of an alone training after which a trial is judged


def successive_halving(problem: Problem, seed: int) -> Found:
    """Train random architectures, stop those that fall behind on "select", until one alone training is spent.

    Source: Li et al. 2020, reduction factor 4.
    """
    if importlib.util.find_spec("optuna") is None:
        raise InputError("Successive halving needs optuna, which is not installed: pip install 'morenas[bench]'.")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=4)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=pruner)
    total, spent, curve = problem.recipe.steps, 0, list[tuple[float, Shapes]]()
    best, reached = None, (-1, float("inf"))
    while spent < total:
        [shapes] = draw(problem, 1, derive(seed, "halving", len(study.trials)))
        trial = study.ask()
        with cohort(problem, [shapes], seed) as members:
            training = Training(problem, members, seed)
            for rung, share in enumerate(RUNGS):
                steps = min(round(share * total), training.step + total - spent)
                spent += steps - training.step
                training.run(steps)
                [loss] = evaluate(problem, members, "select")
                trial.report(loss, rung + 1)
                if (rung, -loss) > (reached[0], -reached[1]):
                    best, reached = shapes, (rung, loss)
                    curve.append((float(spent), shapes))
                if spent >= total or trial.should_prune():
                    break
        study.tell(trial, loss)
    assert best is not None
    return Found(best, float(spent), curve)
