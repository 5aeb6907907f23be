"""``python -m morenas.search``: find an adapter architecture under a budget, fine-tune it, measure it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from morenas.base.errors import InputError, RunError
from morenas.compare.command import table_of
from morenas.finetune.settings import TrainingSettings
from morenas.run.directory import RunDirectory
from morenas.run.launch import Command
from morenas.run.needs import check_sources
from morenas.run.sections import chosen, fill
from morenas.search.config import SearchRunConfig
from morenas.search.requests import BudgetSettings, SpaceSettings

if TYPE_CHECKING:
    from morenas.finetune.methods import Targets
    from morenas.run.session import Session
    from morenas.search.engine import SearchOutcome
    from morenas.space import Architecture, Budget, SearchSpace

Tensors = dict[str, Any]

ABOUT = """\
Find an adapter architecture under a parameter budget, fine-tune it, measure it.

    python -m morenas.search +task=demo                    a demo of minutes, no download
    python -m morenas.search +task=glue/rte                roberta-base and GLUE from the hub
    python -m morenas.search +task=glue/rte task.data_dir=<folder> model.name_or_path=<folder>
    python -m morenas.search -m +task=glue/rte,glue/mrpc seed=0,1,2
    python -m morenas.search resume=<run directory>"""


def execute(config: SearchRunConfig, directory: RunDirectory) -> float:
    """Run the phases: search, final fine-tune, comparison; return the main metric on the select split."""
    check_comparison(config)
    fill(TrainingSettings, config.training)
    checked = check_sources(config)  # before anything heavy is imported
    from morenas.search.plan import search_settings

    search_settings(config, final_steps=1)  # what is wrong whatever the steps is refused before data is read
    from morenas.run.publish import publish
    from morenas.run.session import session

    with session("search", config, directory, checked, budget_words(config)) as run:
        architecture, factors, head = search(run, config)
        run.trackers.architecture(architecture)
        rows = [finetune_found(run, config, architecture, factors, head)]
        if compares_with_lora(config) and architecture.modules:  # no LoRA has no parameters
            rows.append(finetune_lora(run, config, architecture))
        return publish(run, "search", rows, dict(architecture.budget))


COMMAND = Command("search", ABOUT, SearchRunConfig, execute, table_of)


def check_comparison(config: SearchRunConfig) -> None:
    """Notice before the search what would stop the comparison after it.

    Raises:
        InputError: If a number of the comparison is not one to train with.
    """
    for name in ("learning_rate", "alpha"):
        value = getattr(config.comparison, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"comparison.{name}={value}: must be above 0 and finite, or null.")


def compares_with_lora(config: SearchRunConfig) -> bool:
    """Whether a LoRA of equal parameters is fine-tuned too."""
    return config.compare == "lora" or (config.compare == "auto" and config.task.source == "demo")


def budget_words(config: SearchRunConfig) -> str:
    """The budget in short, for a run's name."""
    budget = config.budget
    words = [
        ("params", budget.params),
        ("lora", budget.lora_rank),
        ("x", budget.fraction),
        (budget.cost, budget.value),
    ]
    return "-".join(f"{key}{number}" for key, number in words if number is not None)


def search(run: Session, config: SearchRunConfig) -> tuple[Architecture, Tensors, Tensors]:
    """Search, or take up what a search in this run directory found; architecture, factors and head to start from."""
    from morenas.base.tensors import load_tensors, save_tensors
    from morenas.search.files import pack, unpack, write_candidates, write_trajectory
    from morenas.space import Architecture

    inherited = run.directory.checkpoints / "inherited.safetensors"
    if not (run.directory.architecture.exists() and inherited.exists()):
        modules = run.targets(config.space.target_modules, config.space.exclude_modules)
        if compares_with_lora(config):
            check_lora(run, modules)
        space = fill(SpaceSettings, config.space).build(modules, cost=chosen(config.budget))
        budget = fill(BudgetSettings, config.budget).resolve(space, run.model_parameters)
        outcome = run_search(run, config, space, budget)
        save_tensors(inherited, pack(outcome))
        write_trajectory(run.directory.trajectory, space, outcome)
        write_candidates(run.directory.candidates, outcome)
        describe(run, outcome).to_json(run.directory.architecture)
    architecture = Architecture.from_json(run.directory.architecture)
    factors, head = unpack(load_tensors(inherited)[0])
    return architecture, factors, head


def run_search(run: Session, config: SearchRunConfig, space: SearchSpace, budget: Budget) -> SearchOutcome:
    """The bilevel search, from its checkpoint where there is one."""
    from morenas.base.seeds import derive
    from morenas.finetune.stage import final_steps
    from morenas.search.engine import SearchData, search_architecture
    from morenas.search.plan import search_settings, too_short
    from morenas.tasks.encode import EncodedBatches

    steps = final_steps(run)
    settings = search_settings(config, steps)
    if words := too_short(config, settings, steps):
        run.observer.message(words)
    pretrained, data, size = run.base.get(), run.data, config.training.batch_size
    run.observer.message(
        f"Searching {len(space.groups)} x {len(space.choices)} choices over {len(space.modules)} modules of "
        f"'{config.model.name_or_path}' for at most {budget}."
    )
    with run.meter.phase("search") as measured:
        outcome = search_architecture(
            pretrained.model,
            SearchData(
                EncodedBatches(data.search_train, data.tokenizer, size, derive(config.seed, "search", "train")),
                EncodedBatches(data.search_val, data.tokenizer, size, derive(config.seed, "search", "val")),
                EncodedBatches(data.select, data.tokenizer, size, derive(config.seed, "search", "select")),
            ),
            space,
            budget,
            settings,
            pretrained.head,
            checkpoint=run.directory.checkpoints / "search.safetensors",
            observer=run.observer,
        )
        measured.steps = outcome.steps
    return outcome


def describe(run: Session, outcome: SearchOutcome) -> Architecture:
    """The architecture found, under the model's name as it was given, and with the task that it was found on."""
    from dataclasses import replace

    task = {"task": run.task.spec.name, "data_fingerprint": run.task.provenance["fingerprint"]}
    found = outcome.architecture
    return replace(found, base_model=run.config.model.name_or_path, search={**found.search, **task})


def finetune_found(
    run: Session, config: SearchRunConfig, architecture: Architecture, factors: Tensors, head: Tensors
) -> dict[str, Any]:
    """The final fine-tune, in the found structure."""
    from morenas.finetune.methods import Head, More
    from morenas.finetune.stage import final_steps, fit
    from morenas.search.plan import passes_in_all, training_of_found

    targets = {name: (shape.in_features, shape.out_features) for name, shape in architecture.modules.items()}
    if not targets and run.task.spec.causal:
        raise RunError(
            "The search chose no adapter for any module, and a language model has no head to train instead. Search "
            "longer (search.steps), allow more parameters (budget), or leave 0 out of space.ranks."
        )
    if not targets:
        run.observer.message("The search chose no adapter for any module: the head alone is trained, from its start.")
        return fit(run, Head(), targets, "finetune", run.directory.adapter)
    inherit = config.training.init == "inherit"
    steps, searched = final_steps(run), architecture.search["passes"]
    changes = training_of_found(config, steps, searched)
    passes, worth = passes_in_all(config, steps, searched), architecture.search.get("worth")
    details = {"init": config.training.init, "passes_with_search": passes, "worth": worth}
    if words := architecture.search.get("learnt_nothing"):
        details["learnt_nothing"] = words
    method = More().with_architecture(architecture, factors if inherit else {}, head if inherit else {})
    return fit(run, method, targets, "finetune", run.directory.adapter, details, **changes)


def check_lora(run: Session, targets: Targets) -> None:
    """Refuse before the search a LoRA that could not be attached after it."""
    from morenas.finetune.attach import check_attachable
    from morenas.finetune.methods import RankedLora

    pretrained = run.base.get()
    check_attachable(pretrained.model, RankedLora(rank=1, ranks=dict.fromkeys(targets, 1)), targets, pretrained.head)


def finetune_lora(run: Session, config: SearchRunConfig, architecture: Architecture) -> dict[str, Any]:
    """LoRA with as many parameters, on the modules that were searched."""
    from morenas.finetune.methods import RankedLora, equal_parameter_lora
    from morenas.finetune.stage import final_steps, fit
    from morenas.search.plan import passes_in_all

    targets = run.targets(config.space.target_modules, config.space.exclude_modules)
    ranks = equal_parameter_lora(architecture.num_parameters(), targets)
    rank = max(ranks.values())
    alpha, rate = config.comparison.alpha, config.comparison.learning_rate
    changes: dict[str, Any] = {} if rate is None else {"learning_rate": rate}
    if config.comparison.passes == "equal":
        changes["max_steps"] = passes_in_all(config, final_steps(run), architecture.search["passes"])
    return fit(
        run,
        RankedLora(rank=rank, alpha=alpha, ranks=ranks),
        targets,
        "compare_lora",
        run.directory.path / "compare" / "lora",
        {"rank": rank, "alpha": alpha or 2 * rank, "equal_parameters": True, "passes": config.comparison.passes},
        **changes,
    )
