"""``python -m morenas.export``: what a run trained, in a form that others load."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from morenas.base.errors import InputError, suggest
from morenas.models.quiet import quiet_quantizers

if TYPE_CHECKING:
    from morenas.export.forms import Exported
    from morenas.run.reading import FinishedRun

USAGE = """\
Write what a run trained in a form that others load, with a model card.

    python -m morenas.export run=<run directory> to=lora out=<folder>
    python -m morenas.export run=<run directory> to=lora out=<folder> uniform_rank=true max_rank=64
    python -m morenas.export run=<run directory> to=merged out=<folder>

    run           a complete run's directory
    to            lora: a LoRA for PEFT and servers, without morenas; merged: a plain model of transformers;
                  more: the native adapter
    out           folder to write; must not hold anything
    base          where the base model lies now, if not where the run found it
    uniform_rank  lora: one rank for all modules, padded with zeros, for servers that know only one (default: false)
    max_rank      lora: the largest rank that the server takes (default: any)
    truncate      lora: approximate what is above max_rank; the error is told (default: false: refused)
"""


class Form(Enum):
    lora = "lora"
    more = "more"
    merged = "merged"


FORMS_OF: dict[str, tuple[Form, ...]] = {
    "more": (Form.lora, Form.more, Form.merged),
    "lora": (Form.lora, Form.merged),
    "dora": (Form.lora, Form.merged),  # a LoRA in PEFT's own format
}
"""What the trained methods can be written as; those that are not here, merged alone."""


@dataclass
class ExportConfig:
    """The words of the command line."""

    run: str = MISSING
    to: Form = MISSING
    out: str = MISSING
    base: str | None = None
    uniform_rank: bool = False
    max_rank: int | None = None
    truncate: bool = False


def main(words: Sequence[str] | None = None) -> None:
    """Export; exit status 2 if the input is refused."""
    words = sys.argv[1:] if words is None else words
    if {"--help", "-h"} & set(words):
        print(USAGE, end="")
        return
    quiet_quantizers()
    try:
        config = parse(words)
        report(config, export(config))
    except InputError as error:
        print(f"morenas: error: {error}", file=sys.stderr)
        sys.exit(2)


def parse(words: Sequence[str]) -> ExportConfig:
    """Read ``key=value`` words.

    Raises:
        InputError: If a key is unknown, twice there or missing, or a value has the wrong type.
    """
    known = [field.name for field in fields(ExportConfig)]
    config, given = OmegaConf.structured(ExportConfig), set()
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or key not in known or key in given:
            wrong = "is given twice" if key in given else f"there is no such key{suggest(key, known)}"
            raise InputError(f"{key}: {wrong if equals else 'give key=value'}. The keys are {', '.join(known)}.")
        given.add(key)
        try:
            OmegaConf.update(config, key, None if value == "null" else value)
        except OmegaConfBaseException as error:
            raise InputError(f"{word}: {str(error).splitlines()[0]}") from error
    if missing := sorted(OmegaConf.missing_keys(config), key=known.index):
        raise InputError(f"{', '.join(missing)}: must be set; --help says how.")
    parsed: Any = OmegaConf.to_object(config)
    return parsed


def export(config: ExportConfig) -> Exported:
    """Write a run's adapter in the form that was asked for.

    Raises:
        InputError: If the run is not complete, its method has no such form, its base model is another, or ``out`` is
            taken.
    """
    from morenas.run.reading import read_finished

    run = read_finished(Path(config.run))
    check_form(run.method, config)
    from morenas.export.card import write_card
    from morenas.export.functions import empty_folder

    with empty_folder(config.out) as folder:
        exported = write(run, config, folder)
        write_card(folder, exported, config.base or run.base, run)
    return exported


def check_form(method: str, config: ExportConfig) -> None:
    """Refuse a form that what the method trains does not have, and options that would do nothing.

    Raises:
        InputError: Naming the forms there are.
    """
    forms = FORMS_OF.get(method, (Form.merged,))
    if config.to not in forms:
        raise InputError(
            f"run={config.run}: was trained by method={method}, which cannot be written as to={config.to.value}; "
            f"choose to={' or to='.join(form.value for form in forms)}."
        )
    defaults = ExportConfig()
    for option in ("uniform_rank", "max_rank", "truncate"):
        value = getattr(config, option)
        if value != getattr(defaults, option) and not (method == "more" and config.to is Form.lora):
            raise InputError(f"{option}={value}: goes with to=lora of a run of method=more alone; leave it out.")


def write(run: FinishedRun, config: ExportConfig, folder: Path) -> Exported:
    """Fill the folder; everything but the card."""
    from morenas.export.base import load_run_base, put_on
    from morenas.export.forms import Exported, write_lora, write_more, write_trained_merged
    from morenas.models import is_causal

    pretrained = load_run_base(run, config.base)
    if config.to is Form.merged:
        return write_trained_merged(run, pretrained, folder)
    if run.method != "more":
        shutil.copytree(run.adapter, folder, dirs_exist_ok=True)
        return Exported("lora", is_causal(pretrained.model))
    model = put_on(pretrained.model, run.adapter)
    if config.to is Form.more:
        if run.architecture.exists():
            shutil.copyfile(run.architecture, folder / "architecture.json")
        return write_more(model, folder)
    return write_lora(model, folder, config.uniform_rank, config.max_rank, config.truncate)


def report(config: ExportConfig, exported: Exported) -> None:
    """Say what was written where, and how near it is."""
    print(f"{exported.form:<8}{config.out}")
    if exported.ranks:
        ranks = sorted(set(exported.ranks.values()))
        print(f"ranks   {', '.join(map(str, ranks))} on {len(exported.ranks)} modules")
    if exported.errors:
        worst = max(exported.errors, key=exported.errors.__getitem__)
        print(f"error   {len(exported.errors)} modules truncated, at most {exported.errors[worst]:.3g} ({worst})")
