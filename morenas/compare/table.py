"""One table of many runs, mean and spread over seeds."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from math import nan
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from morenas.base.errors import InputError
from morenas.compare.agreement import agreement, by_kind, by_module
from morenas.run.reading import ARCHITECTURE, read_all_results
from morenas.space import Architecture
from morenas.tracking.table import method_words

# The phases of a run that belong to its own method, and those of what it is compared with.
PHASES = (("search", "finetune"), ("compare_lora",))
IGNORED_KEYS = ("task", "task.data_dir", "model.name_or_path", "seed", "device", "threads", "tracking")
"""Keys of a command line whose values do not separate runs into rows."""
IGNORED = ("hydra.", "hydra/", "sweep.")
"""Nor do those that begin with one of these."""
GROUP = ["task", "data", "model", "weights", "metric", "method", "settings"]
"""Columns that are equal in all runs of one row; such runs differ in their seeds only."""
PLACE = ("data_dir", "sizes", "dropped_in_test", "fingerprint", "label_names", "rows")
"""What a run records of its data that depends on the seed or on where they lie."""
LEFT_ALIGNED = ("task", "method", "metric")
HEADER = (
    "task",
    "method",
    "runs",
    "metric",
    "mean ± sd",
    "same place",
    "adapter params",
    "of largest LoRA",
    "search s",
    "training s",
    "peak MiB",
)


@dataclass(frozen=True)
class Row:
    """One line of the table: means over seeds; ``spread`` is the sample standard deviation, None for one run.

    ``settings`` are the settings on the command line in which rows of the same method differ. ``agreement`` is the
    share of the parameters that searches of two seeds spend in the same modules, ``agreement_by_kind`` in layers of
    the same kind; None where fewer than two searched.
    """

    task: str
    model: str
    method: str
    settings: str
    metric: str
    runs: int
    mean: float
    spread: float | None
    agreement: float | None
    agreement_by_kind: float | None
    adapter_params: float
    of_largest_lora: float | None
    search_seconds: float
    training_seconds: float
    peak_memory_mib: float


def compare(paths: Sequence[Path]) -> list[Row]:
    """Group the methods of all runs under ``paths`` and average them over seeds.

    Raises:
        InputError: If a path holds no complete run, or a result is not valid.
    """
    measured: list[dict[str, Any]] = []
    for file, results in read_all_results(paths).items():
        try:
            measured += methods(results, file.parent)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{file}: its parts do not fit together ({error}); restore it, or leave it out."
            ) from error
    rows = relate(average(pd.DataFrame(measured)))
    names = [field.name for field in fields(Row)]
    return [Row(**row) for row in rows[names].astype(object).where(rows.notna(), None).to_dict("records")]


def methods(results: dict[str, Any], directory: Path) -> Iterator[dict[str, Any]]:
    """The methods that one run measured, each with what it is grouped by and its figures."""
    architecture = directory / ARCHITECTURE
    phases = {phase["name"]: phase for phase in results["phases"]}
    for index, row in enumerate(results["methods"]):
        own = [phases[name] for name in PHASES[min(index, 1)] if name in phases]
        found = index == 0 and results["kind"] == "search"
        yield {
            "task": results["task"],
            "data": data_key(results["data"]),
            "model": results["model"]["name"],
            "weights": str(results["model"].get("fingerprint", "")),
            "seed": results["seed"],
            "metric": f"{results['split']} {results['metric']}",
            "method": method_words(row, found),
            "settings": settings_of(results["command"]),
            "value": row["metrics"][results["split"]][results["metric"]],
            "adapter_params": row["adapter_params"],
            "search_seconds": phases["search"]["seconds"] if found else 0.0,
            "training_seconds": row["seconds"],
            "architecture": Architecture.from_json(architecture) if found and architecture.exists() else None,
            "peak_memory_bytes": max((phase["peak_memory_bytes"] or 0 for phase in own), default=0),
        }


def data_key(data: Any) -> str:
    """What a run was trained and tested on, whatever the seed and the folder: equal for equal files or data sets."""
    return hashlib.sha256(json.dumps(_without_place(data), sort_keys=True).encode()).hexdigest()


def _without_place(data: Any) -> Any:
    if not isinstance(data, dict):
        return data
    return {name: _without_place(value) for name, value in data.items() if name not in PLACE}


def settings_of(command: str) -> tuple[str, ...]:
    """The settings of a command line, without task, seed, device and paths."""
    words = (word.lstrip("+") for word in shlex.split(command)[3:])
    return tuple(
        sorted(word for word in words if word.split("=")[0] not in IGNORED_KEYS and not word.startswith(IGNORED))
    )


def average(measured: pd.DataFrame) -> pd.DataFrame:
    """One row a group: the number of runs, means, and the sample standard deviation of the metric.

    Several runs of one seed, copies say, are one run: their mean.

    The means are those of ``statistics``, correct to the last digit, whatever the order of the runs.
    """
    seeds = measured.groupby([*GROUP, "seed"], as_index=False).agg(
        value=("value", fmean),
        architecture=("architecture", "first"),
        adapter_params=("adapter_params", fmean),
        search_seconds=("search_seconds", fmean),
        training_seconds=("training_seconds", fmean),
        peak_memory_bytes=("peak_memory_bytes", fmean),
    )
    groups = seeds.groupby(GROUP, as_index=False)
    rows = groups.agg(
        runs=("value", "size"),
        mean=("value", fmean),
        spread=("value", lambda values: stdev(values) if len(values) > 1 else nan),
        agreement=("architecture", lambda found: agreement(list(found.dropna()), by_module)),
        agreement_by_kind=("architecture", lambda found: agreement(list(found.dropna()), by_kind)),
        adapter_params=("adapter_params", fmean),
        search_seconds=("search_seconds", fmean),
        training_seconds=("training_seconds", fmean),
        peak_memory_mib=("peak_memory_bytes", fmean),
    )
    rows["peak_memory_mib"] /= 2**20
    return rows


def relate(rows: pd.DataFrame) -> pd.DataFrame:
    """Relate each row to those of its task and model: parameters to the largest LoRA's, settings to the others'."""
    loras = rows["adapter_params"].where(rows["method"].str.startswith("LoRA"))
    of = ["task", "data", "model", "weights"]
    largest = loras.groupby([rows[name] for name in of]).transform("max")
    alike = rows.groupby([*of, "method"])["settings"].transform(lambda all_: [_shared(all_)] * len(all_))
    settings = [
        " ".join(word for word in words if word not in shared)
        for words, shared in zip(rows["settings"], alike, strict=True)
    ]
    told = {"task": told_apart(rows, "task", "data"), "model": told_apart(rows, "model", "weights")}
    return rows.assign(of_largest_lora=rows["adapter_params"] / largest, settings=settings, **told)


def told_apart(rows: pd.DataFrame, name: str, content: str) -> pd.Series[str]:
    """Names, with a few digits of what they stand for where one name stands for several things."""
    several = rows.groupby(name)[content].transform("nunique") > 1
    return rows[name].where(~several, rows[name] + " (" + rows[content].str[:6] + ")")


def _shared(settings: Iterable[tuple[str, ...]]) -> set[str]:
    return set.intersection(*map(set, settings))


def to_markdown(rows: Sequence[Row]) -> str:
    """A table for a README."""
    cells = [list(HEADER), ["---" if name in LEFT_ALIGNED else "---:" for name in HEADER]]
    models = {row.model for row in rows}
    for row in rows:
        method = f"{row.method} ({row.settings})" if row.settings else row.method
        cells.append(
            [
                row.task if len(models) == 1 else f"{row.task}, {row.model}",
                method,
                str(row.runs),
                row.metric,
                f"{row.mean:.4f}" + ("" if row.spread is None else f" ± {row.spread:.4f}"),
                _same_place(row),
                f"{row.adapter_params:,.0f}",
                "-" if row.of_largest_lora is None else f"{row.of_largest_lora:.1%}",
                f"{row.search_seconds:.0f}" if row.search_seconds else "-",
                f"{row.training_seconds:.0f}",
                f"{row.peak_memory_mib:,.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in cells)


def _cell(text: str) -> str:
    """Text that stays in its cell, whatever a run's names hold."""
    one_line = re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+", " ", text)
    return re.sub(r"([\\|`<>]|\](?=\())", r"\\\1", one_line)


def _same_place(row: Row) -> str:
    """By module, and by kind of layer."""
    if row.agreement is None or row.agreement_by_kind is None:
        return "-"
    return f"{row.agreement:.0%}, by kind {row.agreement_by_kind:.0%}"


def to_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values with a header."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _no_formula(value) for name, value in asdict(row).items()} for row in rows)
    return buffer.getvalue().rstrip("\n")


def _no_formula(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in tuple("=+-@\t\r\n") else value


def to_json(rows: Sequence[Row]) -> str:
    """A list of objects."""
    return json.dumps([asdict(row) for row in rows], indent=2, allow_nan=False)
