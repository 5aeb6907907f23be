"""What a task is, as plain values."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from morenas.base.errors import InputError, suggest
from morenas.base.hub import Need
from morenas.base.kinds import CAUSAL, KINDS
from morenas.tasks.sources.render import RENDER

SOURCES = ("hub", "files", "demo")
ANSWERS = ("choice", "number", "letter", "text")
PROMPTS = ("auto", "chat", "alpaca", "plain")
PART_FIELDS = (
    "text_columns",
    "source",
    "hub_path",
    "hub_name",
    "train_split",
    "test_splits",
    "data_dir",
    "train_file",
    "test_files",
    "max_examples",
    "folder",
    "render",
    "choices",
    "answer",
    "max_new_tokens",
)
"""What the parts of a mix may differ in; everything else holds for the whole."""
RESERVED = {"select": "the select split", "mean": "the mean over the parts"}  # names in the results


@dataclass(frozen=True)
class TaskSpec:
    """A task and where its data comes from.

    Attributes:
        name: As in ``+task=<name>``.
        kind: "classification", "regression", "choice" (one of a few answers) or "generation" (free text).
        text_columns: One or two columns that the model reads; of records, those that make up the prompt.
        label_names: In label order; None to take them from the data.
        metrics: Names of ``morenas.tasks.metrics``; the first is maximized.
        source: "hub", "files" or "demo"; ``data_dir`` given, files are read whatever this says.
        train_split: Split on the hub; None, in a part of a mix, for a part that is only tested.
        test_splits: Name in the results to split on the hub; None for ``test``.
        train_file: File in ``data_dir``; None for ``train.*``.
        test_files: Name in the results to file in ``data_dir``; None for ``validation*.*``, else ``test*.*``.
        search_val: Fraction of the train split that the architecture is trained on.
        select: Fraction of the train split that checkpoints and candidates are chosen on; the rest is search_train.
        max_examples: Size of a seeded, stratified sample of the train split; None for all of it.
        max_length: Tokens an example is cut to; of a record, tokens that prompt and output may have together.
        select_metric: The metric that checkpoints are chosen by on ``select``; None for the first of ``metrics``.
        folder: Folder of the task inside ``data_dir``, looked into where it is there; None for the name's last part.
        mix: Name of a part to the fields (of ``PART_FIELDS``) in which it differs from this task; trained on together,
            tested one by one. A part's ``max_examples`` is a sample of it, the mix's own one of the whole.
        render: Name of ``morenas.tasks.sources.render``, which turns a hub data set's rows into records; None where
            they are records already.
        choices: Of records that name none themselves ("Answer format: a/b"); None for all answers of the train split.
        continuation: What a choice is scored as, ``{answer}`` standing for it.
        answer: How an answer is read out of generated text: "choice", "number", "letter" or "text".
        prompt: "chat" (the tokenizer's template), "alpaca", "plain", or "auto": chat where there is a template, else
            alpaca.
        max_new_tokens: Tokens that are generated at most.
        truncate: Cut a prompt that is too long from the left; without it, such a prompt is refused.
    """

    name: str
    text_columns: tuple[str, ...]
    metrics: tuple[str, ...]
    kind: str = "classification"
    label_column: str = "label"
    label_names: tuple[str, ...] | None = None
    source: str = "files"
    hub_path: str | None = None
    hub_name: str | None = None
    train_split: str | None = "train"
    test_splits: Mapping[str, str] | None = None
    data_dir: str | None = None
    train_file: str | None = None
    test_files: Mapping[str, str] | None = None
    search_val: float = 0.30
    select: float = 0.15
    max_examples: int | None = None
    max_length: int = 128
    select_metric: str | None = None
    folder: str | None = None
    mix: Mapping[str, Mapping[str, Any]] | None = None
    render: str | None = None
    choices: tuple[str, ...] | None = None
    continuation: str = "the correct answer is {answer}"
    answer: str = "choice"
    prompt: str = "auto"
    max_new_tokens: int = 32
    truncate: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.text_columns) <= 2:
            raise InputError(f"task.text_columns={list(self.text_columns)}: name one or two columns of text.")
        for key, known in (("kind", KINDS), ("source", SOURCES), ("answer", ANSWERS), ("prompt", PROMPTS)):
            _one_of(f"task.{key}", getattr(self, key), known)
        if self.mix is None:
            self._check_source()
        if not self.metrics:
            raise InputError("task.metrics is empty: name at least one metric; the first is maximized.")
        self._check_fractions()
        for key, what in (("test_splits", "<split on the hub>"), ("test_files", "<file in task.data_dir>")):
            if getattr(self, key) is not None and not _names_to_names(getattr(self, key)):
                raise InputError(
                    f"task.{key}={getattr(self, key)}: must be a mapping, or null: "
                    f"'task.{key}={{<name in the results>: {what}}}'."
                )
        if self.max_examples is not None and self.max_examples < 1:
            raise InputError(f"task.max_examples={self.max_examples}: at least 1, or null for all examples.")
        for key in ("max_length", "max_new_tokens"):
            if getattr(self, key) < 1:
                raise InputError(f"task.{key}={getattr(self, key)}: at least 1 token.")
        if self.causal:
            self._check_answers()
        if self.mix is not None:
            self._check_mix()

    def _check_source(self) -> None:
        if self.data_dir is None and self.source == "files":
            raise InputError(
                "task.data_dir: must be set, to a folder with train.* and validation.* or test.* files (jsonl, json, "
                "csv, tsv, parquet)."
            )
        if self.data_dir is None and self.source == "hub" and self.hub_path is None:
            raise InputError(
                "task.hub_path: must be set, to the name of a data set on the hub, or task.data_dir to a folder."
            )
        if self.render is not None:
            _one_of("task.render", self.render, RENDER)

    def _check_fractions(self) -> None:
        for key in ("search_val", "select"):
            if not 0 < getattr(self, key) < 1:
                raise InputError(f"task.{key}={getattr(self, key)}: a fraction of the train split, between 0 and 1.")
        if self.search_val + self.select >= 1:
            raise InputError(
                f"task.search_val={self.search_val} and task.select={self.select} leave nothing for search_train; "
                "together they must stay below 1."
            )

    def _check_answers(self) -> None:
        if "{answer}" not in self.continuation:
            raise InputError(
                f"task.continuation={self.continuation!r}: must hold {{answer}}, which every choice is put in place of."
            )
        if self.choices is not None and len({choice.strip() for choice in self.choices} - {""}) < len(self.choices):
            raise InputError(f"task.choices={list(self.choices)}: every choice needs a text of its own.")
        if self.choices is not None and len(self.choices) < 2:
            raise InputError(f"task.choices={list(self.choices)}: name at least two, or null for the answers of train.")

    def _check_mix(self) -> None:
        kinds = {part.answer for part in self.parts().values()}
        if len(kinds) > 1 and (self.select_metric or self.metrics[0]) == "generated_accuracy":
            raise InputError(
                f"task.mix: answers are read in more than one way ({', '.join(sorted(kinds))}), so checkpoints of the "
                "whole cannot be chosen by generated_accuracy; set task.select_metric=log_likelihood."
            )

    @property
    def causal(self) -> bool:
        """Whether a causal language model answers it."""
        return self.kind in CAUSAL

    @property
    def reads_files(self) -> bool:
        """Whether examples come from local files."""
        return self.data_dir is not None or self.source == "files"

    def parts(self) -> dict[str, TaskSpec]:
        """The parts of a mix as tasks of their own; the task itself, under its name, where it is none.

        Raises:
            InputError: If a part has a field that there is not, that holds for the whole, or of a wrong value.
        """
        if self.mix is None:
            return {self.name: self}
        if not self.causal:
            raise InputError(f"task.mix: a {self.kind} task cannot be mixed; task.kind must be choice or generation.")
        if not isinstance(self.mix, Mapping) or not self.mix:
            raise InputError(f"task.mix={self.mix!r}: must be a mapping: 'task.mix={{<name>: {{folder: <folder>}}}}'.")
        return {name: self._part(name, fields or {}) for name, fields in self.mix.items()}

    def _part(self, name: str, fields: Mapping[str, Any]) -> TaskSpec:
        called = f"task.mix.{name}"
        if name in RESERVED:
            raise InputError(f"{called}: the results call {RESERVED[name]} so; give the part another name.")
        if not isinstance(fields, Mapping):
            raise InputError(f"{called}={fields!r}: must be a mapping of the fields in which the part differs.")
        if wrong := [str(field) for field in fields if field not in PART_FIELDS]:
            raise InputError(
                f"{called}.{wrong[0]}: parts of a mix have no such field of their own{suggest(wrong[0], PART_FIELDS)}. "
                f"They may differ in {', '.join(PART_FIELDS)}."
            )
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        try:
            return replace(self, **{"max_examples": None} | values | {"mix": None, "name": name})
        except InputError as error:
            raise of_part(name, error) from error

    def hub_need(self) -> Need | None:
        """What the task needs of the hub, or None; of a mix, the first part's need."""
        if self.mix is not None:
            return next((need for part in self.parts().values() if (need := part.hub_need())), None)
        if self.reads_files or self.source != "hub" or self.hub_path is None:
            return None
        return Need("dataset", self.hub_path, "task.data_dir=<folder of jsonl, csv, tsv or parquet files>")


def _one_of(key: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        near = suggest(str(value), known)
        raise InputError(f"{key}={value!r}: there is no such choice{near}. Choose from {', '.join(known)}.")


def of_part(name: str, error: InputError) -> InputError:
    """The same said of a part of a mix: keys are those by which the part is set."""
    keys = rf"\btask\.(?=(?:{'|'.join(PART_FIELDS)})\b)"
    return InputError(f"task.mix.{name}: {re.sub(keys, f'task.mix.{name}.', str(error))}")


def _names_to_names(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for pair in value.items() for name in pair)
