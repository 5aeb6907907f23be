"""``python -m morenas.compare RUN...``: one table of many runs, mean and spread over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from morenas.base.settings import one_of
from morenas.run.words import WordCommand

ABOUT = """\
One table of many runs, mean and spread over seeds.

    python -m morenas.compare runs
    python -m morenas.compare <run directory> <run directory> --format csv"""
FORMATS = ("markdown", "csv", "json")


@dataclass
class CompareConfig:
    """The words of the command line.

    Attributes:
        runs: Run directories, or folders of them; words without a key.
        format: How the table is written: for a README, as comma-separated values, or as a list of objects.
    """

    runs: list[str]
    format: str = one_of(FORMATS, "markdown")


def execute(config: CompareConfig) -> None:
    """Print the comparison.

    Raises:
        InputError: If a run cannot be read.
    """
    from morenas.compare import table

    write = {"markdown": table.to_markdown, "csv": table.to_csv, "json": table.to_json}[config.format]
    print(write(table.compare([Path(run) for run in config.runs])))


def table_of(folder: Path) -> str:
    """The comparison of all runs in a folder, such as that of a sweep, for a README.

    Raises:
        InputError: If there are none, or one cannot be read.
    """
    from morenas.compare import table

    return table.to_markdown(table.compare([folder]))


COMMAND = WordCommand(ABOUT, CompareConfig, execute, places="runs")
