"""A fine-tune keeps its best weights, says what it does, and refuses what cannot go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import AdaLoraConfig, PeftModel
from tiny_training import SETTINGS, Recorder, tiny_adapted, tiny_data
from torch import nn

from morenas.base.errors import RunError
from morenas.finetune.checkpoints import last_checkpoint
from morenas.finetune.evaluate import ClassifierScorer
from morenas.finetune.loop import FinetuneData, finetune
from morenas.finetune.methods import AdaLora, Full, Head
from morenas.finetune.state import trained_state


def scripted(values: list[float]) -> FinetuneData:
    """Data whose metric follows a script, one value per evaluation."""
    left = list(values)

    def metrics(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        return {"score": left.pop(0)}

    data = tiny_data()
    return replace(data, score=ClassifierScorer(data.tokenizer, metrics), metric="score")


def poisoned(data: FinetuneData) -> FinetuneData:
    """Data with a label that is not a number, so that the loss of its batch is not either."""
    labels = [float(label) for label in data.train["labels"]]
    labels[17] = float("nan")
    train = data.train.remove_columns("labels").add_column("labels", labels)
    return replace(data, train=train)


def test_it_learns_and_the_result_is_that_of_the_model_left(tmp_path: Path) -> None:
    model, data = tiny_adapted(Full(), "gpt2"), tiny_data("gpt2", train=64)
    result = finetune(model, data, replace(SETTINGS, max_steps=40), tmp_path, Recorder())
    assert result.metrics["accuracy"] > 0.7
    assert result.metrics == data.score(model, data.select)
    assert result.metrics["accuracy"] == max(entry["accuracy"] for entry in result.history)
    assert [entry["step"] for entry in result.history] == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("script", "best"),
    [([1, 4, 2, 3], 6), ([1, 2, 3, 4], 12), ([4, 4, 4, 4], 3), ([float("nan"), 1, 2, float("nan")], 9)],
)
def test_the_first_best_checkpoint_is_restored(script: list[float], best: int, tmp_path: Path) -> None:
    model = tiny_adapted()
    result = finetune(model, scripted(script), SETTINGS, tmp_path, Recorder())
    assert (result.best_step, result.steps) == (best, 12)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == sorted(
        {f"checkpoint-{best}", "checkpoint-12"}
    )


def test_restored_weights_are_those_of_the_best_step(tmp_path: Path) -> None:
    model, stopped = tiny_adapted(), tiny_adapted()
    finetune(model, scripted([1, 4, 2, 3]), SETTINGS, tmp_path / "whole", Recorder())
    with pytest.raises(KeyboardInterrupt):
        finetune(stopped, scripted([1, 4, 2, 3]), SETTINGS, tmp_path / "stopped", Recorder(stop_at=6))
    for name, tensor in trained_state(model).items():
        assert torch.equal(tensor, trained_state(stopped)[name])


def test_the_observer_sees_every_step_and_every_evaluation(tmp_path: Path) -> None:
    recorder = Recorder()
    result = finetune(tiny_adapted(), tiny_data(), SETTINGS, tmp_path, recorder, phase="ours")
    assert recorder.started == [("ours", 12, 0)] and recorder.finished == ["ours"]
    assert recorder.steps == list(range(1, 13))
    assert sorted(recorder.logged) == [3, 6, 9, 10, 12]
    assert set(recorder.logged[10]) == {"ours/loss", "ours/learning_rate"}
    assert recorder.logged[12]["ours/select_accuracy"] == result.history[-1]["accuracy"]


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    finetune(tiny_adapted(), tiny_data(), SETTINGS, tmp_path, Recorder())
    assert capfd.readouterr() == ("", "")


def test_parameters_are_counted_apart(tmp_path: Path) -> None:
    model = tiny_adapted(Head())
    result = finetune(model, tiny_data(), replace(SETTINGS, max_steps=1), tmp_path, Recorder(), head=("classifier",))
    assert (result.adapter_params, result.head_params) == (0, 2 * 16 + 2)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_not_finite_names_step_rate_and_batch(accumulation: int, tmp_path: Path) -> None:
    model = tiny_adapted(Full(), num_labels=1)
    settings = replace(SETTINGS, gradient_accumulation=accumulation, max_steps=20, evals=20)
    with pytest.raises(
        RunError,
        match=r"loss is nan at optimizer step \d+ of 20 \(learning rate .*, batch \d+: rows .*\b17\b",
    ):
        finetune(model, poisoned(tiny_data(regression=True)), settings, tmp_path, Recorder())


def test_the_batch_named_holds_the_example(tmp_path: Path) -> None:
    from morenas.base.seeds import derive
    from morenas.tasks.encode import EncodedBatches

    data = poisoned(tiny_data(regression=True))
    with pytest.raises(RunError) as caught:
        finetune(tiny_adapted(Full(), num_labels=1), data, SETTINGS, tmp_path, Recorder())
    batches = EncodedBatches(data.train, data.tokenizer, SETTINGS.batch_size, derive(0, "finetune", "batches"))
    number = int(str(caught.value).partition("batch ")[2].partition(")")[0].partition(":")[0])
    assert batches[number]["labels"].isnan().any()
    assert not any(batches[before]["labels"].isnan().any() for before in range(number))


def test_the_last_good_checkpoint_stays_when_the_loss_diverges(tmp_path: Path) -> None:
    class Diverging(Recorder):
        def step(self, phase: str, step: int, metrics: Any = None) -> None:
            super().step(phase, step, metrics)
            if step == 7:
                torch.nn.init.constant_(dict(model.named_parameters())["classifier.weight"], float("inf"))

    model = tiny_adapted(Full())
    with pytest.raises(RunError, match=r"step 8 of 12 .*kept: .*checkpoint-6"):
        finetune(model, tiny_data(), SETTINGS, tmp_path, Diverging())
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"


def test_weights_that_diverged_in_the_last_step_are_not_kept(tmp_path: Path) -> None:
    model = tiny_adapted(Full())
    data = tiny_data()

    def broken(logits: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
        assert np.isfinite(logits).all()
        return {"accuracy": 0.0}

    def poison(module: nn.Module, inputs: Any, output: Any) -> None:
        if not module.training:
            output.logits.fill_(np.nan)

    model.register_forward_hook(poison)
    with pytest.raises(RunError, match="not finite"):
        finetune(model, replace(data, score=ClassifierScorer(data.tokenizer, broken)), SETTINGS, tmp_path, Recorder())
    assert last_checkpoint(tmp_path) is None


def test_adalora_ends_with_the_ranks_it_was_given(tmp_path: Path) -> None:
    model = tiny_adapted(AdaLora(rank=2, every=2), steps=20)
    finetune(model, scripted([1, 2, 3, 4]), replace(SETTINGS, max_steps=20), tmp_path, Recorder())
    assert isinstance(model, PeftModel)
    config = model.peft_config["default"]
    assert isinstance(config, AdaLoraConfig) and config.rank_pattern is not None
    pattern = config.rank_pattern
    assert sum(sum(kept) for kept in pattern.values()) == pytest.approx(2 * len(pattern), abs=1)
