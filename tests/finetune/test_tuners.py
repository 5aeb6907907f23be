"""PEFT's methods in our harness: trained, counted, saved, loaded and merged, or refused in words."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import peft
import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from tiny_models import shallow, tiny_batch
from tiny_training import SETTINGS, Recorder, tiny_adapted, tiny_data
from torch import Tensor, nn

from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.export.base import load_other
from morenas.finetune.attach import attach, count_parameters
from morenas.finetune.loop import finetune
from morenas.finetune.methods import (
    C3a,
    FourierFt,
    Hra,
    Ia3,
    LoHa,
    LoKr,
    Method,
    Miss,
    Oft,
    Psoft,
    RsLora,
    Targets,
    Tuner,
    UniLora,
    VbLora,
    Vera,
    method_name,
)
from morenas.finetune.state import save_adapter, trained_state
from morenas.models import target_linears


class Case(NamedTuple):
    """A method, and what it trains of a layer of ``n`` inputs and ``m`` outputs, and of all layers together."""

    method: Method
    of_layer: Callable[[int, int], float]
    shared: int = 0


def kronecker(n: int, m: int) -> int:
    """LoKr of rank 2: widths 16 = 4 x 4 and 24 = 4 x 6, a factor of 4 x 4 and one of low rank."""
    return 4 * 4 + 2 * (n // 4 + m // 4)


CASES = [
    Case(RsLora(rank=2), lambda n, m: 2 * (n + m)),
    Case(Vera(rank=4), lambda n, m: m + 4),
    Case(VbLora(rank=2, num_vectors=6, vector_length=8), lambda n, m: 2 * 6 * (n + m) / 8, shared=6 * 8),
    Case(UniLora(rank=2, length=50), lambda n, m: 0, shared=50),
    Case(Ia3(), lambda n, m: n if n > m else m),
    Case(C3a(block_size=8), lambda n, m: n * m / 8),
    Case(FourierFt(n_frequency=20), lambda n, m: 20),
    Case(LoHa(rank=2), lambda n, m: 2 * 2 * (n + m)),
    Case(LoKr(rank=2), kronecker),
    Case(Miss(rank=4), lambda n, m: 4 * m),
    Case(Oft(block_size=8), lambda n, m: n / 8 * (8 * 7 / 2)),
    Case(Hra(rank=2), lambda n, m: 2 * n),
    Case(Psoft(rank=4), lambda n, m: 4 * 3 / 2 + 2 * 4),
]
BY_NAME = {method_name(case.method): case for case in CASES}


def targets() -> Targets:
    return target_linears(shallow(), exclude=("classifier",))


@torch.no_grad()
def seen(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Logits, and the features that the head reads."""
    found = model.eval()(**tiny_batch(), output_hidden_states=True)
    return found.logits, found.hidden_states[-1]


@pytest.mark.parametrize("name", BY_NAME)
def test_it_learns_is_counted_loads_back_and_merges(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc, "collect", lambda *_: 0)  # half the time of so short a training
    case = BY_NAME[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tiny_adapted(case.method)
    expected = sum(case.of_layer(n, m) for n, m in targets().values()) + case.shared
    assert count_parameters(model) == (expected, 2 * 16 + 2)
    before = seen(model)
    finetune(model, tiny_data(train=8, select=8), replace(SETTINGS, max_steps=3, evals=1), tmp_path / "c", Recorder())
    after = seen(model)
    assert all(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
    save_adapter(model, tmp_path / "adapter")
    loaded = load_other(shallow(), tmp_path / "adapter")
    torch.testing.assert_close(seen(loaded), after, atol=0, rtol=0)
    torch.testing.assert_close(seen(loaded.merge_and_unload(safe_merge=True)), after, atol=1e-4, rtol=1e-4)


def test_every_method_of_peft_s_own_is_tried() -> None:
    kinds = {name: registry("method").get(name) for name in registry("method").names()}
    tuners = {name for name, kind in kinds.items() if isinstance(kind, type) and issubclass(kind, Tuner)}
    assert tuners - {"boft"} == BY_NAME.keys() - {"rslora"}


def test_defaults_are_peft_s() -> None:
    for case in CASES:
        if isinstance(case.method, Tuner):
            kind = type(case.method)
            ours, theirs = kind().arguments({}), getattr(peft, kind.CONFIG)()
            ours.pop("feedforward_modules", None)
            assert ours == {name: getattr(theirs, name) for name in ours}, kind


def test_the_scale_of_rslora_is_alpha_over_the_root_of_the_rank() -> None:
    model: Any = tiny_adapted(RsLora(rank=4))
    scales = {module.scaling["default"] for module in model.modules() if isinstance(module, LoraLayer)}
    assert scales == {16 / 4**0.5}


def test_scales_of_ia3_are_of_inputs_where_a_feed_forward_block_narrows() -> None:
    config: Any = Ia3().peft_config(targets(), ("classifier",), 10)
    assert set(config.feedforward_modules) == {"bert.encoder.layer.0.output.dense"}
    keys = {"layers.0.self_attn.k_proj": (16, 8), "layers.0.mlp.down_proj": (24, 16)}  # of grouped queries
    config = Ia3().peft_config(keys, (), 10)
    assert set(config.feedforward_modules) == {"layers.0.mlp.down_proj"}


def test_what_layers_share_is_kept_once() -> None:
    for method, ending in ((Vera(rank=4), "vera_A.default"), (UniLora(length=50), "unilora_theta_d.default")):
        model = tiny_adapted(method)
        assert isinstance(model, PeftModel)
        assert sum(name.endswith(ending) for name in trained_state(model)) == 1
        assert sum(name.endswith(ending) for name in model.state_dict()) > 1


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("rslora", {"rank": 0}, "method.rank=0: must be at least 1"),
        ("vera", {"initial": 0.0}, "method.initial=0.0: must be above 0"),
        ("vblora", {"topk": 7, "num_vectors": 6}, "method.topk=7: must be at most num_vectors=6"),
        ("vblora", {}, r"vector_length=256: does not divide 16 \(.*divides 8\)"),
        ("unilora", {"length": 0}, "method.length=0: must be at least 1"),
        ("ia3", {"rank": 4}, "ia3 has no setting 'rank'; it has none"),
        ("c3a", {"block_size": 12}, r"block_size=12: does not divide 16 \('bert.*widths of all.*divides 8\)"),
        ("fourierft", {}, "n_frequency=1000: 'bert.*' has 256 numbers of its weight alone.*at most 256"),
        ("loha", {"alpha": -1.0}, "method.alpha=-1.0: must be above 0 and finite, or null"),
        ("lokr", {"decompose_factor": 0}, "method.decompose_factor=0: must be at least 1, or -1"),
        ("miss", {}, "rank=64: 'bert.*' has 16 inputs alone; choose a rank of at most 16"),
        ("oft", {"block_size": 1}, "method.block_size=1: must be at least 2"),
        ("oft", {}, "block_size=32: does not divide 16"),
        ("hra", {"rank": 3}, "method.rank=3: must be even and at least 2"),
        ("psoft", {}, "rank=32: 'bert.*' has 16 singular values alone"),
    ],
)
def test_settings_that_do_not_fit_are_refused(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as refused:
        registry("method").build(name, **settings).peft_config(targets(), ("classifier",), 10)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("method", [Hra(), Psoft(rank=4)], ids=method_name)
def test_what_computes_with_frozen_weights_is_refused_where_they_are_quantized(method: Method) -> None:
    model: Any = shallow()
    model.is_quantized = True  # as transformers marks it
    with pytest.raises(InputError, match=r"which are quantized here; use model\.quantization=none"):
        attach(model, method, targets(), ("classifier",), 0, 10)
