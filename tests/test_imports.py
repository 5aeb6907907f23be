"""Imports run downward only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "morenas"

LAYERS: dict[str, set[str]] = {
    "base": set(),
    "monarch": set(),
    "bilevel": set(),
    "space": {"base", "monarch"},
    "adapters": {"base", "monarch", "space"},
    "supernet": {"monarch", "space"},
    "selection": set(),
    "tasks": {"base"},
    "models": {"base"},
    "tracking": {"base"},
    "run": {"base", "finetune", "models", "search", "tasks", "tracking"},
    "search": {
        "base",
        "bilevel",
        "finetune",
        "models",
        "run",
        "selection",
        "space",
        "supernet",
        "tasks",
        "tracking",
    },
    "finetune": {"adapters", "base", "models", "run", "search", "space", "tasks", "tracking"},
    "export": {"adapters", "base", "models", "monarch", "run", "space"},
    "compare": {"base", "run", "tracking"},
    "benchmark": {
        "base",
        "bilevel",
        "finetune",
        "models",
        "monarch",
        "search",
        "selection",
        "space",
        "supernet",
        "tasks",
    },
}
"""What each package may import of the others."""
ROOT = {"__init__", "_peft_hook"}
KNOWS_HYDRA = {"run"}
KNOWS_OMEGACONF = {"run", "export"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, inside functions too; ``if TYPE_CHECKING`` counts."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def parts(path: Path) -> str:
    """The package, or the module, right below ``morenas`` that a file belongs to."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def morenas_imports(path: Path) -> set[str]:
    modules = {name.split(".")[1] for name in imports(path) if name.startswith("morenas.")}
    return {name for name in modules if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("layer", LAYERS)
def test_a_package_imports_only_what_lies_below(layer: str) -> None:
    files = [path for path in FILES if parts(path) == layer]
    assert files
    for path in files:
        assert morenas_imports(path) - {layer} <= LAYERS[layer], path


def test_every_package_has_its_place() -> None:
    assert {parts(path) for path in FILES} == set(LAYERS) | ROOT


def test_only_what_a_run_has_knows_hydra() -> None:
    for path in FILES:
        roots = {name.split(".")[0] for name in imports(path)}
        if parts(path) not in KNOWS_HYDRA:
            assert "hydra" not in roots, path
        if parts(path) not in KNOWS_OMEGACONF:
            assert "omegaconf" not in roots, path


def test_monarch_and_bilevel_need_torch_alone() -> None:
    for path in FILES:
        if parts(path) in ("monarch", "bilevel"):
            outside = {name.split(".")[0] for name in imports(path)} - {"morenas"}
            assert outside - {"torch"} <= {
                "__future__",
                "enum",
                "functools",
                "collections",
                "contextlib",
                "dataclasses",
                "math",
                "typing",
            }


def test_wandb_is_imported_inside_its_tracker_alone() -> None:
    knowing = {path.name for path in FILES if "wandb" in {name.split(".")[0] for name in imports(path)}}
    assert knowing <= {"wandb.py"}
