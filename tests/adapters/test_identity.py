"""An adapter starts as the identity, and can be switched off."""

from __future__ import annotations

import pytest
import torch
from tiny_adapters import adapted, logits
from tiny_models import FAMILIES, tiny_classifier


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_unchanged_before_training(family: str) -> None:
    assert torch.equal(logits(adapted(family, init_weights=True)), logits(tiny_classifier(family)))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trained_adapter_changes_logits_until_disabled(family: str) -> None:
    model, plain = adapted(family), logits(tiny_classifier(family))
    trained = logits(model)
    assert not torch.allclose(trained, plain)
    with model.disable_adapter():
        assert torch.equal(logits(model), plain)
    assert torch.equal(logits(model), trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_adapters_learn_and_all_of_them_do(family: str) -> None:
    model = adapted(family)
    from tiny_models import tiny_batch

    model.train()(**tiny_batch()).loss.backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == {name for name, _ in model.named_parameters() if "morenas_" in name}
