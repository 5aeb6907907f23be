"""``python -m morenas.export``: what a run trained, in a form that others load."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import MISSING

from morenas.base.errors import InputError
from morenas.base.settings import one_of
from morenas.export.readers import READERS, SERVERS, way_out
from morenas.models.quiet import quiet_quantizers
from morenas.run.words import WordCommand

if TYPE_CHECKING:
    from morenas.export.forms import Exported
    from morenas.run.reading import FinishedRun

ABOUT = """\
Write what a run trained in a form that others load, with a model card.

    python -m morenas.export run=<run directory> to=lora out=<folder>
    python -m morenas.export run=<run directory> to=lora out=<folder> for=peft
    python -m morenas.export run=<run directory> to=merged out=<folder>"""

RETIRED = {"uniform_rank": "one rank for all modules is what to=lora writes; for=peft writes each module's own"}
"""Keys that there were, and what takes their place."""
FORMS = ("lora", "more", "merged")
FORMS_OF: dict[str, tuple[str, ...]] = {
    "more": ("lora", "more", "merged"),
    "lora": ("lora", "merged"),
    "rslora": ("lora", "merged"),
    "equal_lora": ("lora", "merged"),
    "dora": ("lora", "merged"),  # a LoRA in PEFT's own format
}
"""What the trained methods can be written as; those that are not here, merged alone."""


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What an adapter in PEFT's own format is made of."""
READ = ("adapter_*", "trained.safetensors", "config.json", "generation_config.json", "model*.safetensors*")
"""What is read of the folder of a run's adapter, whatever method trained it."""


@dataclass
class ExportConfig:
    """The words of the command line.

    Attributes:
        run: Directory of a complete run.
        to: "lora": a LoRA for PEFT and servers, without morenas; "merged": a plain model of transformers; "more": the
            native adapter.
        out: Folder to write; must not hold anything.
        base: Where the base model lies now; None for where the run found it.
        for_: Whom a LoRA is written for: "servers": one rank for all modules, padded with zeros, which vLLM, llama.cpp
            and PEFT read alike; "peft": each module its own rank, smaller, for PEFT alone.
        max_rank: Of a LoRA: the largest rank that the server takes; None for any.
        truncate: Of a LoRA: approximate what is above max_rank, and say the error; without it, that is refused.
        trust_remote_code: Run code that the base model's folder brings; else a model that needs such code is refused.
    """

    run: str = MISSING
    to: str = one_of(FORMS, MISSING)
    out: str = MISSING
    base: str | None = None
    for_: str = one_of(READERS, SERVERS)
    max_rank: int | None = None
    truncate: bool = False
    trust_remote_code: bool = False


def execute(config: ExportConfig) -> None:
    """Export, and say what was written.

    Raises:
        InputError: As of ``export``.
    """
    quiet_quantizers()
    report(config, export(config))


def export(config: ExportConfig) -> Exported:
    """Write a run's adapter in the form that was asked for.

    Raises:
        InputError: If the run is not complete, its method has no such form, its base model is another, or ``out`` is
            taken.
    """
    from morenas.run.reading import read_finished

    check_out(config.out)
    run = read_finished(Path(config.run))
    check_form(run.method, config)
    from morenas.export.card import write_card
    from morenas.export.functions import empty_folder

    with empty_folder(config.out) as folder:
        exported = write(run, config, folder)
        write_card(folder, exported, config.base or run.base, run)
    return exported


def check_out(out: str) -> None:
    """Refuse, before anything is read, a folder that an export cannot become.

    Raises:
        InputError: If it is no name, holds something, or is where this process stands.
    """
    path = Path(out)
    if not out.strip() or path.resolve() in (here := Path.cwd().resolve(), *here.parents):
        raise InputError(f"out={out}: name a folder of its own, which is not there yet or is empty: out=exported.")
    if path.is_symlink() or (path.exists() and not path.is_dir()) or (path.is_dir() and any(path.iterdir())):
        raise InputError(f"out={out}: there is something already; name a folder that is not there or is empty.")


def check_form(method: str, config: ExportConfig) -> None:
    """Refuse a form that what the method trains does not have, and options that would do nothing.

    Raises:
        InputError: Naming the forms there are.
    """
    forms = FORMS_OF.get(method, ("merged",))
    if config.to not in forms:
        raise InputError(
            f"run={config.run}: was trained by method={method}, which cannot be written as to={config.to}; "
            f"choose to={' or to='.join(forms)}."
        )
    defaults = ExportConfig()
    if config.for_ != defaults.for_ and config.to != "lora":
        raise InputError(f"for={config.for_}: goes with to=lora alone; leave it out.")
    for option in ("max_rank", "truncate"):
        value = getattr(config, option)
        if value != getattr(defaults, option) and not (method == "more" and config.to == "lora"):
            raise InputError(f"{option}={value}: goes with to=lora of a run of method=more alone; leave it out.")


def write(run: FinishedRun, config: ExportConfig, folder: Path) -> Exported:
    """Fill the folder; everything but the card."""
    from morenas.export.base import load_run_base, put_on
    from morenas.export.forms import write_lora, write_more, write_trained_lora, write_trained_merged

    check_links(run.adapter)
    pretrained = load_run_base(run, config.base, config.trust_remote_code)
    if config.to == "merged":
        return write_trained_merged(run, pretrained, folder)
    if run.method != "more":
        for name in ADAPTER_FILES:
            _check_file(run.adapter / name)
        return write_trained_lora(run.adapter, pretrained.model, folder, config.for_)
    model = put_on(pretrained.model, run.adapter)
    if config.to == "more":
        if run.architecture.exists():
            _check_file(run.architecture)
            shutil.copyfile(run.architecture, folder / "architecture.json")
        return write_more(model, folder)
    return write_lora(model, folder, config.for_, config.max_rank, config.truncate)


def check_links(adapter: Path) -> None:
    """Refuse links among the files that are read of an adapter: what they lead to may be anybody's, and is published.

    Raises:
        InputError: Naming the link.
    """
    for path in sorted(adapter.iterdir()):
        if any(path.match(pattern) for pattern in READ) and path.is_symlink():
            _check_file(path)


def _check_file(path: Path) -> None:
    """Refuse to copy a file that is none of the run's own.

    Raises:
        InputError: If it is missing, or leads to a file that is no part of the run.
    """
    if path.is_symlink() or not path.is_file():
        said = "is a link" if path.is_symlink() else "is missing"
        raise InputError(f"{path}: {said}; copy the whole run directory again, files and no links.")


def report(config: ExportConfig, exported: Exported) -> None:
    """Say what was written where, and how near it is."""
    print(f"{exported.form:<8}{config.out}")
    if exported.ranks:
        ranks = sorted(set(exported.ranks.values()))
        print(f"ranks   {', '.join(map(str, ranks))} on {len(exported.ranks)} modules")
    if exported.form == "lora":
        print("for     PEFT" + ("" if exported.unread else ", vLLM and llama.cpp"))
    for words in exported.unread:
        print(f"        vLLM and llama.cpp do not read {words}; {way_out(exported.unread)}")
    if exported.errors:
        worst = max(exported.errors, key=exported.errors.__getitem__)
        print(f"error   {len(exported.errors)} modules truncated, at most {exported.errors[worst]:.3g} ({worst})")


COMMAND = WordCommand(ABOUT, ExportConfig, execute, retired=RETIRED)
