"""The tables of a bench run, to read."""

from __future__ import annotations

from collections.abc import Mapping

from morenas.benchmark.bars import bars
from morenas.benchmark.report import ALL, Document, Figure


def markdown(document: Document) -> str:
    """Tables for a README: the bars, then regrets, pairs and rank correlations of every table."""
    parts = [_bars_table(bars(document))]
    for name, table in document["tables"].items():
        parts.append(f"**{name}**: normalized regret [95 %]\n\n{_regrets(table['groups'], document['ours'])}")
        if any("final" in of for of in table["groups"][ALL]["methods"].values()):
            parts.append(
                f"**{name}**: at the end of each method's own run\n\n{_finals(table['groups'], document['ours'])}"
            )
        if table["groups"][ALL]["paired"]:
            parts.append(f"**{name}**: {document['ours']} beside each control\n\n{_pairs(table['groups'][ALL])}")
        details = {key: of["details"] for key, of in table["groups"][ALL]["methods"].items() if of["details"]}
        if details:
            parts.append(f"**{name}**: supernet and alone-trained\n\n{_correlations(details)}")
    return "\n\n".join(parts) + "\n"


def _bars_table(found: list[Document]) -> str:
    holds = {None: "not measured", True: "yes", False: "**no**"}
    lines = [
        [
            f"{bar['measure']}, {bar['table']}, {bar['group']}"
            + (f" (against {bar['worst']})" if bar["worst"] else ""),
            f"{bar['relation']} {bar['bar']:.3g}",
            _shown(bar, "seen"),
            holds[bar["holds"]],
        ]
        for bar in found
    ]
    return table_lines(["measure", "bar", "seen [95 %]", "holds"], lines)


def _regrets(groups: Document, ours: str) -> str:
    names = [name for name in groups if name != ALL or len(groups) > 2]
    lines = []
    for method, figures in groups[ALL]["methods"].items():
        regrets = [_shown(groups[name]["methods"].get(method, {}).get("regret")) for name in names]
        rest = [_shown(figures.get(name)) for name in ("recovered", "right_side")]
        rest += [f"{figures['cost']['mean']:.2f}", f"{figures['seconds']:.3g}"]
        runs = f"{figures['problems']} x {figures['seeds']}"
        lines.append([f"**{method}**" if method == ours else method, *regrets, *rest, runs])
    return table_lines(["method", *names, "recovered", "right side of N", "cost", "seconds", "problems x seeds"], lines)


def _finals(groups: Document, ours: str) -> str:
    """Losses after all passes of a method, in trainings, so that a reader sees whose cost is equal."""
    names = [name for name in groups if name != ALL or len(groups) > 2]
    having = {method: of for method, of in groups[ALL]["methods"].items() if "final" in of}
    lines = []
    for method in sorted(having, key=lambda method: having[method]["final"]["mean"]):
        losses = [_shown(groups[name]["methods"].get(method, {}).get("final")) for name in names]
        lines.append([f"**{method}**" if method == ours else method, f"{having[method]['total']['mean']:.2f}", *losses])
    return table_lines(["method", "passes in all, in trainings", *(f"final loss, {name}" for name in names)], lines)


def _pairs(group: Document) -> str:
    lines = [
        [
            name,
            _shown(of["difference"]),
            _shown(of.get("final")),
            _shown(of["wins"]),
            f"{of['ties']:.3g}",
            f"{of['p']:.2g}",
            str(of["pairs"]),
        ]
        for name, of in group["paired"].items()
    ]
    heading = ["regret, ours less its [95 %]", "final loss, ours less its", "won [95 %]", "ties", "Wilcoxon p", "pairs"]
    return table_lines(["control", *heading], lines)


def _correlations(details: Mapping[str, Document]) -> str:
    names = list(dict.fromkeys(name for of in details.values() for name in of))
    lines = [[name, *(_shown(of.get(name)) for of in details.values())] for name in names]
    return table_lines(["measure [95 %]", *details], lines)


def _shown(figure: Figure | None, mean: str = "mean") -> str:
    if not figure or figure[mean] is None:
        return "-"
    return f"{figure[mean]:.3g} [{figure['low']:.3g}, {figure['high']:.3g}]"


def table_lines(heading: list[str], lines: list[list[str]]) -> str:
    """A table of Markdown; all columns but the first are aligned to the right."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (heading, rule, *lines))
