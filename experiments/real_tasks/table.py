"""Make the tables of the real tasks from ``rows.json`` alone.

python experiments/real_tasks/table.py                        prints them
python experiments/real_tasks/table.py --write                writes them into README.md
python experiments/real_tasks/table.py --latex tables.tex --figure metric_and_parameters.png
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from comparison import ROPE, Comparison, Scores, compare, difference_of_seeds
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from protocol import DEVELOPMENT, METHODS, MODELS, OURS, TASKS, Known, Place, best_rate, rates_to_try, rows_of, tried

from morenas.benchmark.markdown import table_lines
from morenas.benchmark.measures import Interval

HERE = Path(__file__).parent
BEGIN, END = "<!-- begin: table.py --write -->", "<!-- end: table.py --write -->"
LATEX = {"%": r"\%", "&": r"\&", "_": r"\_", "#": r"\#", "±": r"$\pm$", "<": "$<$"}


class Table(NamedTuple):
    """Cells as plain text."""

    title: str
    heading: list[str]
    lines: list[list[str]]


def tables(known: Known) -> list[Table]:
    """Everything that the rows say; a table without lines is left out."""
    found = [trials(known)]
    for model in MODELS:
        found += [results(known, model), headrooms(known, model), by_task(known, model), over_tasks(known, model)]
    return [table for table in found if table.lines]


def trials(known: Known) -> Table:
    """Select metric of every learning rate, in points."""
    lines = []
    for place in places(known):
        found, best = tried(known, place), best_rate(known, place)
        cells = [f"{short(rate)}: {points(value)}{' (best)' if rate == best else ''}" for rate, value in found.items()]
        left = len(set(rates_to_try(found, place)) - set(found))
        lines.append([*place, ", ".join(cells), str(left or "-")])
    return Table("Learning rates, select metric of seed 0", ["model", "task", "method", "tried", "to try"], lines)


def results(known: Known, model: str) -> Table:
    """Metric, size, length and learning rate of every method whose learning rate is known."""
    lines = []
    for place in places(known, model):
        if runs := at_best_rate(known, place):
            metrics = [100 * run["metric"] for run in runs]
            spread = f" ± {stdev(metrics):.2f}" if len(metrics) > 1 else ""
            size, passes = fmean(run["params"] for run in runs), fmean(run["passes"] for run in runs)
            figures = [f"{fmean(metrics):.2f}{spread}", str(len(runs)), f"{size:,.0f}", f"{passes:.2f}"]
            lines.append([marked(known, model, place[1]), place[2], *figures, short(runs[0]["learning_rate"])])
    heading = ["task", "method", "metric, mean ± sd", "seeds", "parameters", "passes", "learning rate"]
    return Table(f"{model}: test metric at the best learning rate", heading, lines)


def headrooms(known: Known, model: str) -> Table:
    """By how much LoRA of rank 32 is above that of rank 1: whether size matters on a task at all."""
    lines = []
    for task in TASKS:
        large, small = (scores(known, (model, task, method)) for method in ("lora-r32", "lora-r1"))
        if large and small:
            said = {True: "yes", False: "no headroom", None: "not known"}[has_headroom(known, model, task)]
            lines.append([task, interval(difference_of_seeds(large, small)), str(len(large.keys() & small)), said])
    return Table(f"{model}: headroom", ["task", "LoRA r = 32 less r = 1 [95 %]", "common seeds", "headroom"], lines)


def by_task(known: Known, model: str) -> Table:
    """Ours less each rival on each task."""
    lines = []
    for task in TASKS:
        ours = scores(known, (model, task, OURS))
        for rival in METHODS:
            other = scores(known, (model, task, rival))
            if ours and other and rival != OURS:
                figures = [interval(difference_of_seeds(ours, other)), str(len(ours.keys() & other))]
                lines.append([marked(known, model, task), rival, *figures])
    heading = ["task", "rival", f"{OURS} less rival [95 %]", "common seeds"]
    return Table(f"{model}: differences by task", heading, lines)


def over_tasks(known: Known, model: str) -> Table:
    """Means over the table tasks, and over those of them with headroom."""
    tasks = [task for task in TASKS if (model, task) not in DEVELOPMENT]
    groups = {"all": tasks, "with headroom": [task for task in tasks if has_headroom(known, model, task)]}
    lines = []
    for group, of in groups.items():
        by_method = {
            method: {task: found for task in of if (found := scores(known, (model, task, method)))}
            for method in METHODS
        }
        ours = by_method.pop(OURS)
        lines += [[group, *cells(one)] for one in compare(ours, by_method)]
    heading = ["tasks", "rival", "number", "pairs", f"{OURS} less rival [95 %]", "Wilcoxon p", "Holm p"]
    heading += ["P(worse)", f"P(within {ROPE})", "P(better)"]
    return Table(f"{model}: mean over tasks", heading, lines)


def cells(one: Comparison) -> list[str]:
    """A comparison as a line of a table."""
    shares = [f"{value:.3f}" for value in (one.p, one.holm, one.worse, one.equal, one.better)]
    return [one.rival, str(one.tasks), str(one.pairs), interval(one.difference), *shares]


def places(known: Known, model: str | None = None) -> list[Place]:
    """Models, tasks and methods that have rows, in the order of the protocol."""
    there = {row[:3] for row in known}
    models = MODELS if model is None else (model,)
    return [place for m in models for task in TASKS for method in METHODS if (place := (m, task, method)) in there]


def at_best_rate(known: Known, place: Place) -> list[Mapping[str, Any]]:
    """Rows at the learning rate that was chosen, by seed; none before it is known."""
    rate = best_rate(known, place)
    return [known[row] for row in sorted(known) if row[:3] == place and row.learning_rate == rate]


def scores(known: Known, place: Place) -> Scores:
    """Test metric in points by seed, at the learning rate that was chosen."""
    return {run["seed"]: 100 * run["metric"] for run in at_best_rate(known, place)}


def has_headroom(known: Known, model: str, task: str) -> bool | None:
    """Whether LoRA of rank 32 is above that of rank 1 beyond its interval; None for too few seeds."""
    large, small = (scores(known, (model, task, method)) for method in ("lora-r32", "lora-r1"))
    found = difference_of_seeds(large, small)
    return found and found.low > 0


def marked(known: Known, model: str, task: str) -> str:
    """A task with what a reader has to know of it."""
    marks = ["development"] if (model, task) in DEVELOPMENT else []
    marks += ["no headroom"] if has_headroom(known, model, task) is False else []
    return f"{task} ({', '.join(marks)})" if marks else task


def points(value: float) -> str:
    return f"{100 * value:.2f}"


def short(rate: float) -> str:
    return f"{rate:.0e}".replace("e-0", "e-")


def interval(found: Interval | None) -> str:
    if found is None:
        return "fewer than two common seeds"
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def markdown(found: Sequence[Table]) -> str:
    """The tables for a README."""
    return "\n\n".join(f"**{title}**\n\n{table_lines(heading, lines)}" for title, heading, lines in found)


def latex(found: Sequence[Table]) -> str:
    """The tables for a paper; needs the package booktabs."""
    return "\n\n".join(map(_latex, found)) + "\n"


def _latex(table: Table) -> str:
    def line(of: Sequence[str]) -> str:
        return " & ".join(re.sub("[%&_#±<]", lambda found: LATEX[found[0]], cell) for cell in of) + r" \\"

    columns = "l" + "r" * (len(table.heading) - 1)
    rows = [r"\toprule", line(table.heading), r"\midrule", *map(line, table.lines), r"\bottomrule"]
    start = [r"\begin{table}", rf"\caption{{{line([table.title])[:-3]}}}", rf"\begin{{tabular}}{{{columns}}}"]
    return "\n".join([*start, *rows, r"\end{tabular}", r"\end{table}"])


def figure(known: Known) -> Figure:
    """Metric against parameters, mean and standard deviation over seeds; a panel for each model and task."""
    shown = list(dict.fromkeys(place[:2] for place in places(known) if at_best_rate(known, place)))
    drawn = Figure(figsize=(3.4 * max(1, len(shown)), 3.2), layout="constrained")
    for number, (model, task) in enumerate(shown, start=1):
        axis = drawn.add_subplot(1, len(shown), number)
        axis.set(title=f"{task}, {model}", xscale="log", xlabel="parameters", ylabel="test metric, points")
        for index, method in enumerate(METHODS):
            _dot(axis, method, index, at_best_rate(known, (model, task, method)))
    if shown:
        drawn.axes[0].legend(fontsize=6)
    return drawn


def _dot(axis: Axes, method: str, index: int, runs: Sequence[Mapping[str, Any]]) -> None:
    if runs:
        metrics, size = [100 * run["metric"] for run in runs], fmean(run["params"] for run in runs)
        spread = stdev(metrics) if len(metrics) > 1 else 0.0
        axis.errorbar([size], [fmean(metrics)], [spread], fmt="osD^vP*X"[index % 8], color=f"C{index}", label=method)


def written(readme: str, known: Known) -> str:
    """A README with the tables of the rows between the two marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{markdown(tables(known))}\n\n{END}{after}"


def main() -> None:
    """Print, or write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, default=HERE / "rows.json", help="file of the rows")
    parser.add_argument("--write", action="store_true", help="write the tables into README.md")
    parser.add_argument("--latex", type=Path, help="file for the tables in LaTeX")
    parser.add_argument("--figure", type=Path, help="file for metric against parameters")
    given = parser.parse_args()
    known, readme = rows_of(json.loads(given.rows.read_text())["rows"]), HERE / "README.md"
    if given.write:
        readme.write_text(written(readme.read_text(), known))
    if given.latex:
        given.latex.write_text(latex(tables(known)))
    if given.figure:
        figure(known).savefig(given.figure, dpi=150)
    if not (given.write or given.latex or given.figure):
        print(markdown(tables(known)))


if __name__ == "__main__":
    main()
