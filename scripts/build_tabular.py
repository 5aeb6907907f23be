"""Train every architecture of the tabular bench alone, with every seed, and write the table.

    python scripts/build_tabular.py

About forty minutes on one core. Every 25 architectures are one part, a file that appears whole or not at all: a run
that was stopped goes on from the parts that are there. Parts of another recipe, space, model or data are refused.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from morenas.base.errors import InputError
from morenas.base.files import write_bytes
from morenas.benchmark.table import FORMAT, METADATA, SCHEMA, TABLE, Picks
from morenas.benchmark.tabular import CURVE_EXAMPLES, CURVE_STEPS, GRANULARITY, NBLOCKS, RANKS, TabularTask, train_rows
from morenas.benchmark.tasks import DATA_SEED, SIZES, TASKS

SEEDS = 3
COHORT = 25  # architectures trained side by side
FREE = ("tasks", "seeds", "versions", "processor")  # what parts of one table may differ in


def main(words: Sequence[str]) -> int:
    """Train what is missing, then write the table; return the exit status."""
    arguments = parse_arguments(words)
    torch.set_num_threads(1)
    tasks = [TabularTask(name) for name in TASKS]
    made = describe(tasks[0], arguments.seeds)
    try:
        parts = list(train_parts(tasks, arguments.parts, made))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    rows = pa.concat_tables(parts)
    write(arguments.output, rows, made)
    print(f"{arguments.output}: {rows.num_rows:,} trainings, {arguments.output.stat().st_size:,} bytes")
    return 0


def parse_arguments(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", type=Path, default=Path("runs/tabular"), help="folder of what is done")
    parser.add_argument("--output", type=Path, default=TABLE, help="the table")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trainings of every architecture")
    return parser.parse_args(words)


def train_parts(tasks: Sequence[TabularTask], folder: Path, made: Mapping[str, Any]) -> Iterator[pa.Table]:
    """Every part, read or trained; all tasks of a seed before the next seed."""
    for seed, task in itertools.product(range(made["seeds"]), tasks):
        for number, picks in enumerate(cohorts(task.architectures())):
            path = folder / f"{task.family}-{seed}-{number:03d}.parquet"
            if not path.exists():
                write(path, train_part(task, picks, seed), made)
                print(path.name, flush=True)
            yield read_part(path, made)


def cohorts(architectures: Sequence[Picks]) -> list[Sequence[Picks]]:
    """Architectures in the order that they have, cut into cohorts."""
    return [architectures[start : start + COHORT] for start in range(0, len(architectures), COHORT)]


def train_part(task: TabularTask, architectures: Sequence[Picks], seed: int) -> pa.Table:
    """Train architectures side by side; neighbours in product order have their first layers in common."""
    start = time.perf_counter()
    results = train_rows(task, architectures, seed)
    seconds = (time.perf_counter() - start) / len(architectures)
    rows = [
        {"task": task.family, "architecture": picks, "seed": seed, "params": task.params(picks), "seconds": seconds}
        | result
        for picks, result in zip(architectures, results, strict=True)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def read_part(path: Path, made: Mapping[str, Any]) -> pa.Table:
    """Read a part.

    Raises:
        InputError: If it was made otherwise than now.
    """
    part = pq.read_table(path)
    then = json.loads(part.schema.metadata[METADATA])
    if different := [key for key in made if key not in FREE and then.get(key) != made[key]]:
        raise InputError(f"{path}: made with another {', '.join(different)}; name an empty folder as --parts.")
    return part


def describe(task: TabularTask, seeds: int) -> dict[str, Any]:
    """What has to be known to make the table again."""
    recipe = asdict(task.recipe)
    return {
        "format": FORMAT,
        "tasks": list(TASKS),
        "seeds": seeds,
        "recipe": recipe | {"optimizer": "AdamW", "schedule": "ramp and cosine", "split": "final"},
        "space": {"nblocks": list(NBLOCKS), "ranks": list(RANKS), "granularity": GRANULARITY},
        "choices": [list(choice) for choice in task.space.choices],
        "groups": list(task.space.groups),
        "curve": {"split": "test", "steps": list(CURVE_STEPS), "examples": CURVE_EXAMPLES},
        "data": {"seed": DATA_SEED, "sizes": dict(SIZES)},
        "model": {"name": "demo", "sha256": task.fingerprint},
        "versions": {name: version(name) for name in ("morenas", "torch", "transformers", "tokenizers")},
        "processor": platform.processor() or platform.machine(),
    }


def write(path: Path, rows: pa.Table, made: Mapping[str, Any]) -> None:
    """Write parquet, whole or not at all."""
    buffer = io.BytesIO()
    described = rows.replace_schema_metadata({METADATA: json.dumps(made).encode()})
    pq.write_table(described, buffer, compression="zstd", compression_level=19)
    write_bytes(path, buffer.getvalue())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
