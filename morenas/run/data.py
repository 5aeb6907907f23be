"""Token ids of every split of a run's task."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import datasets
from transformers import PreTrainedTokenizerBase

from morenas.tasks.encode import encode
from morenas.tasks.load import Task
from morenas.tasks.metrics import needs_generation
from morenas.tasks.prompts import encode_records
from morenas.tasks.read import Checked, check_marks, placed
from morenas.tasks.spec import TaskSpec
from morenas.tasks.spelling import marks_of


class EncodedTask:
    """A task as the model reads it; each split is made once, when it is first needed.

    Attributes:
        task: The task, its splits as text.
        tokenizer: That of the model.
    """

    def __init__(self, task: Task, tokenizer: PreTrainedTokenizerBase) -> None:
        self.task, self.tokenizer = task, tokenizer
        self._tests: dict[str, datasets.Dataset] = {}

    @cached_property
    def search_train(self) -> datasets.Dataset:
        """What adapter weights are trained on during a search."""
        return self._encode(self.task.search_train, self.task.spec)

    @cached_property
    def search_val(self) -> datasets.Dataset:
        """What the architecture is trained on."""
        return self._encode(self.task.search_val, self.task.spec)

    @cached_property
    def final_train(self) -> datasets.Dataset:
        """What a final fine-tune trains on."""
        return self._encode(self.task.final_train(), self.task.spec)

    @cached_property
    def select(self) -> datasets.Dataset:
        """What checkpoints and candidates are chosen on.

        What is scored needs room after its prompts: for every choice, and where answers are generated for those.
        """
        generates = needs_generation(self.task.select_metric)
        spec = self.task.spec if generates or not self.task.spec.causal else replace(self.task.spec, max_new_tokens=1)
        return self._encode(self.task.select, spec, train=False)

    def test(self, name: str, test: datasets.Dataset) -> datasets.Dataset:
        """A test set, made once whatever the number of methods."""
        if name not in self._tests:
            self._tests[name] = self._encode(test, self.task.test_specs[name], train=False)
        return self._tests[name]

    def check_texts(self, checked: Checked) -> None:
        """Encode every split now, so that a text that cannot be used is refused before the search and not hours later.

        Test sets of classifiers are cut to length, and left for later: only what their texts spell is looked at.

        Args:
            checked: The task's examples.
        Raises:
            InputError: Naming the record.
        """
        _ = self.search_train, self.search_val, self.final_train, self.select
        if self.task.spec.causal:
            for name, test in self.task.tests.items():
                self.test(name, test)
            return
        check_marks(marks_of(self.tokenizer), self.task.spec, checked, train=False)

    def _encode(self, dataset: datasets.Dataset, spec: TaskSpec, train: bool = True) -> datasets.Dataset:
        with placed(self.task.spec):
            if spec.causal:
                return encode_records(dataset, self.tokenizer, spec, train)
            return encode(dataset, self.tokenizer, spec.text_columns, spec.max_length)
