"""report.html: a run on one self-contained page."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from morenas.base.files import read_json, write_text
from morenas.tracking.figures import architecture_figure, curves_figure, probabilities_figure
from morenas.tracking.table import method_words

PANELS = {
    "loss": ("search/lower_loss", "search/upper_loss"),
    "expected parameters": ("search/expected_params",),
    "entropy": ("search/entropy",),
    "temperature": ("search/temperature",),
}


TEMPLATES = Environment(
    loader=PackageLoader("morenas", "assets/templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
Cells = tuple[Sequence[str], Sequence[Sequence[str]]]
"""The header of a table, and its rows."""


def write_report(directory: Path, results: dict[str, Any]) -> None:
    """Write ``report.html`` of a run directory.

    Args:
        directory: The report shows what is in it; parts that are not there are left out.
        results: The document of ``results.json``.
    """
    page = TEMPLATES.get_template("report.html.jinja").render(
        title=f"{results['task']} on {results['model']['name']}",
        results=results,
        methods=_methods(results),
        architecture=_architecture(directory),
        search=_search(directory, results),
        phases=_phases(results),
        data=json.dumps(results["data"], indent=2, ensure_ascii=False),
        versions=[f"{name} {version}" for name, version in results["versions"].items() if version],
    )
    write_text(directory / "report.html", page)


def _methods(results: dict[str, Any]) -> Cells:
    metrics = [(split, name) for split, values in results["methods"][0]["metrics"].items() for name in values]
    header = ["method", *(f"{split} {name}" for split, name in metrics), "adapter params", "of the model", "seconds"]
    rows = [
        [
            method_words(row, index == 0 and results["kind"] == "search"),
            *(f"{row['metrics'][split][name]:.4f}" for split, name in metrics),
            f"{row['adapter_params']:,}",
            f"{row['params_fraction']:.3%}",
            f"{row['seconds']:.1f}",
        ]
        for index, row in enumerate(results["methods"])
    ]
    return header, rows


def _architecture(directory: Path) -> str | None:
    """The heat map; empty where no module has an adapter, None where there is no architecture."""
    path = directory / "architecture.json"
    if not path.exists():
        return None
    modules = read_json(path, "architecture")["modules"]
    shapes = {name: (shape["nblocks"], shape["blk_r"]) for name, shape in modules.items()}
    return _svg(architecture_figure(shapes)) if shapes else ""


def _search(directory: Path, results: dict[str, Any]) -> list[str]:
    """Curves and final mixing probabilities, those that there are."""
    metrics, trajectory = directory / "search" / "metrics.jsonl", directory / "search" / "trajectory.npz"
    figures = []
    if metrics.exists():
        lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        budget = results["budget"] or {}  # one in another cost has no line among parameters
        marks = {"expected parameters": budget["params"]} if "params" in budget else {}
        figures.append(_svg(curves_figure(lines, PANELS, marks)))
    if trajectory.exists():
        with np.load(trajectory) as arrays:
            probs, groups, choices = arrays["probs"][-1], arrays["groups"].tolist(), arrays["choices"].tolist()
        figures.append(_svg(probabilities_figure(probs, groups, choices)))
    return figures


def _phases(results: dict[str, Any]) -> Cells:
    rows = [
        [
            phase["name"],
            f"{phase['seconds']:.1f}",
            str(phase["steps"]),
            f"{(phase['peak_memory_bytes'] or 0) / 2**20:,.0f}",
            f"{(phase.get('memory_over_model_bytes') or 0) / 2**20:,.0f}",
        ]
        for phase in results["phases"]
    ]
    return ["phase", "seconds", "steps", "peak memory, MiB", "over the model, MiB"], rows


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]  # without the XML declaration in front of it
