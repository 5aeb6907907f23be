"""The Trainer does what a plain loop would, for every family, with and without accumulation; losses are all checked."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from grids import in_turn
from tiny_models import CAUSAL, FAMILIES, tiny_causal, tiny_causal_batch, tiny_tokenizer
from tiny_training import SETTINGS, Recorder, tiny_adapted, tiny_architecture, tiny_data
from torch import Tensor, nn

from morenas.base.errors import RunError
from morenas.base.seeds import derive
from morenas.finetune.attach import attach
from morenas.finetune.loop import FinetuneData, finetune
from morenas.finetune.methods import Full, Lora, More
from morenas.finetune.settings import TrainingSettings
from morenas.finetune.state import trained_state
from morenas.finetune.trainer import LossLog, MicroBatch, TrainingDiverged
from morenas.models import target_linears
from morenas.tasks.encode import EncodedBatches


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(**{**SETTINGS.__dict__, "evals": 1, **changes})


def trained(model: nn.Module, directory: Path, data: FinetuneData | None = None, **changes: Any) -> dict[str, Tensor]:
    finetune(model, data or tiny_data(), settings(**changes), directory, Recorder())
    return trained_state(model)


def by_hand(model: nn.Module, data: FinetuneData, **changes: Any) -> dict[str, Tensor]:
    """AdamW under a warmed-up cosine, clipped, with the dropout of each micro-batch seeded by its number."""
    how = settings(**changes)
    batches = EncodedBatches(data.train, data.tokenizer, how.batch_size, derive(how.seed, "finetune", "batches"))
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=how.learning_rate, weight_decay=how.weight_decay)
    total = how.total_steps(len(data.train))
    warmup = math.ceil(how.warmup_ratio * total)
    model.train()
    for step in range(total):
        rising, falling = step / max(1, warmup), (step - warmup) / max(1, total - warmup)
        rate = rising if step < warmup else 0.5 * (1 + math.cos(math.pi * falling))
        optimizer.param_groups[0]["lr"] = how.learning_rate * rate
        micro = range(step * how.gradient_accumulation, (step + 1) * how.gradient_accumulation)
        examples = sum(len(batches[number]["labels"]) for number in micro)
        for number in micro:
            torch.manual_seed(derive(how.seed, "dropout", number))
            batch = batches[number]
            (model(**batch).loss * len(batch["labels"]) / examples).backward()
        nn.utils.clip_grad_norm_(weights, how.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    return trained_state(model)


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    for name, tensor in one.items():
        assert torch.allclose(tensor, other[name], atol=1e-6, rtol=1e-4), name


@in_turn(family=FAMILIES, searched=[True, False])
def test_the_weights_are_those_of_a_plain_loop(family: str, searched: bool, tmp_path: Path) -> None:
    # without decay: the Trainer spares biases and norms, which a plain optimizer does not
    changes = {"weight_decay": 0.0, "max_steps": 6}
    data = tiny_data(family)
    method = More().with_architecture(tiny_architecture(family)) if searched else Lora(rank=2)
    ours = trained(tiny_adapted(method, family), tmp_path, data, **changes)
    assert_equal(ours, by_hand(tiny_adapted(method, family), data, **changes))
    start = trained_state(tiny_adapted(method, family))
    seconds = [name for name in ours if "morenas_second" in name or "lora_B" in name]
    assert seconds and all(not torch.equal(ours[name], start[name]) for name in seconds)


@pytest.mark.parametrize("train", [40, 43])
def test_accumulated_micro_batches_are_the_mean_over_examples(train: int, tmp_path: Path) -> None:
    changes = {"weight_decay": 0.0, "gradient_accumulation": 3, "max_steps": 4}
    data = tiny_data(train=train)
    assert_equal(trained(tiny_adapted(), tmp_path, data, **changes), by_hand(tiny_adapted(), data, **changes))


def test_decay_reaches_weights_but_neither_biases_nor_norms(tmp_path: Path) -> None:
    # one step: the gradients are the same, so only the decay can differ
    plain, decayed = (
        trained(tiny_adapted(Full()), tmp_path / str(decay), weight_decay=decay, max_steps=1, warmup_ratio=0.0)
        for decay in (0.0, 0.5)
    )
    moved = {name for name in plain if not torch.equal(plain[name], decayed[name])}
    assert moved == {name for name in plain if name.endswith("weight") and "LayerNorm" not in name}


def test_clipping_is_on_unless_zero(tmp_path: Path) -> None:
    tight, loose = (
        trained(tiny_adapted(), tmp_path / str(norm), max_grad_norm=norm, max_steps=2) for norm in (1e-9, 0.0)
    )
    start = trained_state(tiny_adapted())
    moved = [sum(float((state[name] - start[name]).detach().abs().sum()) for name in start) for state in (tight, loose)]
    assert moved[0] < 0.5 * moved[1]


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_regression_fits_the_squared_error(family: str, tmp_path: Path) -> None:
    model = tiny_adapted(Full(), family, num_labels=1)
    data = tiny_data(family, regression=True)
    result = finetune(model, data, settings(max_steps=60, evals=4, learning_rate=1e-2), tmp_path, Recorder())
    losses = [entry["loss"] for entry in result.history]
    assert losses[-1] < 0.7 * losses[0]


def test_dropout_is_drawn_from_the_seed_and_the_number(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = copy.deepcopy(trained(tiny_adapted(), tmp_path / "1"))
    torch.manual_seed(2)
    second = trained(tiny_adapted(), tmp_path / "2")
    other = trained(tiny_adapted(), tmp_path / "3", seed=1)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_bfloat16_trains_in_autocast_and_leaves_float32_weights(tmp_path: Path) -> None:
    model = tiny_adapted()
    state = trained(model, tmp_path, bf16=True, max_steps=3)
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    data = tiny_data()
    batch = {key: value for key, value in EncodedBatches(data.train, data.tokenizer, 4, 0)[0].items()}
    assert model(**batch).logits.dtype == torch.float32
    assert_equal(state, trained_state(model))


def language_data(family: str) -> FinetuneData:
    """Records of different lengths; prompts of one or two tokens."""
    batches = [tiny_causal_batch(size=6, seed=seed) for seed in range(4)]
    rows: dict[str, list[Any]] = {"input_ids": [], "attention_mask": [], "labels": []}
    for batch in batches:
        for mask, *values in zip(batch["attention_mask"], batch["input_ids"], batch["labels"], strict=True):
            length = int(mask.sum())
            for name, value in zip(rows, (values[0], mask, values[1]), strict=True):
                rows[name].append(value[:length].tolist())
    tokenizer = tiny_tokenizer(family)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    data = Dataset.from_dict(rows)
    return FinetuneData(data, data, tokenizer, lambda *_: {"accuracy": 0.0}, "accuracy")


def language_adapted(family: str) -> nn.Module:
    drops = ("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout")
    without: dict[str, Any] = dict.fromkeys(drops, 0.0)
    model = tiny_causal(family, use_cache=False, **without)
    return attach(model, Lora(rank=2), target_linears(model), (), seed=0, total_steps=10)


def token_losses(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The loss of every token that is learnt, one by one."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    learnt = [(row, at) for row, labels in enumerate(batch["labels"].tolist()) for at in range(1, len(labels))]
    labels = batch["labels"]
    return torch.stack([-logits[row, at - 1, labels[row, at]] for row, at in learnt if labels[row, at] != -100])


@in_turn(family=CAUSAL, accumulation=[1, 2])
def test_a_language_model_learns_the_mean_over_the_tokens_of_its_answers(
    family: str, accumulation: int, tmp_path: Path
) -> None:
    # gradients themselves are compared: AdamW's first step looks at their signs alone
    data, model = language_data(family), language_adapted(family)
    batches = EncodedBatches(data.train, data.tokenizer, 6, derive(0, "finetune", "batches"))
    micro = [batches[number] for number in range(accumulation)]
    counts = [int(batch["labels"].ne(-100).sum()) for batch in micro]
    assert accumulation == 1 or counts[0] != counts[1]
    loss = torch.cat([token_losses(model, batch) for batch in micro]).mean()
    expected = torch.autograd.grad(loss, [parameter for parameter in model.parameters() if parameter.requires_grad])
    found: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        step = torch.optim.AdamW.step

        def told(self: torch.optim.AdamW, *given: Any, **named: Any) -> Any:
            found.extend(p.grad.clone() for p in model.parameters() if p.requires_grad and p.grad is not None)
            return step(self, *given, **named)

        patch.setattr(torch.optim.AdamW, "step", told)
        how = settings(max_steps=1, batch_size=6, gradient_accumulation=accumulation, max_grad_norm=0.0)
        result = finetune(model, data, how, tmp_path, Recorder())
    assert len(found) == len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)
    assert result.history[0]["loss"] == pytest.approx(loss.item(), rel=1e-4)


def at(number: int) -> MicroBatch:
    return MicroBatch(step=number // 2 + 1, number=number, learning_rate=0.5)


@pytest.mark.parametrize("eager", [True, False])
def test_draining_gives_the_sum_since_the_last_time(eager: bool) -> None:
    losses = LossLog(eager)
    for number in range(3):
        losses.add(at(number), torch.tensor(float(number)))
    assert losses.drain() == 3.0
    losses.add(at(3), torch.tensor(5.0))
    assert losses.drain() == 5.0
    assert losses.drain() == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_an_eager_log_stops_at_once(bad: float) -> None:
    with pytest.raises(TrainingDiverged):
        LossLog(eager=True).add(at(0), torch.tensor(bad))


def test_a_lazy_log_still_finds_the_first_one() -> None:
    losses = LossLog(eager=False)
    for number, value in enumerate([1.0, 2.0, float("inf"), float("nan"), 3.0]):
        losses.add(at(number), torch.tensor(value))
    with pytest.raises(TrainingDiverged) as caught:
        losses.drain()
    assert caught.value.at == at(2)
    assert caught.value.value == float("inf")


def test_adapters_that_get_no_gradient_end_the_training(tmp_path: Path) -> None:
    """As in reversible layers, which compute their gradients themselves: the head alone would learn."""
    model: Any = tiny_adapted(Lora(rank=2), "bert")
    encoder = model.get_base_model().bert.encoder
    encoder.forward = torch.no_grad()(encoder.forward)
    with pytest.raises(RunError, match="No adapter of BertForSequenceClassification gets a gradient"):
        trained(model, tmp_path)
