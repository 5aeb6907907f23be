"""The closing table shows names as they are."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from run_documents import RESULTS, ROW

from morenas.tracking.table import print_closing

NAMES = ["[/bold]", "[red]x[/red]", "[link=file:///]", "[", "\\[x]", "a[0]"]


@pytest.mark.parametrize("name", NAMES)
def test_no_name_is_taken_for_markup(name: str, tmp_path: Path) -> None:
    row: dict[str, Any] = {**ROW, "name": name, "metrics": {name: {"accuracy": 0.5}}}
    results = {**RESULTS, "task": name, "model": {**RESULTS["model"], "name": name}, "methods": [row]}
    folder = tmp_path / name.replace("/", "")
    folder.mkdir()
    (folder / "results.json").touch()
    text = io.StringIO()
    print_closing(results, folder, Console(file=text, width=400))
    assert text.getvalue().count(name) >= 4 and str(folder) in text.getvalue()
