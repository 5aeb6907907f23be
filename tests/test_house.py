"""The shape of the code: nothing too long to read in one go, and one name for one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "morenas"
FILES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_CLASS = 300, 150  # lines
LONGER: dict[str, str] = {}
"""File, or file and class, that is longer, and why it is one thing all the same."""


def name_of(path: Path, part: str = "") -> str:
    return f"{path.relative_to(PACKAGE).as_posix()}{f'::{part}' if part else ''}"


def classes(path: Path) -> list[ast.ClassDef]:
    return [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_and_its_classes_are_read_in_one_go(path: Path) -> None:
    lengths = {name_of(path): (len(path.read_text().splitlines()), LONGEST_FILE)}
    for one in classes(path):
        lengths[name_of(path, one.name)] = ((one.end_lineno or 0) - one.lineno + 1, LONGEST_CLASS)
    too_long = {name: lines for name, (lines, most) in lengths.items() if lines > most and name not in LONGER}
    assert not too_long


def test_a_name_means_one_thing_in_the_package() -> None:
    meanings: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                meanings[node.name].add(name_of(path))
            # A name for a type, such as Picks = tuple[int, ...]; two that say the same mean the same.
            elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript):
                for target in node.targets:
                    if isinstance(target, ast.Name) and target.id[0].isupper():
                        meanings[target.id].add(ast.unparse(node.value))
    assert not {name: sorted(places) for name, places in meanings.items() if len(places) > 1}
