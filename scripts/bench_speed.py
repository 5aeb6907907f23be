"""Compare the speed and memory of Monarch adapters, their search and their rivals, in alternation and in one process.

    python scripts/bench_speed.py --json out.json
    python scripts/bench_speed.py --json out.json --sections layers --reference <checkout of the paper's repository>
    python scripts/bench_speed.py --json out.json --sections models,supernet --minilm <folder of MiniLM>
    python scripts/bench_speed.py --json out.json --sections runs --minilm <folder> --glue <folder of GLUE files>

Prints tables, writes the rows to ``out.json`` after every section and a picture to ``out.png``, and ends in the
project's own bars beside what was seen of them. Let nothing else run on the machine. Exit status: 0 done, 1 a whole run
failed, 2 refused input.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from speed import layers, models, runs, scaling, supernets
from speed.bars import verdicts
from speed.machine import command, machine
from speed.plot import draw
from speed.published import load_published
from speed.report import print_section, print_verdicts
from speed.rows import Row
from speed.settings import DTYPES, Bench, device_of, sections_of

from morenas.base.errors import InputError, RunError
from morenas.base.files import write_json

FORMAT = "morenas.speed/1"
SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    layers.SECTION: layers.run,
    layers.LARGE_SECTION: layers.run_large,
    **{section.SECTION: section.run for section in (models, supernets, scaling, runs)},
}
NARROWEST = 160  # columns; tables have one per contestant


def main(words: Sequence[str]) -> int:
    """Run the bench; return the exit status."""
    try:
        arguments = parse(words)
        bench, sections = settings(arguments), sections_of(arguments.sections, list(SECTIONS))
        if bench.reference is not None:
            load_published(bench.reference)
        check_writable(arguments.json)
        measure(bench, sections, arguments.json, command(words))
    except (InputError, RunError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    return 0


def measure(bench: Bench, sections: Sequence[str], path: Path, told: str) -> None:
    """Run sections one after the other; what one found is printed and written before the next begins."""
    console = Console(width=max(NARROWEST, shutil.get_terminal_size().columns))
    torch.set_num_threads(bench.threads)
    document: dict[str, Any] = {"format": FORMAT, "machine": machine(bench), "command": told}
    rows: list[Row] = []
    for section in sections:
        found = list(told_of(SECTIONS[section](bench)))
        print_section(console, found)
        rows += found
        held = verdicts(rows, bench)
        bars = [verdict.document() for verdict in held]
        write_json(path, {**document, "rows": [row.document() for row in rows], "bars": bars})
        draw(path.with_suffix(".png"), rows)
    print_verdicts(console, held)


def told_of(rows: Iterator[Row]) -> Iterator[Row]:
    """Say on stderr what has been measured, case by case."""
    last: Any = None
    for row in rows:
        if (row.case, row.measure) != last:
            last = row.case, row.measure
            case = ", ".join(f"{key}={value}" for key, value in row.case.items())
            print(f"{row.section}: {case}: {row.measure}", file=sys.stderr, flush=True)
        yield row


def check_writable(path: Path) -> None:
    """Refuse, before hours of measuring, a file that could not be written.

    Raises:
        InputError: If it is no name of a JSON file, or its folder takes none.
    """
    if path.suffix != ".json":
        raise InputError(f"--json {path}: must end in .json; the picture goes beside it as .png.")
    try:
        write_json(path, {})
    except OSError as error:
        raise InputError(f"--json {path}: cannot be written ({error.strerror}); name another place.") from error


class Parser(argparse.ArgumentParser):
    """Refuses in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; --help lists the options.")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line; what is not given is left out."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--json", type=Path, required=True, help="file to write; the picture goes beside it")
    parser.add_argument("--sections", default=",".join(SECTIONS), help="comma-separated (%(default)s)")
    parser.add_argument("--reference", type=Path, help="checkout of the paper's repository")
    parser.add_argument("--minilm", type=Path, help="folder of a MiniLM; else random weights of its shape")
    parser.add_argument("--glue", type=Path, help="folder of GLUE files for whole runs; else the packaged demo")
    parser.add_argument("--pairs", type=int, help=f"rounds of a comparison ({Bench.pairs})")
    parser.add_argument("--run-pairs", type=int, help=f"rounds of whole runs ({Bench.run_pairs})")
    parser.add_argument("--run-steps", type=int, help=f"final steps of a whole run ({Bench.run_steps})")
    parser.add_argument("--threads", type=int, help=f"CPU threads ({Bench.threads})")
    parser.add_argument("--device", default=Bench.device, help="cpu, cuda or cuda:<number> (%(default)s)")
    parser.add_argument("--dtype", default="float32", choices=list(DTYPES), help="(%(default)s)")
    parser.add_argument("--seed", type=int, help=f"({Bench.seed})")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke run")
    return parser.parse_args(words)


def settings(arguments: argparse.Namespace) -> Bench:
    """The arguments that every section needs, checked."""
    given = {key: value for key, value in vars(arguments).items() if key not in ("json", "sections", "quick")}
    given |= {"device": device_of(arguments.device), "dtype": DTYPES[arguments.dtype]}
    return Bench.smoke(**given) if "quick" in arguments else Bench(**given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
