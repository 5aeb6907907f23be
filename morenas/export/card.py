"""The model card of an export: task, metric, architecture, parameters, base model and its licence, command, loading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, metadata_load, try_to_load_from_cache

from morenas.base.errors import InputError
from morenas.export.forms import Exported
from morenas.models import resolve_model
from morenas.monarch import num_parameters
from morenas.run.reading import FinishedRun

CARD = "README.md"
TITLES = {
    "lora": "A LoRA for {base}, found as Monarch adapters",
    "more": "Monarch adapters for {base}",
    "merged": "{base}, fine-tuned",
}
LIBRARIES = {"lora": "peft", "more": "peft", "merged": "transformers"}
TASKS = {True: "text-generation", False: "text-classification"}
"""What causal language models, and others, do in the hub's words."""


def write_card(folder: Path, exported: Exported, base: str, run: FinishedRun | None = None) -> None:
    """Write the card of an export beside it.

    Args:
        base: Name or folder of the base model; of a folder the card tells its own name alone.
        run: The run that trained it, for task, metric and command.
    """
    name, licence = public_name(base), base_licence(base)
    parts = [f"# {TITLES[exported.form].format(base=name)}", _facts(name, licence, exported, run)]
    parts += [_loading(exported, name), _measured(run, exported), _architecture(exported), _origin(run)]
    data = _metadata(exported, name, licence, run)
    text = "\n\n".join(part for part in parts if part)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}\n").save(folder / CARD)


def public_name(base: str) -> str:
    """A model's name on the hub, or the name of its folder: where it lies is nobody else's business."""
    return Path(base).name if Path(base).expanduser().exists() else base


def base_licence(base: str) -> str | None:
    """What the base model's own card says of its licence; None where there is no card at hand. Asks no network."""
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
        # what was truncated was not measured
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


def _kept(run: FinishedRun) -> str:
    """How the frozen weights were kept in training, where that was not as they are."""
    model = run.results["model"]
    dtype, quantization = model.get("dtype", "float32"), model.get("quantization", "none")
    kept = [dtype] * (dtype != "float32") + [f"quantized ({quantization})"] * (quantization != "none")
    return f"; its frozen weights were kept {' and '.join(kept)} in training" if kept else ""


def _facts(name: str, licence: str | None, exported: Exported, run: FinishedRun | None) -> str:
    lines = [f"- Base model: `{name}`"]
    if run is not None:
        row = run.results["methods"][0]
        lines[0] += f", fingerprint `{run.results['model']['fingerprint'][:16]}`{_kept(run)}"
        lines += [f"- Task: {run.results['task']} ({run.kind})", f"- Metric: {run.results['metric']}"]
        lines += [f"- Method: {row['name']}, {row['adapter_params']:,} adapter parameters "]
        lines[-1] += f"({row['params_fraction']:.3%} of the model) and {row['head_params']:,} of the head"
    elif exported.shapes:
        lines += [f"- Adapter parameters: {sum(map(_parameters, exported.shapes.values())):,}"]
    told = f"{licence}, as its card says" if licence else "not told by what came with it; see where it was published"
    return "\n".join([*lines, f"- Licence of the base model: {told}. Read it before you pass this on."])


def _loading(exported: Exported, name: str) -> str:
    loader = "AutoModelForCausalLM" if exported.causal else "AutoModelForSequenceClassification"
    if exported.form == "merged":
        lines = [
            f"from transformers import {loader}, AutoTokenizer",
            f'model = {loader}.from_pretrained("<this folder>")',
        ]
        return _section("Loading", _code([*lines, 'tokenizer = AutoTokenizer.from_pretrained("<this folder>")']))
    labels = "" if exported.causal else ", num_labels=<labels>"
    lines = ["import morenas  # registers the adapter with PEFT"] if exported.form == "more" else []
    lines += ["from peft import PeftModel", f"from transformers import {loader}"]
    lines += [
        f'model = {loader}.from_pretrained("{name}"{labels})',
        'model = PeftModel.from_pretrained(model, "<this folder>")',
    ]
    note = (
        "" if exported.causal else "\n\nWhere the base model has no pad token, set `model.config.pad_token_id` first."
    )
    return _section("Loading", _code(lines) + note)


def _measured(run: FinishedRun | None, exported: Exported) -> str:
    if run is None:
        return ""
    rows = [
        f"| {split} | {metric} | {value:.4f} |"
        for split, metrics in _tests(run).items()
        for metric, value in metrics.items()
    ]
    note = "Of the adapter before it was truncated:\n\n" if exported.errors else ""
    return _section("Measured", note + "\n".join(["| split | metric | value |", "|---|---|---:|", *rows]))


def _architecture(exported: Exported) -> str:
    if not exported.shapes:
        return ""
    lines = ["| module | in | out | N | r | parameters | LoRA rank | relative error |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
    for name, shape in exported.shapes.items():
        nblocks, blk_r, in_features, out_features = shape
        rank, error = exported.ranks.get(name, nblocks * blk_r), exported.errors.get(name)
        lines.append(
            f"| `{name}` | {in_features} | {out_features} | {nblocks} | {blk_r} | {_parameters(shape):,} | {rank} | "
            f"{'0' if error is None else f'{error:.3g}'} |"
        )
    told = "A Monarch matrix of N blocks of rank r is a LoRA of rank N r: the same function."
    if exported.errors:
        told += " Where there is an error, this is the best approximation; relative, in the Frobenius norm."
    return _section("Architecture", f"{told}\n\n" + "\n".join(lines))


def _origin(run: FinishedRun | None) -> str:
    if run is None:
        return ""
    versions = ", ".join(f"{name} {version}" for name, version in run.results["versions"].items() if version)
    return _section("Made by", _code([run.results["command"]], "sh") + f"\n\nSeed {run.results['seed']}; {versions}.")


def _tests(run: FinishedRun) -> Mapping[str, Mapping[str, Any]]:
    metrics = run.results["methods"][0]["metrics"]
    return {split: values for split, values in metrics.items() if split != "select"}


def _parameters(shape: tuple[int, int, int, int]) -> int:
    nblocks, blk_r, in_features, out_features = shape
    return num_parameters(in_features, out_features, nblocks, blk_r)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}"


def _code(lines: list[str], language: str = "python") -> str:
    return "\n".join([f"```{language}", *lines, "```"])
