"""report.html: a run on one self-contained page."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from morenas.base.files import read_json, write_text
from morenas.tracking.figures import architecture_figure, curves_figure, probabilities_figure
from morenas.tracking.table import method_words

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2733; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid #d5dce3; }
table { border-collapse: collapse; }
th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #e6ebf0; }
th:first-child, td:first-child { text-align: left; } code, pre { background: #f4f6f8; padding: .1rem .3rem; }
pre { padding: .6rem; overflow-x: auto; } svg { max-width: 100%; height: auto; }
"""
PANELS = {
    "loss": ("search/lower_loss", "search/upper_loss"),
    "expected parameters": ("search/expected_params",),
    "entropy": ("search/entropy",),
    "temperature": ("search/temperature",),
}


def write_report(directory: Path, results: dict[str, Any]) -> None:
    """Write ``report.html`` of a run directory.

    Args:
        directory: What is in it is told; parts that are not there are left out.
        results: The document of ``results.json``.
    """
    title = f"{results['task']} on {results['model']['name']}"
    sections = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{results['kind']}, seed {results['seed']}, {html.escape(results['device'])}</p>",
        _methods(results),
        _architecture(directory),
        _search(directory, results),
        _phases(results),
        f"<h2>Data</h2><pre>{html.escape(json.dumps(results['data'], indent=2, ensure_ascii=False))}</pre>",
        _repeat(results),
    ]
    page = (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(title)}</title>"
        f"<style>{STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )
    write_text(directory / "report.html", page)


def _methods(results: dict[str, Any]) -> str:
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
    return "<h2>Results</h2>" + _table(header, rows)


def _architecture(directory: Path) -> str:
    path = directory / "architecture.json"
    if not path.exists():
        return ""
    modules = read_json(path, "architecture")["modules"]
    shapes = {name: (shape["nblocks"], shape["blk_r"]) for name, shape in modules.items()}
    return "<h2>Architecture</h2>" + (
        _svg(architecture_figure(shapes)) if shapes else "<p>No module has an adapter.</p>"
    )


def _search(directory: Path, results: dict[str, Any]) -> str:
    metrics, trajectory = directory / "search" / "metrics.jsonl", directory / "search" / "trajectory.npz"
    parts = []
    if metrics.exists():
        lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
        marks = {"expected parameters": results["budget"]["params"]} if results["budget"] else {}
        parts.append(_svg(curves_figure(lines, PANELS, marks)))
    if trajectory.exists():
        with np.load(trajectory) as arrays:
            probs, groups, choices = arrays["probs"][-1], arrays["groups"].tolist(), arrays["choices"].tolist()
        parts.append(_svg(probabilities_figure(probs, groups, choices)))
    return "<h2>Search</h2>" + "".join(parts) if parts else ""


def _phases(results: dict[str, Any]) -> str:
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
    return "<h2>Phases</h2>" + _table(["phase", "seconds", "steps", "peak memory, MiB", "over the model, MiB"], rows)


def _repeat(results: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    commit = f" · commit {html.escape(results['git_commit'])}" if results["git_commit"] else ""
    return f"<h2>To repeat it</h2><pre>{html.escape(results['command'])}</pre><p>{html.escape(versions)}{commit}</p>"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return f"<div>{text[text.index('<svg') :]}</div>"
