"""The frozen weights of a run are in memory once, whatever a run does with them."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny, tiny_causal
from tiny_runs import SEARCH_WORDS, CommandLine, record_words
from torch import nn

from morenas.finetune.attach import attach
from morenas.finetune.methods import Lora, Method, More
from morenas.models import Pretrained, target_linears
from morenas.run import base_model
from morenas.run.base_model import BaseModel
from morenas.run.config import Model
from morenas.search.config import SearchRunConfig
from morenas.space import Architecture, ModuleShape, build_space
from morenas.supernet.prepare import prepared
from morenas.tasks.load import Task, load_task
from morenas.tasks.spec import TaskSpec


@pytest.fixture(scope="module")
def task(records: Path) -> Task:
    spec = TaskSpec("colors", ("instruction",), ("accuracy",), kind="choice", data_dir=str(records))
    return load_task(spec, seed=0)


def base(llama: Path, task: Task) -> BaseModel:
    return BaseModel(SearchRunConfig(model=Model(name_or_path=str(llama))), task, "cpu")


def places(model: nn.Module) -> dict[str, int]:
    """Where the storage of every parameter lies, under the names of the model alone."""
    parts = ("base_model.model.", ".base_layer", ".base")
    found = {}
    for name, parameter in model.named_parameters():
        for part in parts:
            name = name.replace(part, "")
        found[name] = parameter.data_ptr()
    return found


def test_what_is_asked_for_again_is_the_same_model_until_it_is_taken(llama: Path, task: Task) -> None:
    models = base(llama, task)
    first = models.get().model
    assert models.get().model is first and models.take().model is first
    again = models.get().model
    assert again is not first
    own, other = first.state_dict(), again.state_dict()
    assert own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


@pytest.mark.parametrize("trained", [False, True])
def test_a_new_head_of_a_regression_begins_at_the_mean_label_and_a_trained_one_where_it_stands(
    trained: bool, tmp_path: Path
) -> None:
    texts = [{"text": f"word {number}", "label": 40.0 + number} for number in range(60)]
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, texts)).replace("word", split))
    spec = TaskSpec("heights", ("text",), ("pearson",), kind="regression", data_dir=str(tmp_path))
    task = load_task(spec, seed=0)
    folder = save_tiny("roberta", tmp_path / "model", num_labels=1 if trained else None)
    model: Any = BaseModel(SearchRunConfig(model=Model(name_or_path=str(folder))), task, "cpu").get().model
    bias = model.classifier.out_proj.bias.item()
    mean = sum(task.search_train["label"]) / len(task.search_train["label"])
    assert mean > 50 and bias == (pytest.approx(mean) if not trained else 0)
    assert not model.classifier.dense.bias.any()  # of another layer


def test_a_model_that_was_taken_and_left_in_a_cycle_is_gone_before_the_next_is_loaded(
    llama: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Trainer:
        """Holds the model, and itself."""

        def __init__(self, model: nn.Module) -> None:
            self.model, self.itself = model, self

    models, load = base(llama, task), base_model.load_pretrained
    trainer = Trainer(models.take().model)
    left = weakref.ref(trainer.model)
    del trainer

    def told(*given: Any) -> Pretrained:
        assert left() is None
        return load(*given)

    monkeypatch.setattr(base_model, "load_pretrained", told)
    gc.disable()
    try:
        models.get()
    finally:
        gc.enable()


def test_a_run_has_one_model_in_memory_at_a_time(
    command: CommandLine, llama: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = base_model.load_pretrained, list[weakref.ref[nn.Module]]()

    def told(*given: Any) -> Pretrained:
        assert [one for one in loaded if one() is not None] == []
        pretrained = load(*given)
        loaded.append(weakref.ref(pretrained.model))
        return pretrained

    monkeypatch.setattr(base_model, "load_pretrained", told)
    words = [*record_words(records, llama, tmp_path / "run"), *SEARCH_WORDS, "search.steps=4", "compare=lora"]
    done = command("search", *words)
    assert done.status == 0, done.err
    assert len(loaded) == 2  # one is searched and fine-tuned, one compared


@pytest.mark.parametrize("sharing", ["full", "per_nblocks"])
def test_a_supernet_stands_on_the_weights_themselves(sharing: str) -> None:
    model = tiny_causal("llama")
    before = places(model)
    space = build_space(target_linears(model), [1, 2], [0, 1])
    with prepared(model, space, sharing, 0) as (supernet, _):
        assert before.items() <= places(model).items()
        assert {layer.weight.data_ptr() for layer in supernet.layers.values()} <= set(before.values())
    assert places(model) == before


@pytest.mark.parametrize("name", ["more", "lora"])
def test_adapters_stand_on_the_weights_themselves(name: str) -> None:
    model = tiny_causal("llama")
    before, targets = places(model), target_linears(model)
    modules = {module: ModuleShape(2, 1, *shape) for module, shape in targets.items()}
    architecture = Architecture("tiny", "cyclic", modules, 0.1)
    method: Method = More().with_architecture(architecture) if name == "more" else Lora(rank=2)
    adapted = attach(model, method, targets, (), seed=0, total_steps=10)
    assert before.items() <= places(adapted).items()
