"""``python -m morenas.benchmark``: search methods on problems whose best architecture is known."""

from __future__ import annotations

from dataclasses import dataclass

from morenas.base.errors import InputError, suggest
from morenas.base.settings import one_of
from morenas.run.words import WordCommand

ABOUT = """\
Compare search methods on problems whose best architecture is known.

    python -m morenas.benchmark --out <folder>
    python -m morenas.benchmark --out <folder> --tables planted --methods random lora --jobs 2"""
DEVELOPMENT, PUBLISHED = 0, 1100  # first number of the problems
TABLES = ("planted", "transformer", "tabular")


@dataclass
class BenchmarkConfig:
    """The words of the command line.

    Attributes:
        out: Folder of rows, benchmark.json, tables.md and pictures.
        tables: Tables to make.
        families: Families of planted problems and of planted transformers; None for all of them.
        problems: Planted problems of each family.
        seeds: Search seeds.
        methods: Methods beside morenas; None for all of them.
        jobs: Processes, of one thread each.
        published: Take the problems of the published table, from 1100 on; never to tune on.
    """

    out: str
    tables: tuple[str, ...] = one_of(TABLES, TABLES)
    families: list[str] | None = None
    problems: int = 4
    seeds: int = 5
    methods: list[str] | None = None
    jobs: int = 1
    published: bool = False

    def __post_init__(self) -> None:
        for name in ("problems", "seeds", "jobs"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)}: must be at least 1.")


def execute(config: BenchmarkConfig) -> None:
    """Run what is missing, then write ``benchmark.json``, ``tables.md`` and a picture a table.

    Raises:
        InputError: If there is no such method or family.
    """
    print(benchmark(config))


def benchmark(config: BenchmarkConfig) -> str:
    """Run, write, and return the tables as markdown."""
    from morenas.base.files import writable_folder, write_bytes
    from morenas.benchmark import bars, markdown, report
    from morenas.benchmark.methods import METHODS, OURS
    from morenas.benchmark.plot import draw
    from morenas.benchmark.run import TEACHERS, planted, run, tabular

    methods = list(METHODS) if config.methods is None else list(dict.fromkeys([OURS, *config.methods]))
    for method in methods:
        if method not in METHODS:
            raise InputError(f"methods={method}: choose from {', '.join(METHODS)}{suggest(method, METHODS)}.")
    first = PUBLISHED if config.published else DEVELOPMENT
    places = []
    for table in TEACHERS:
        if table in config.tables:
            places += planted(table, config.families, first, config.problems)
    if "tabular" in config.tables:
        places += tabular()
    out, seeds = writable_folder(config.out), range(first, first + config.seeds)
    found = run(places, methods, seeds, writable_folder(f"{out}/rows"), config.jobs)
    document = report.summarize(found, OURS)
    bars.write(out / "benchmark.json", document)
    for table in document["tables"]:
        draw(out / f"{table}.png", document, table)
    tables = markdown.markdown(document)
    write_bytes(out / "tables.md", tables.encode())
    return tables


COMMAND = WordCommand(ABOUT, BenchmarkConfig, execute)
