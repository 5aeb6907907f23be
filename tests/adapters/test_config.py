"""The adapter's configuration refuses what it cannot mean."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tiny_models import tiny_classifier

from morenas.adapters import MoReConfig
from morenas.base.errors import InputError
from morenas.space import Architecture, ModuleShape


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"link": "cyclc"}, "did you mean 'cyclic'"),
        ({"bias": "some"}, "none, all, morenas_only"),
        ({"dropout": 1.0}, r"dropout=1.0 must be in \[0, 1\)"),
        ({"nblocks": 0}, "nblocks=0 must be a whole number"),
        ({"blk_r": 2.5}, "blk_r=2.5 must be a whole number"),
        ({"blk_r": True}, "blk_r=True"),
        ({"architecture": {}}, "architecture is empty"),
        ({"architecture": {"query": {"nblocks": 2}}}, r"architecture\['query'\] must give nblocks and blk_r"),
        ({"architecture": {"query": {"nblocks": 2, "blk_r": 0}}}, r"architecture\['query'\]: blk_r=0"),
        ({"architecture": {"query": {"nblocks": 2, "blk_r": 1}}, "exclude_modules": ["key"]}, "leave exclude_modules"),
        (
            {"target_modules": r".*\.query", "layers_to_transform": [0]},
            "layers_to_transform has no effect on a pattern",
        ),
        ({"target_modules": "all-linear", "layers_to_transform": 0}, "layers_to_transform has no effect on all-linear"),
        ({"target_modules": ["query"], "layers_pattern": "layer"}, "layers_pattern has no effect without"),
    ],
)
def test_a_value_out_of_range_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        MoReConfig(**values)


def test_shapes_are_found_by_name_then_by_pattern() -> None:
    shapes = {"a.query": {"nblocks": 2, "blk_r": 1}, r".*\.query": {"nblocks": 4, "blk_r": 3}}
    config = MoReConfig(architecture=shapes)
    assert config.shape_of("a.query") == (2, 1)
    assert config.shape_of("b.query") == (4, 3)
    assert config.shape_of("b.key") is None
    assert MoReConfig(nblocks=8, blk_r=2).shape_of("b.key") == (8, 2)


NAME = "bert.encoder.layer.0.attention.self.query"


@dataclass(frozen=True)
class Outcome:
    """What a search gives, as far as a config reads it."""

    architecture: Architecture


@pytest.mark.parametrize("given", ["architecture", "outcome", "path", "name"])
def test_an_architecture_becomes_a_config_however_it_is_given(given: str, tmp_path: Path) -> None:
    architecture = Architecture("tiny", "monarch", {NAME: ModuleShape(2, 3, 16, 16)}, 0.1, {"params": 100}, {})
    path = tmp_path / "architecture.json"
    architecture.to_json(path)
    forms: dict[str, Any] = {"outcome": Outcome(architecture), "path": path, "name": str(path)}
    config = MoReConfig.from_architecture(forms.get(given, architecture), dropout=0.1)
    assert config.shape_of(NAME) == (2, 3) and config.dropout == 0.1 and config.link == "monarch"
    assert config.architecture == {NAME: {"nblocks": 2, "blk_r": 3}}
    assert dict(tiny_classifier().named_modules())[NAME] is not None


def test_an_architecture_that_adapts_nothing_or_is_not_there_is_no_config(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the architecture is empty"):
        MoReConfig.from_architecture(Architecture("tiny", "cyclic", {}, 0.0))
    with pytest.raises(InputError, match=r"gone\.json"):
        MoReConfig.from_architecture(tmp_path / "gone.json")
