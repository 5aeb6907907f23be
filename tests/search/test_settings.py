"""SearchSettings: declared once, for Python and for the command line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import shallow
from tiny_search import SETTINGS, search
from torch import Tensor

from morenas.base.errors import InputError
from morenas.base.settings import meanings, names_of, record
from morenas.bilevel import EntropyGuard, MixedLevel, Unrolled, double_backward
from morenas.bilevel.hypergradients.first_order import first_order
from morenas.search.settings import SearchSettings
from morenas.supernet import Gumbel, Relaxation


@dataclass(frozen=True)
class Squared(Relaxation):
    """Softmax of logits times a number."""

    sharpness: float = 2.0

    def mixing_probs(self, logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        return torch.softmax(self.sharpness * logits, dim=-1)


def test_it_is_imported_without_torch() -> None:
    program = "import sys, morenas.search.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_field_says_what_it_means() -> None:
    said = meanings(SearchSettings)
    assert list(said) == [declared.name for declared in fields(SearchSettings)]
    assert all(len(text) > 10 for text in said.values())


def test_names_are_listed_without_an_import() -> None:
    taken = {declared.name: names_of(declared) for declared in fields(SearchSettings) if names_of(declared)}
    assert taken == {
        "relaxation": ("midpoint", "softmax", "gumbel", "dirichlet"),
        "start": ("spectral", "level"),
        "sharing": ("full", "per_nblocks"),
        "hypergradient": ("first_order", "single_level", "mixed_level", "unrolled", "neumann"),
        "selection": ("race", "surrogate", "perturbation", "playoff", "budgeted", "argmax"),
        "stop": ("none", "entropy", "curvature"),
    }


def test_omegaconf_takes_it_as_a_schema() -> None:
    schema = OmegaConf.structured(SearchSettings)
    merged = OmegaConf.merge(schema, {"steps": 12, "warmup": 12, "relaxation": None, "measurements": None})
    assert OmegaConf.to_object(merged) == SearchSettings(12, 12)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({"relaxation": "gumbel"}, "gumbel"),
        ({"relaxation": Gumbel()}, {"name": "gumbel"}),
        ({"relaxation": Squared(3.0)}, {"name": f"{__name__}:Squared", "sharpness": 3.0}),
        ({"hypergradient": MixedLevel(0.5)}, {"name": "mixed_level", "weight": 0.5}),
        (
            {"hypergradient": Unrolled(double_backward)},
            {"name": "unrolled", "second_derivative": "morenas.bilevel.second_derivative:double_backward"},
        ),
        ({"stop": EntropyGuard(0.1)}, {"name": "entropy", "entropy": 0.1}),
    ],
)
def test_names_are_recorded_as_they_are_and_objects_with_their_settings(change: dict[str, Any], kept: Any) -> None:
    (name,) = change
    settings = replace(SETTINGS, **change)
    assert record(settings) == {**record(SETTINGS), name: kept}
    assert search(shallow(), replace(settings, steps=6)).architecture.search[name] == kept


@pytest.mark.parametrize(
    "change",
    [
        {"hypergradient": "neumann"},
        {"hypergradient": MixedLevel()},
        {"stop": "curvature"},
        {"stop": EntropyGuard()},
    ],
)
def test_what_would_do_nothing_is_refused_by_name_and_as_an_object(change: dict[str, Any]) -> None:
    (name,) = change
    with pytest.raises(InputError, match=rf"{name}=.* would do nothing"):
        SearchSettings(steps=12, warmup=12, **change)
    SearchSettings(steps=12, warmup=8, **change)
    SearchSettings(steps=12, warmup=12, relaxation=Gumbel(), hypergradient=first_order)


def test_an_object_searches_as_its_name_does() -> None:
    named = replace(SETTINGS, relaxation="gumbel", hypergradient="mixed_level", stop="entropy", stop_entropy=0.2)
    given = replace(SETTINGS, relaxation=Gumbel(), hypergradient=MixedLevel(), stop=EntropyGuard(0.2))
    one, other = search(shallow(), named), search(shallow(), given)
    assert torch.equal(one.logits, other.logits) and one.shapes == other.shapes


def test_a_guard_given_as_an_object_looks_after_each_search_as_new() -> None:
    settings = replace(SETTINGS, stop=(guard := EntropyGuard(9.0)))
    first, second = (search(shallow(), settings) for _ in range(2))
    assert first.steps == second.steps < SETTINGS.steps and guard.seen == float("inf")
