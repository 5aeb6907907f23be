"""What ``--help`` says. Hydra's own would take seconds to list the groups and name neither command nor task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

USAGE = {
    "search": """\
Find an adapter architecture under a parameter budget, fine-tune it, measure it.

    python -m morenas.search +task=demo                    a demo of minutes, no download
    python -m morenas.search +task=glue/rte                roberta-base and GLUE from the hub
    python -m morenas.search +task=glue/rte task.data_dir=<folder> model.name_or_path=<folder>
    python -m morenas.search -m +task=glue/rte,glue/mrpc seed=0,1,2
    python -m morenas.search resume=<run directory>""",
    "finetune": """\
Fine-tune a found architecture, or a baseline, in the same harness.

    python -m morenas.finetune +task=glue/rte architecture=<run directory>/architecture.json
    python -m morenas.finetune +task=glue/rte method=lora method.rank=32
    python -m morenas.finetune resume=<run directory>""",
}
HIDDEN = {
    "search": ("method",),
    "finetune": ("space", "budget", "relaxation", "hypergradient", "selection", "experiment"),
}
"""Groups that a command has no use for."""


def print_usage(command: str, configs: Path, words: Sequence[str]) -> None:
    """Print what a command does, the groups and their choices, and the configuration that ``words`` give."""
    with initialize_config_dir(config_dir=str(configs), version_base="1.3"):
        config = compose(config_name=command, overrides=[word for word in words if not word.startswith("-")])
    print(f"{USAGE[command]}\n\nA task is chosen by +task=name, any other group by group=choice:\n")
    for group in sorted(path.name for path in configs.iterdir() if path.is_dir()):
        if group != "hydra" and group not in HIDDEN[command]:
            print(f"    {group:<14} {', '.join(choices(configs / group))}")
    print(f"\nEvery key is set by key=value:\n\n{OmegaConf.to_yaml(config)}")
    print("More: --cfg job prints the configuration alone, --hydra-help what Hydra adds.")


def choices(group: Path) -> list[str]:
    """The choices of a group, those of its folders as ``folder/name``; what several share, ``_base``, is none."""
    found = (path for path in group.rglob("*.yaml") if not path.name.startswith("_"))
    return sorted(str(path.relative_to(group).with_suffix("")) for path in found)
