"""What is compared: the search as it is shipped, other searches, and controls. One idea a file.

A method is given a problem and a seed, and may read every split but "test".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from morenas.benchmark.methods.eva import eva_ranks
from morenas.benchmark.methods.fisher import fisher_ranks
from morenas.benchmark.methods.halving import successive_halving
from morenas.benchmark.methods.local import local_search
from morenas.benchmark.methods.logits import random_logits, untrained_logits
from morenas.benchmark.methods.lora import equal_lora
from morenas.benchmark.methods.ours import searched
from morenas.benchmark.methods.para import cut_lora
from morenas.benchmark.methods.random import random_alone, random_shared
from morenas.benchmark.methods.result import SearchResult
from morenas.benchmark.methods.scores import dense_change, dense_energy, early_gradient
from morenas.benchmark.methods.uniform import best_uniform
from morenas.benchmark.problem import Problem

SearchMethod = Callable[[Problem, int], SearchResult]

OURS = "morenas"
LEVEL: dict[str, Any] = {"start": "level", "selection": "budgeted", "steps": 0.7, "warmup": 0.2}
"""A search from level logits: 0.7 of the recipe's weight steps, an architecture step at every second of them."""

METHODS: dict[str, SearchMethod] = {
    OURS: searched(),
    "no architecture steps": searched(arch_steps=0),
    "cheapest": searched(length=1.05),
    "softmax": searched(**LEVEL, relaxation="softmax"),
    "gumbel": searched(**LEVEL, relaxation="gumbel", temperature_start=5.0, temperature_end=0.5),
    "dirichlet": searched(**LEVEL, relaxation="dirichlet"),
    "random": random_alone,
    "random, shared": random_shared,
    "uniform": best_uniform,
    "halving": successive_halving,
    "local search": local_search,
    "lora": equal_lora,
    "para": cut_lora,
    "eva ranks": eva_ranks,
    "fisher ranks": fisher_ranks,
    "random logits": random_logits,
    "untrained logits": untrained_logits,
    "early gradient": early_gradient,
    "dense change": dense_change,
    "dense energy": dense_energy,
}
"""Every method by its name in tables."""

__all__ = ["METHODS", "OURS", "SearchMethod"]
