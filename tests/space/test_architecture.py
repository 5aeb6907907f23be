from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from morenas.base.errors import InputError
from morenas.space import Architecture, ModuleShape


def example() -> Architecture:
    modules = {"layer.0.query": ModuleShape(4, 2, 16, 16), "layer.0.mlp": ModuleShape(1, 1, 16, 24)}
    return Architecture("tiny", "cyclic", modules, 0.01, {"params": 200, "request": {"params": 200}}, {"seed": 0})


def test_it_survives_the_round_trip_and_counts_its_parameters(tmp_path: Path) -> None:
    example().to_json(tmp_path / "architecture.json")
    back = Architecture.from_json(tmp_path / "architecture.json")
    assert back == example()
    assert back.num_parameters() == 2 * (16 + 16) + (16 + 24)
    assert back.shapes() == {"layer.0.query": (4, 2), "layer.0.mlp": (1, 1)}


def test_it_is_made_of_shapes_and_the_layers_they_belong_to() -> None:
    linears = {"layer.0.query": (16, 16), "layer.0.key": (16, 16), "layer.0.mlp": (16, 24)}
    made = Architecture.from_shapes({"layer.0.query": (4, 2), "layer.0.mlp": (1, 1)}, linears, "tiny", 10_400)
    assert made == replace(example(), params_fraction=104 / 10_400, budget={}, search={})
    with pytest.raises(
        InputError, match=r"'layer\.0\.qury' is no linear layer of 'tiny' \(did you mean 'layer.0.query'"
    ):
        Architecture.from_shapes({"layer.0.qury": (4, 2)}, linears, "tiny", 10_400)


def test_another_model_is_refused_naming_the_modules() -> None:
    example().check({"layer.0.query": (16, 16), "layer.0.mlp": (16, 24), "layer.0.key": (16, 16)})
    with pytest.raises(InputError, match=r"'layer\.0\.mlp' is 16 -> 32 here, 16 -> 24"):
        example().check({"layer.0.query": (16, 16), "layer.0.mlp": (16, 32)})
    with pytest.raises(InputError, match=r"'layer\.0\.query' is not there \(did you mean 'layer\.1\.query'"):
        example().check({"layer.1.query": (16, 16), "layer.0.mlp": (16, 24)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "morenas.architecture/2"}, "morenas.architecture/2"),
        ({"link": "ring"}, "ring"),
        ({"params": 105}, "edited by hand"),
        ({"extra": 1}, "extra"),
    ],
)
def test_files_that_break_the_contract_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps({**example().document(), **change}))
    with pytest.raises(InputError, match=message):
        Architecture.from_json(path)


@pytest.mark.parametrize(
    "change", [{"link": "ring"}, {"params_fraction": -0.1}, {"modules": {"query": ModuleShape(1, 0, 4, 4)}}]
)
def test_what_breaks_the_contract_is_not_written(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"not a valid architecture: at '{next(iter(change))}"):
        replace(example(), **change).to_json(tmp_path / "architecture.json")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_json_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "architecture.json"
    with pytest.raises(InputError, match=r"architecture\.json"):
        Architecture.from_json(path)
    path.write_text("{")
    with pytest.raises(InputError, match="JSON"):
        Architecture.from_json(path)
