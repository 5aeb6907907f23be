"""Runs ``accidents.py`` for a test."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from forked import Forked

HERE = Path(__file__).parent


@dataclass
class Found:
    """What the accidents of a command came to.

    Attributes:
        operations: How many file operations it does.
        written: Names of the files that it writes.
        accidents: How many happened.
        wrong: Those after which something was wrong, and what.
    """

    operations: int
    written: list[str]
    accidents: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)


def happened(forked: Forked, root: Path, *plans: dict[str, Any]) -> dict[str, Found]:
    """Let the accidents of plans happen, see ``accidents.Plan``; what they came to, by command."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: cc is not there, and tests/reliability/faults.c has to be compiled")
    words = [str(root), json.dumps(plans)]
    done = forked(HERE / "accidents.py", root, *words, path=[HERE, HERE.parent, HERE.parents[1]])
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Found] = {}
    for row in map(json.loads, done.stdout.splitlines()):
        if "work" in row:
            here = found[row["work"]] = Found(row["operations"], row["written"])
        else:
            here.accidents += 1
            here.wrong |= {row["accident"]: row["wrong"]} if row["wrong"] else {}
    for work, here in found.items():
        print(f"{work}: {here.operations} operations, {here.accidents} accidents, {len(here.wrong)} went wrong")
    return found
