"""What ``morenas`` itself offers: every name is there, typed, and imported only when it is asked for."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import morenas

SOURCE = Path(morenas.__file__)
NAMES = [name for name in morenas.__all__ if name != "__version__"]


def for_type_checkers() -> dict[str, str]:
    """Name to module, as ``if TYPE_CHECKING`` imports them."""
    blocks = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If)]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_what_type_checkers_take_it_for_and_is_described(name: str) -> None:
    found = getattr(morenas, name)
    assert found is getattr(import_module(for_type_checkers()[name]), name)
    assert inspect.getdoc(found) and found.__doc__


def test_type_checkers_and_readers_are_told_of_the_same_names() -> None:
    assert sorted(for_type_checkers()) == sorted(NAMES)
    assert set(NAMES) <= set(dir(morenas)) and sorted(morenas.__all__) == sorted(set(morenas.__all__))
    assert (SOURCE.parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'serch_architecture'"):
        morenas.serch_architecture  # noqa: B018


@pytest.mark.parametrize("name", ["InputError", "SearchSettings"])
def test_a_light_name_needs_nothing_of_hydra(name: str, tmp_path: Path) -> None:
    code = (
        f"import sys, morenas; morenas.{name}; print([m for m in ('hydra', 'omegaconf', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
