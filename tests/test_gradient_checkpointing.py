"""Activations computed anew: the same search in less memory, and an architecture that is judged without dropout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import save_tiny_causal, tiny_causal, tiny_causal_batch
from tiny_runs import SEARCH_WORDS, CommandLine, read, record_words, write_records
from torch import Tensor, nn

from morenas.models import target_linears
from morenas.search.engine import SearchOutcome, SearchSettings, search_architecture
from morenas.space import build_space
from morenas.supernet.prepare import evaluation_mode


class Batches:
    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return tiny_causal_batch(seed=number)


def searched(family: str, anew: bool, calls: list[bool] | None = None, **settings: Any) -> SearchOutcome:
    model = tiny_causal(family)
    if anew:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    layer = next(module for name, module in model.named_modules() if name.endswith("layers.0.mlp.down_proj"))
    if calls is not None:
        layer.register_forward_hook(lambda *_: calls.append(True))
    space = build_space(target_linears(model), [1, 2], [0, 1, 2])
    how = SearchSettings(steps=6, learning_rate=1e-2, **settings)
    return search_architecture(model, Batches(), Batches(), space, budget=500, settings=how)


@pytest.mark.parametrize("hypergradient", ["first_order", "unrolled"])
@pytest.mark.parametrize("start", ["spectral", "level"])
def test_a_search_finds_the_same_architecture_and_factors(start: str, hypergradient: str) -> None:
    plain_calls, calls = list[bool](), list[bool]()
    settings = {"start": start, "warmup": 2, "every": 1, "hypergradient": hypergradient}
    plain = searched("llama", False, plain_calls, **settings)
    found = searched("llama", True, calls, **settings)
    assert len(calls) > len(plain_calls)
    assert found.shapes == plain.shapes
    torch.testing.assert_close(found.logits, plain.logits, rtol=1e-3, atol=1e-4)
    for name, factors in plain.factors.items():
        torch.testing.assert_close(found.factors[name], factors, rtol=1e-3, atol=1e-5)


@torch.no_grad()
def judged(model: nn.Module, seed: int) -> Tensor:
    torch.manual_seed(seed)
    loss: Tensor = model(**tiny_causal_batch()).loss
    return loss


@pytest.mark.parametrize("family", ["gpt2", "opt", "llama", "gpt_neox"])
def test_an_architecture_is_judged_without_dropout(family: str) -> None:
    drops: dict[str, Any] = {
        "resid_pdrop": 0.5,
        "embd_pdrop": 0.5,
        "attn_pdrop": 0.5,
        "dropout": 0.5,
        "attention_dropout": 0.5,
    }
    model = tiny_causal(family, **drops, hidden_dropout=0.5)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    assert judged(model, 0) != judged(model, 1)
    evaluation_mode(model)
    assert judged(model, 0) == judged(model, 1) == judged(model.eval(), 0)


def test_a_whole_run_comes_to_the_same(command: CommandLine, tmp_path: Path) -> None:
    model, data = save_tiny_causal(tmp_path / "llama", "llama"), write_records(tmp_path / "records")
    found = []
    for anew in ("false", "true"):
        words = [*record_words(data, model, tmp_path / anew), *SEARCH_WORDS, "search.steps=4"]
        done = command("search", *words, f"training.gradient_checkpointing={anew}")
        assert done.status == 0, done.err
        architecture, results = (read(tmp_path / anew / f"{name}.json") for name in ("architecture", "results"))
        found.append((architecture["modules"], results["methods"][0]["metrics"]))
    assert found[0] == found[1]
