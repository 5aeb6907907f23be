"""Imports run downward only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "morenas"

BASE = {"errors", "files", "seeds", "kinds", "checkpoint", "documents", "hub", "devices", "metering"}
LAYERS: dict[str, set[str]] = {
    "monarch": set(),
    "bilevel": set(),
    "adapters": {"space", "monarch", "errors"},
    "space": {"monarch"} | BASE,
    "supernet": {"space", "monarch"} | BASE,
    "selection": {"supernet", "space"} | BASE,
    "tasks": BASE,
    "models": BASE,
    "training": {"tasks", "models", "adapters", "space", "monarch", "tracking"} | BASE,
    "tracking": BASE,
    "exporting": {"models", "adapters", "space", "monarch", "results"} | BASE,
    "benchmark": {
        "monarch",
        "bilevel",
        "adapters",
        "space",
        "supernet",
        "selection",
        "tasks",
        "models",
        "training",
        "tracking",
        "api",
    }
    | BASE,
}
"""What each package of the library may import of the others."""
ENTRY_POINTS = {"search", "finetune", "launch", "config", "usage", "compare", "export"}
KNOWS_OMEGACONF = {"rundir", "schema", "launch", "config", "usage", "export"}


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


@pytest.mark.parametrize("module", sorted(BASE))
def test_the_base_imports_no_package(module: str) -> None:
    assert morenas_imports(PACKAGE / f"{module}.py") <= BASE


def test_only_entry_points_know_hydra() -> None:
    for path in FILES:
        roots = {name.split(".")[0] for name in imports(path)}
        if parts(path) not in ENTRY_POINTS:
            assert "hydra" not in roots, path
        if parts(path) not in KNOWS_OMEGACONF:
            assert "omegaconf" not in roots, path


def test_nothing_imports_an_entry_point_but_another() -> None:
    for path in FILES:
        if parts(path) not in ENTRY_POINTS:
            assert not morenas_imports(path) & ENTRY_POINTS, path


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
