"""Predictions come in the data set's order and do not depend on how they were batched."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import FAMILIES, shallow
from tiny_training import tiny_data

from morenas.base.errors import RunError
from morenas.finetune.evaluate import ClassifierScorer, predict


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_each_example_alone(family: str) -> None:
    model, data = shallow(family), tiny_data(family, train=1, select=11)
    together = predict(model, data.select, data.tokenizer, batch_size=4)
    alone = np.concatenate(
        [predict(model, data.select.select([row]), data.tokenizer) for row in range(len(data.select))]
    )
    assert together.shape == (11, 2)
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_model_keeps_its_mode_and_no_dropout_is_drawn() -> None:
    model, data = shallow("bert").train(), tiny_data()
    state = torch.random.get_rng_state()
    first = predict(model, data.select, data.tokenizer)
    assert model.training
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(first, predict(model, data.select, data.tokenizer))


def test_metrics_get_all_logits_and_labels() -> None:
    data = tiny_data()
    seen = []

    def metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        seen.append((logits.shape, labels.tolist()))
        return {"accuracy": np.float32(0.5)}  # type: ignore[dict-item]

    values = ClassifierScorer(data.tokenizer, metrics)(shallow("bert"), data.select, batch_size=5)
    assert seen == [((24, 2), data.select["labels"])]
    assert values == {"accuracy": 0.5} and type(values["accuracy"]) is float


def test_predictions_that_are_not_finite_are_refused() -> None:
    model, data = shallow("bert"), tiny_data()
    torch.nn.init.constant_(dict(model.named_parameters())["classifier.bias"], float("nan"))
    with pytest.raises(RunError, match="24 of 24 predictions are not finite"):
        data.score(model, data.select)
