"""``python -m morenas.benchmark``: search methods on problems whose best architecture is known."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from morenas.base.errors import InputError

DEVELOPMENT, PUBLISHED = 0, 1000  # first number of the problems


def main(words: Sequence[str] | None = None) -> None:
    """Run what is missing, then write ``benchmark.json``, ``tables.md`` and a picture a table.

    Exit status 2 for a wrong input.
    """
    arguments = parse(words)
    try:
        print(benchmark(arguments))
    except InputError as error:
        print(f"morenas: error: {error}", file=sys.stderr)
        sys.exit(2)


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m morenas.benchmark", description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of rows, benchmark.json, tables.md and pictures"
    )
    parser.add_argument("--tables", nargs="+", choices=("planted", "tabular"), default=["planted", "tabular"])
    parser.add_argument("--families", nargs="+", help="of planted problems; all of them unless named")
    parser.add_argument("--problems", type=int, default=4, help="planted problems of each family")
    parser.add_argument("--seeds", type=int, default=5, help="search seeds")
    parser.add_argument("--methods", nargs="+", help="methods beside morenas; all of them unless named")
    parser.add_argument("--jobs", type=int, default=1, help="processes, of one thread each")
    parser.add_argument(
        "--published", action="store_true", help="the problems of the published table, from 1000 on; never to tune on"
    )
    return parser.parse_args(words)


def benchmark(arguments: argparse.Namespace) -> str:
    """Run, write, and return the tables as markdown."""
    from morenas.base.errors import suggest
    from morenas.base.files import write_bytes
    from morenas.benchmark import bars, markdown, report
    from morenas.benchmark.methods import METHODS, OURS
    from morenas.benchmark.plot import draw
    from morenas.benchmark.run import FAMILIES, planted, run, tabular

    for name in ("problems", "seeds", "jobs"):
        if getattr(arguments, name) < 1:
            raise InputError(f"--{name} {getattr(arguments, name)}: must be at least 1.")
    methods = list(METHODS) if arguments.methods is None else list(dict.fromkeys([OURS, *arguments.methods]))
    for method in methods:
        if method not in METHODS:
            raise InputError(f"--methods {method!r}: choose from {', '.join(METHODS)}{suggest(method, METHODS)}")
    first = PUBLISHED if arguments.published else DEVELOPMENT
    places = []
    if "planted" in arguments.tables:
        places += planted(arguments.families or list(FAMILIES), first, arguments.problems)
    if "tabular" in arguments.tables:
        places += tabular()
    seeds = range(first, first + arguments.seeds)
    rows = run(places, methods, seeds, arguments.out / "rows", arguments.jobs)
    document = report.summarize(rows, OURS)
    bars.write(arguments.out / "benchmark.json", document)
    for table in document["tables"]:
        draw(arguments.out / f"{table}.png", document, table)
    tables = markdown.markdown(document)
    write_bytes(arguments.out / "tables.md", tables.encode())
    return tables


if __name__ == "__main__":
    main()
