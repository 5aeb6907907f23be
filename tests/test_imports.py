"""Imports run downward only."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "morenas"

LAYERS: dict[str, set[str]] = {
    "base": set(),
    "monarch": set(),
    "bilevel": {"base"},
    "space": {"base", "monarch"},
    "adapters": {"base", "monarch", "space"},
    "supernet": {"base", "monarch", "space"},
    "selection": {"base"},
    "tasks": {"base"},
    "models": {"base"},
    "tracking": {"base"},
    "run": {"base", "models", "tasks", "tracking"},
    "search": {
        "base",
        "bilevel",
        "compare",
        "finetune",
        "models",
        "run",
        "selection",
        "space",
        "supernet",
        "tasks",
        "tracking",
    },
    "finetune": {"adapters", "base", "compare", "models", "run", "space", "tasks", "tracking"},
    "export": {"adapters", "base", "models", "monarch", "run", "space"},
    "compare": {"base", "run", "space", "tracking"},
    "benchmark": {
        "run",
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


def imports(path: Path, typing: bool = True) -> set[str]:
    """Every module that a file imports, inside functions too; ``if TYPE_CHECKING`` counts where ``typing`` says so."""
    found: set[str] = set()
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not typing:
            continue
        nodes.extend(ast.iter_child_nodes(node))
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


def module_of(path: Path) -> str:
    parts = ("morenas", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_itself_by_a_way_round() -> None:
    modules = {module_of(path): path for path in FILES}
    arrows = {name: (imports(path, typing=False) & set(modules)) - {name} for name, path in modules.items()}
    try:
        list(TopologicalSorter(arrows).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_root_holds_packages_alone() -> None:
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py", "_peft_hook.py", "py.typed"}


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
