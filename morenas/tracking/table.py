"""The closing table of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text  # names of the user's are text, and not rich's markup


def closing_table(results: dict[str, Any]) -> Table:
    """Method by method: metrics on the test sets, adapter parameters, their share of the model, seconds.

    Args:
        results: The document of ``results.json``.
    """
    seeds = f"seed {results['seed']}"
    table = Table(title=Text(f"{results['task']} · {results['model']['name']} · {seeds}"), title_style="bold")
    table.add_column("method", overflow="fold")
    tests = [split for split in results["methods"][0]["metrics"] if split != "select"]
    columns = [(split, name) for split in tests for name in results["methods"][0]["metrics"][split]]
    for split, name in columns:
        table.add_column(Text(f"{split} {name}".replace("_", " ")), justify="right", overflow="fold")
    for header in ("adapter params", "of the model", "training", "search"):
        table.add_column(header, justify="right", overflow="fold")
    search = {phase["name"]: phase["seconds"] for phase in results["phases"]}.get("search")
    for index, row in enumerate(results["methods"]):
        ours = index == 0 and results["kind"] == "search"
        table.add_row(
            Text(method_words(row, ours)),
            *(f"{row['metrics'][split][name]:.4f}" for split, name in columns),
            f"{row['adapter_params']:,}",
            f"{row['params_fraction']:.3%}",
            f"{row['seconds']:.0f} s",
            f"{search:.0f} s" if ours and search is not None else "-",
        )
    return table


def method_words(row: dict[str, Any], found: bool = False) -> str:
    """A short name for a row of ``results.json``."""
    name, details = row["name"], row["details"]
    if name == "more" and details.get("nblocks"):
        return f"MoRe, N={details['nblocks']} r={details['blk_r']}"
    if name == "more":
        return "MoRe, found" if found else "MoRe, given"
    if details.get("equal_parameters"):
        return f"{name.upper() if name == 'lora' else name}, equal parameters".replace("LORA", "LoRA")
    rank = f" r={details['rank']}" if "rank" in details else ""
    return f"{'LoRA' if name == 'lora' else name}{rank}"


def print_closing(results: dict[str, Any], directory: Path, console: Console | None = None) -> None:
    """Print the closing table and the paths of the files."""
    console = console or Console(highlight=False, soft_wrap=True)
    console.print()
    console.print(closing_table(results))
    places = {
        "architecture": "architecture.json",
        "adapter": "adapter",
        "results": "results.json",
        "report": "report.html",
    }
    for name, place in places.items():
        if (directory / place).exists():
            console.print(f"{name:<13}{directory / place}", markup=False)
