"""The model card of an export: task, metric, architecture, parameters, base model and its licence, command, loading."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load, try_to_load_from_cache

from morenas.base.errors import InputError
from morenas.export.forms import Exported
from morenas.export.readers import way_out
from morenas.models import resolve_model
from morenas.monarch import num_parameters
from morenas.run.reading import FinishedRun

CARD = "README.md"
TEMPLATE = files("morenas") / "assets" / "templates" / "card.md.jinja"
TITLES = {
    "lora": "A LoRA for {base}, found as Monarch adapters",
    "more": "Monarch adapters for {base}",
    "merged": "{base}, fine-tuned",
}
LIBRARIES = {"lora": "peft", "more": "peft", "merged": "transformers"}
TASKS = {True: "text-generation", False: "text-classification"}
"""The hub's name of the task, by whether the model is a causal language model."""
POOLED = """\
from morenas.models.pooling import pool_by_mean
pool_by_mean(model)  # transformers' own class would read the first token
"""


def write_card(folder: Path, exported: Exported, base: str, run: FinishedRun | None = None) -> None:
    """Write the card of an export beside it.

    Args:
        base: Name or folder of the base model; the card leaves out the path of a folder.
        run: The run that trained it, for task, metric and command.
    """
    name, licence = public_name(base), base_licence(base)
    values = {
        "title": TITLES[exported.form].format(base=name),
        "base": name,
        "licence": licence,
        "form": exported.form,
        "causal": exported.causal,
        "loader": "AutoModelForCausalLM" if exported.causal else "AutoModelForSequenceClassification",
        "modules": _modules(exported),
        "truncated": bool(exported.errors),
        "rank": max(exported.ranks.values(), default=None),
        "vocabulary": exported.vocabulary,
        **(_of_run(run) if run else {"results": None}),
    }
    card = ModelCard.from_template(
        _metadata(exported, name, licence, run),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        unread=exported.unread,
        way_out=way_out(exported.unread),
        pooled=POOLED if run is not None and run.pooling == "mean" else "",
        **as_text(values),
    )
    card.save(folder / CARD)


def as_text(value: Any) -> Any:
    """Values in which no text can leave its line, its cell or its code span, or be HTML."""
    if isinstance(value, str):
        one_line = re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+", " ", value)
        return one_line.replace("`", "'").replace("|", "/").replace("<", "(")
    if isinstance(value, Mapping):
        return {as_text(name): as_text(item) for name, item in value.items()}
    return [as_text(item) for item in value] if isinstance(value, list | tuple) else value


def public_name(base: str) -> str:
    """A model's name on the hub, or the name of its folder without the path, which is private."""
    return Path(base).name if Path(base).expanduser().exists() else base


def base_licence(base: str) -> str | None:
    """The licence in the base model's card, read from its folder or the local cache; None where there is no card."""
    try:
        source = resolve_model(base)
        card = Path(source.location) / CARD if source.local else try_to_load_from_cache(base, CARD)
        found = (metadata_load(Path(card)) or {}).get("license") if isinstance(card, str | Path) else None
    except (InputError, OSError, ValueError):
        return None
    return str(found) if found else None


def _metadata(exported: Exported, name: str, licence: str | None, run: FinishedRun | None) -> ModelCardData:
    form, task = exported.form, TASKS[exported.causal]
    return ModelCardData(
        base_model=name,
        license=licence,
        library_name=LIBRARIES[form],
        pipeline_tag=task,
        tags=["morenas", *(["lora"] if form == "lora" else [])],
        model_name=f"{name}-{run.results['task'].replace('/', '-')}" if run else None,
        # the metrics are those of the adapter before it was truncated
        eval_results=_eval_results(run, task) if run and not exported.errors else None,
    )


def _eval_results(run: FinishedRun, task_type: str) -> list[EvalResult]:
    task = run.results["task"]
    return [
        EvalResult(
            task_type=task_type,
            dataset_type=task,
            dataset_name=f"{task} ({split})",
            metric_type=metric,
            metric_value=value,
        )
        for split, metrics in _tests(run).items()
        for metric, value in metrics.items()
    ]


def _of_run(run: FinishedRun) -> dict[str, Any]:
    """Variables of the template for the run that trained the adapter."""
    model, versions = run.results["model"], run.results["versions"]
    dtype, quantization = model.get("dtype", "float32"), model.get("quantization", "none")
    return {
        "results": run.results,
        "row": run.results["methods"][0],
        "kind": run.kind,
        # how the frozen weights were stored in training, if not in float32
        "frozen": [dtype] * (dtype != "float32") + [f"quantized ({quantization})"] * (quantization != "none"),
        "tests": _tests(run),
        "versions": [f"{name} {version}" for name, version in versions.items() if version],
    }


def _modules(exported: Exported) -> list[dict[str, Any]]:
    """One entry for each module that has a Monarch adapter."""
    return [
        {
            "name": name,
            "nblocks": nblocks,
            "blk_r": blk_r,
            "in_features": in_features,
            "out_features": out_features,
            "params": num_parameters(in_features, out_features, nblocks, blk_r),
            "rank": exported.ranks.get(name, nblocks * blk_r),
            "error": exported.errors.get(name, 0),
        }
        for name, (nblocks, blk_r, in_features, out_features) in exported.shapes.items()
    ]


def _tests(run: FinishedRun) -> Mapping[str, Mapping[str, Any]]:
    metrics = run.results["methods"][0]["metrics"]
    return {split: values for split, values in metrics.items() if split != "select"}
