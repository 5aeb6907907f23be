"""``python -m morenas.compare RUN...``: one table of many runs, mean and spread over seeds."""

from __future__ import annotations

import argparse
import csv
import io
import json
import shlex
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from morenas.base.errors import InputError
from morenas.run.reading import read_all_results
from morenas.tracking.table import method_words

# The phases that a row of results.json took: its own run's method, or what it is compared with.
PHASES = (("search", "finetune"), ("compare_lora",))
UNTOLD = ("task", "task.data_dir", "model.name_or_path", "seed", "device", "threads", "tracking")
WORDS = ("task", "method", "metric")
HEADER = (
    "task",
    "method",
    "runs",
    "metric",
    "mean ± sd",
    "adapter params",
    "of largest LoRA",
    "search s",
    "training s",
    "peak MiB",
)


class Key(NamedTuple):
    """What runs must share to be told as one row: they differ in the seed alone."""

    task: str
    model: str
    metric: str
    method: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """One method of one run."""

    seed: int
    metric: float
    adapter_params: int
    search_seconds: float
    training_seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Row:
    """One line of the table: means over seeds; ``spread`` is the sample standard deviation, None for one run.

    ``settings`` are the words of the command line in which rows of the same method differ.
    """

    task: str
    model: str
    method: str
    settings: str
    metric: str
    runs: int
    mean: float
    spread: float | None
    adapter_params: float
    of_largest_lora: float | None
    search_seconds: float
    training_seconds: float
    peak_memory_mib: float


def main(words: Sequence[str] | None = None) -> None:
    """Print the comparison; exit status 2 if a run cannot be read."""
    arguments = parse(words)
    try:
        print(FORMATS[arguments.format](compare(arguments.runs)))
    except InputError as error:
        print(f"morenas: error: {error}", file=sys.stderr)
        sys.exit(2)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m morenas.compare", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directory, or a folder of them")
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    return parser.parse_args(words)


def compare(paths: Sequence[Path]) -> list[Row]:
    """Group the methods of all runs under ``paths`` and average them over seeds.

    Raises:
        InputError: If a path holds no complete run, or a result is not valid.
    """
    groups: dict[Key, list[Measured]] = defaultdict(list)
    for file, results in read_all_results(paths).items():
        try:
            measured = list(methods(results))
        except (KeyError, ValueError) as error:
            raise InputError(
                f"{file}: its parts do not fit together ({error}); restore it, or leave it out."
            ) from error
        for key, one in measured:
            groups[key].append(one)
    return [summarize(key, groups) for key in sorted(groups)]


def methods(results: dict[str, Any]) -> Iterator[tuple[Key, Measured]]:
    """The methods that one run measured."""
    phases = {phase["name"]: phase for phase in results["phases"]}
    for index, row in enumerate(results["methods"]):
        own = [phases[name] for name in PHASES[min(index, 1)] if name in phases]
        found = index == 0 and results["kind"] == "search"
        key = Key(
            results["task"],
            results["model"]["name"],
            f"{results['split']} {results['metric']}",
            method_words(row, found),
            settings_of(results["command"]),
        )
        yield (
            key,
            Measured(
                results["seed"],
                row["metrics"][results["split"]][results["metric"]],
                row["adapter_params"],
                phases["search"]["seconds"] if found else 0.0,
                row["seconds"],
                max((phase["peak_memory_bytes"] or 0 for phase in own), default=0),
            ),
        )


def settings_of(command: str) -> tuple[str, ...]:
    """The words of a command line that set something other than the task, the seed and places."""
    words = (word.lstrip("+") for word in shlex.split(command)[3:])
    return tuple(sorted(word for word in words if word.split("=")[0] not in UNTOLD and not word.startswith("hydra.")))


def summarize(key: Key, groups: Mapping[Key, list[Measured]]) -> Row:
    """Average one group, and relate it to the others of its task and model."""
    siblings = [other for other in groups if other[:2] == key[:2]]
    same_method = [set(other.settings) for other in siblings if other.method == key.method]
    loras = [mean(one.adapter_params for one in groups[other]) for other in siblings if other.method.startswith("LoRA")]
    values = [one.metric for one in groups[key]]
    params = mean(one.adapter_params for one in groups[key])
    return Row(
        task=key.task,
        model=key.model,
        method=key.method,
        settings=" ".join(word for word in key.settings if word not in set.intersection(*same_method)),
        metric=key.metric,
        runs=len(values),
        mean=mean(values),
        spread=statistics.stdev(values) if len(values) > 1 else None,
        adapter_params=params,
        of_largest_lora=params / max(loras) if loras else None,
        search_seconds=mean(one.search_seconds for one in groups[key]),
        training_seconds=mean(one.training_seconds for one in groups[key]),
        peak_memory_mib=mean(one.peak_memory_bytes for one in groups[key]) / 2**20,
    )


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def to_markdown(rows: Sequence[Row]) -> str:
    """A table for a README."""
    cells = [list(HEADER), ["---" if name in WORDS else "---:" for name in HEADER]]
    for row in rows:
        method = f"{row.method} ({row.settings})" if row.settings else row.method
        cells.append(
            [
                row.task,
                method,
                str(row.runs),
                row.metric,
                f"{row.mean:.4f}" + ("" if row.spread is None else f" ± {row.spread:.4f}"),
                f"{row.adapter_params:,.0f}",
                "-" if row.of_largest_lora is None else f"{row.of_largest_lora:.1%}",
                f"{row.search_seconds:.0f}" if row.search_seconds else "-",
                f"{row.training_seconds:.0f}",
                f"{row.peak_memory_mib:,.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def to_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values with a header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return buffer.getvalue().rstrip("\n")


def to_json(rows: Sequence[Row]) -> str:
    """A list of objects."""
    return json.dumps([asdict(row) for row in rows], indent=2)


FORMATS = {"markdown": to_markdown, "csv": to_csv, "json": to_json}
