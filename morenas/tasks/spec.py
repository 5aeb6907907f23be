"""What a task is, as plain values. Free of torch, so that a command line can check them quickly."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from morenas.base.errors import InputError, suggest
from morenas.base.hub import Need
from morenas.base.kinds import CAUSAL, KINDS
from morenas.base.registry import registry
from morenas.base.settings import check_names, door, one_of, texts
from morenas.tasks.metrics import check_metrics

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
"""Fields in which parts of a mix may differ; the others hold for the whole."""
RESERVED = {"select": "the select split", "mean": "the mean over the parts"}  # names in the results


@dataclass(frozen=True)
class TaskSpec:
    """A task and where its data comes from.

    Tasks of kind "choice" and "generation" are for language models. Their examples are records of instruction, input,
    output and answer.

    Attributes:
        name: What the task is called in results; ``+task=<name>`` for those that come with morenas.
        text_columns: One or two columns that the model reads; of records, those that make up the prompt.
        metrics: Scores, higher is better; the first is maximized.
        kind: "classification", "regression", "choice" (one of a few answers) or "generation" (free text).
        label_column: Column of the class, or of the number to predict; records have none.
        label_names: Names of the classes in label order; None to take them from the train split.
        source: Where examples come from. "hub": a data set of the Hugging Face hub. "files": local files. "demo": the
            packaged task. With a ``data_dir``, files are read in place of the hub and the demo.
        hub_path: Data set on the hub, owner/name.
        hub_name: Configuration of the data set; None for its default one.
        train_split: Split on the hub to train on; None, in a part of a mix, for a part that is only tested.
        test_splits: Mapping of a name in the results to a split on the hub; None for ``test``.
        data_dir: Folder of jsonl, json, csv, tsv or parquet files, packed by gzip or not.
        train_file: File in ``data_dir`` to train on, or several by a name with ``*``; None for ``train.*``.
        test_files: Mapping of a name in the results to a file in ``data_dir``, or to several; None for
            ``validation*.*``, else ``dev*.*``, else ``test*.*``.
        search_val: Fraction of the train split that the architecture is trained on.
        select: Fraction of the train split that checkpoints and candidates are chosen on; the rest is search_train.
        max_examples: Examples in a seeded, stratified sample of the train split; None for all of it.
        max_length: Tokens an example is cut to; of a record, tokens that prompt and output may have together.
        select_metric: The metric that checkpoints are chosen by on ``select``; None for the first of ``metrics``.
        folder: Folder of the task inside ``data_dir``, looked into where it exists; None for the name's last part.
        mix: Mapping of a part's name to the fields in which it differs from this task. Parts are trained on together
            and tested one by one. A part's ``max_examples`` is a sample of it, the mix's own one of the whole.
        render: What turns the rows of a hub data set into records; None where they are records already.
        choices: Choices of records that name none ("Answer format: a/b"); None for all answers of the train split.
        continuation: Text that a choice is scored as; ``{answer}`` stands for the choice.
        answer: How an answer is read out of generated text: as one of the choices, as a number, as a letter from A to
            E, or as the whole text.
        prompt: How a prompt is written: by the tokenizer's "chat" template, as "alpaca", as "plain" lines, or "auto":
            chat where there is a template, else alpaca.
        max_new_tokens: Tokens generated at most for an answer.
        truncate: Cut a prompt that is too long from the left; without it, such a prompt is refused.

    Raises:
        InputError: If a value is out of range, a name is unknown, or fields do not go together.
    """

    name: str
    text_columns: tuple[str, ...]
    metrics: tuple[str, ...]
    kind: str = one_of(KINDS, "classification")
    label_column: str = "label"
    label_names: tuple[str, ...] | None = None
    source: Any = door("source", "files")
    hub_path: str | None = None
    hub_name: str | None = None
    train_split: str | None = "train"
    test_splits: Any = None
    data_dir: str | None = None
    train_file: str | None = None
    test_files: Any = None
    search_val: float = 0.30
    select: float = 0.15
    max_examples: int | None = None
    max_length: int = 128
    select_metric: str | None = None
    folder: str | None = None
    mix: Any = None
    render: Any = door("render", None)
    choices: tuple[str, ...] | None = None
    continuation: str = "the correct answer is {answer}"
    answer: str = one_of(ANSWERS, "choice")
    prompt: str = one_of(PROMPTS, "auto")
    max_new_tokens: int = 32
    truncate: bool = False

    def __post_init__(self) -> None:
        # YAML and Hydra give lists; a metric may be given as the function itself.
        values = {key: texts(getattr(self, key), f"task.{key}") for key in ("text_columns", "label_names", "choices")}
        values["metrics"] = tuple(registry("metric").chosen_by(metric) for metric in self.metrics)
        for key, value in values.items():
            object.__setattr__(self, key, value)
        if self.select_metric is not None:
            object.__setattr__(self, "select_metric", registry("metric").chosen_by(self.select_metric))
        check_names(self, "task")
        _check_columns_and_sizes(self)
        if self.mix is None:
            _check_source(self)
        _check_tests(self)
        check_metrics(self.metrics, self.kind, self.select_metric)
        _check_fractions(self)
        if self.causal:
            _check_choices(self)
        if self.mix is not None:
            _check_mix(self)

    @property
    def causal(self) -> bool:
        """Whether a causal language model answers it."""
        return self.kind in CAUSAL

    @property
    def reads_files(self) -> bool:
        """Whether examples come from local files."""
        return self.source == "files" or (self.data_dir is not None and self.source in ("hub", "demo"))

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
            raise InputError(f"{called}: in the results this name stands for {RESERVED[name]}; choose another one.")
        if not isinstance(fields, Mapping):
            raise InputError(f"{called}={fields!r}: must be a mapping of the fields in which the part differs.")
        if wrong := [str(field) for field in fields if field not in PART_FIELDS]:
            raise InputError(
                f"{called}.{wrong[0]}: parts of a mix have no such field of their own{suggest(wrong[0], PART_FIELDS)}. "
                f"They may differ in {', '.join(PART_FIELDS)}."
            )
        try:
            return replace(self, **{"max_examples": None} | dict(fields) | {"mix": None, "name": name})
        except InputError as error:
            raise of_part(name, error) from error

    def hub_need(self) -> Need | None:
        """What the task needs of the hub, or None; of a mix, the first part's need."""
        if self.mix is not None:
            return next((need for part in self.parts().values() if (need := part.hub_need())), None)
        if self.reads_files or self.source != "hub" or self.hub_path is None:
            return None
        return Need("dataset", self.hub_path, "task.data_dir=<folder of jsonl, csv, tsv or parquet files>")


def _check_columns_and_sizes(spec: TaskSpec) -> None:
    if not 1 <= len(spec.text_columns) <= 2:
        raise InputError(f"task.text_columns={list(spec.text_columns)}: name one or two columns of text.")
    if not spec.metrics:
        raise InputError("task.metrics is empty: name at least one metric; the first is maximized.")
    if spec.max_examples is not None and spec.max_examples < 1:
        raise InputError(f"task.max_examples={spec.max_examples}: at least 1, or null for all examples.")
    for key in ("max_length", "max_new_tokens"):
        if getattr(spec, key) < 1:
            raise InputError(f"task.{key}={getattr(spec, key)}: at least 1 token.")


def _check_source(spec: TaskSpec) -> None:
    if spec.data_dir is None and spec.source == "files":
        raise InputError(
            "task.data_dir: must be set, to a folder with train.* and validation.* or test.* files (jsonl, json, "
            "csv, tsv, parquet)."
        )
    if spec.data_dir is None and spec.source == "hub" and spec.hub_path is None:
        raise InputError(
            "task.hub_path: must be set, to the name of a data set on the hub, or task.data_dir to a folder."
        )


def _check_tests(spec: TaskSpec) -> None:
    for key, what in (("test_splits", "<split on the hub>"), ("test_files", "<file in task.data_dir>")):
        if getattr(spec, key) is not None and not _names_to_names(getattr(spec, key)):
            raise InputError(
                f"task.{key}={getattr(spec, key)}: must be a mapping, or null: "
                f"'task.{key}={{<name in the results>: {what}}}'."
            )


def _check_fractions(spec: TaskSpec) -> None:
    for key in ("search_val", "select"):
        if not 0 < getattr(spec, key) < 1:
            raise InputError(f"task.{key}={getattr(spec, key)}: a fraction of the train split, between 0 and 1.")
    if spec.search_val + spec.select >= 1:
        raise InputError(
            f"task.search_val={spec.search_val} and task.select={spec.select} leave nothing for search_train; "
            "together they must stay below 1."
        )


def _check_choices(spec: TaskSpec) -> None:
    if "{answer}" not in spec.continuation:
        raise InputError(
            f"task.continuation={spec.continuation!r}: must hold {{answer}}, in whose place every choice is put."
        )
    if spec.choices is not None and len({choice.strip() for choice in spec.choices} - {""}) < len(spec.choices):
        raise InputError(f"task.choices={list(spec.choices)}: every choice needs a text of its own.")
    if spec.choices is not None and len(spec.choices) < 2:
        raise InputError(f"task.choices={list(spec.choices)}: name at least two, or null for the answers of train.")


def _check_mix(spec: TaskSpec) -> None:
    kinds = {part.answer for part in spec.parts().values()}
    if len(kinds) > 1 and (spec.select_metric or spec.metrics[0]) == "generated_accuracy":
        raise InputError(
            f"task.mix: answers are read in more than one way ({', '.join(sorted(kinds))}), so checkpoints of the "
            "whole cannot be chosen by generated_accuracy; set task.select_metric=log_likelihood."
        )


def of_part(name: str, error: InputError) -> InputError:
    """The same error for a part of a mix: its message names the keys that set the part."""
    keys = rf"\btask\.(?=(?:{'|'.join(PART_FIELDS)})\b)"
    return InputError(f"task.mix.{name}: {re.sub(keys, f'task.mix.{name}.', str(error))}")


def _names_to_names(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for pair in value.items() for name in pair)
