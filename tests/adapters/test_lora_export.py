"""A Monarch adapter as a LoRA of PEFT, the same function on exactly the same modules; a LoRA as a Monarch adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from tiny_adapters import KINDS, logits, mixed
from tiny_exports import difference, outputs
from tiny_models import CLASSIFIERS, LANGUAGE_MODELS, Tiny, tiny_classifier
from torch import Tensor, nn

import morenas
from morenas.adapters import more_layers
from morenas.adapters.lora import fit_ranks, lora_config, lora_pairs, project_pairs, read_pairs, truncate_pair
from morenas.base.errors import InputError
from morenas.base.files import read_json
from morenas.export.base import read_tensors
from morenas.models.heads import find_head
from morenas.monarch import Link, to_dense

MODELS = [replace(tiny, layers=1) for tiny in (*CLASSIFIERS, *LANGUAGE_MODELS)]


def lora_modules(model: nn.Module) -> dict[str, Any]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)}
    return {name.removeprefix("base_model.model."): module for name, module in found.items()}


@in_turn(tiny=MODELS, reader=["peft", "servers"])
def test_the_lora_computes_what_the_adapter_computes(tiny: Tiny, reader: str, tmp_path: Path) -> None:
    model = mixed(tiny)
    expected = outputs(model, tiny)
    assert difference(expected, outputs(tiny.model(), tiny)) > 5e-4  # the adapter does something
    done = morenas.to_lora(model, tmp_path / "lora", for_=reader)
    lora = PeftModel.from_pretrained(tiny.model(), tmp_path / "lora")
    assert difference(outputs(lora, tiny), expected) <= 1e-5
    ranks = {name: module.r["default"] for name, module in lora_modules(lora).items()}
    assert ranks == done.ranks
    exact = {name: nblocks * blk_r for name, (nblocks, blk_r, *_) in done.shapes.items()}
    assert ranks == (dict.fromkeys(exact, max(exact.values())) if reader == "servers" else exact)
    assert all(module.scaling["default"] == 1 for module in lora_modules(lora).values())


@pytest.mark.parametrize("tiny", KINDS, ids=str)
def test_on_bfloat16_weights_lora_and_adapter_differ_by_their_rounding(tiny: Tiny, tmp_path: Path) -> None:
    model = mixed(tiny)
    model.save_pretrained(tmp_path / "more", save_embedding_layers=False)
    morenas.to_lora(model, tmp_path / "lora")
    lora, more = (
        outputs(PeftModel.from_pretrained(tiny.model().bfloat16(), tmp_path / form), tiny).float()
        for form in ("lora", "more")
    )
    rounding = max(difference(more, outputs(model, tiny)), 2**-8 * float(more.abs().max()))
    assert difference(lora, more) <= 4 * rounding


@in_turn(bias=["none", "all", "morenas_only", "all"], family=["bert", "roberta", "distilbert", "gpt2"])
def test_trained_heads_and_biases_go_along(family: str, bias: str, tmp_path: Path) -> None:
    heads = {"distilbert": ["pre_classifier", "classifier"], "gpt2": ["score"]}.get(family, ["classifier"])
    model = mixed(family, modules_to_save=heads, bias=bias)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    expected = logits(model)
    morenas.to_lora(model, tmp_path / "lora")
    lora = PeftModel.from_pretrained(tiny_classifier(family), tmp_path / "lora")
    assert difference(logits(lora), expected) <= 1e-5


@pytest.mark.parametrize("tiny", MODELS, ids=str)
def test_the_task_type_is_peft_s_where_that_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    head = [] if tiny.causal else list(find_head(tiny.model()))
    morenas.to_lora(mixed(tiny, modules_to_save=head or None), tmp_path / "lora")
    config = read_json(tmp_path / "lora" / "adapter_config.json", "config")
    assert config["task_type"] == ("CAUSAL_LM" if tiny.causal else "SEQ_CLS")
    assert config["modules_to_save"] == (head or None)


def test_a_head_that_peft_does_not_expect_leaves_the_task_type_out(tmp_path: Path) -> None:
    model = mixed("bert")  # its classifier is not trained
    expected = logits(model)
    morenas.to_lora(model, tmp_path / "lora")
    config = read_json(tmp_path / "lora" / "adapter_config.json", "config")
    assert (
        config["task_type"] is None and config["auto_mapping"]["base_model_class"] == type(tiny_classifier()).__name__
    )
    lora = PeftModel.from_pretrained(tiny_classifier(), tmp_path / "lora")
    assert difference(logits(lora), expected) <= 1e-5


class Nested(nn.Module):
    """Modules whose names are endings of others' names, and look like regular expressions."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(6, 6)
        self.inner = nn.ModuleDict({"dense": nn.Linear(6, 6), "inner": nn.ModuleDict({"dense": nn.Linear(6, 6)})})
        self.layers = nn.ModuleList([nn.Linear(6, 6) for _ in range(24)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner["inner"]["dense"](self.inner["dense"](self.dense(x)))  # type: ignore[index]
        for layer in self.layers:
            x = layer(x).tanh()
        return x


@pytest.mark.parametrize(
    "ranks",
    [
        {"dense": 3},
        {"inner.dense": 2, "dense": 3},
        {"dense": 3, "inner.dense": 2, "inner.inner.dense": 1},
        {"inner.inner.dense": 1, "dense": 3, "layers.1": 2, "layers.11": 4},
        {f"layers.{index}": 1 + index % 3 for index in range(23)} | {"inner.dense": 5},
    ],
    ids=lambda ranks: f"{len(ranks)} modules",
)
def test_exactly_the_named_modules_get_adapters_of_their_ranks(ranks: dict[str, int]) -> None:
    model = Nested()
    config = lora_config(ranks, [name for name, _ in model.named_modules()])
    lora: Any = get_peft_model(model, config)
    assert {name: module.r["default"] for name, module in lora_modules(lora).items()} == ranks
    assert {module.scaling["default"] for module in lora_modules(lora).values()} == {1.0}


def test_servers_get_a_list_of_targets_where_endings_are_not_ambiguous() -> None:
    names = [name for name, _ in Nested().named_modules()]
    assert lora_config({"layers.3": 2}, names).target_modules == ["layers.3"]
    assert lora_config({"dense": 2}, names).target_modules == "dense"


def test_a_module_hidden_by_a_trained_one_is_refused() -> None:
    with pytest.raises(InputError, match=r"leave out inner\.dense.*to=merged"):
        lora_config({"inner.dense": 2, "layers.0": 1}, ["inner.dense", "layers.0"], modules_to_save=["inner"])


def dense_of(model: Any) -> dict[str, Tensor]:
    return {
        name: to_dense(
            layer.morenas_first["default"].double(),
            layer.morenas_second["default"].double(),
            layer.link["default"],
            layer.in_features,
            layer.out_features,
        )
        for name, layer in more_layers(model).items()
    }


def test_pairs_are_the_dense_change() -> None:
    model = mixed("llama", link="monarch")
    pairs, dense = lora_pairs(model), dense_of(model)
    assert pairs.keys() == dense.keys()
    for name, (a, b) in pairs.items():
        torch.testing.assert_close(b.double() @ a.double(), dense[name], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("rank", [1, 3, 6, 12])
@pytest.mark.parametrize(("m", "n"), [(9, 14), (14, 9), (4, 20)])
def test_a_truncation_is_the_best_one_and_its_error_is_true(rank: int, m: int, n: int) -> None:
    torch.manual_seed(0)
    a, b = torch.randn(12, n, dtype=torch.float64), torch.randn(m, 12, dtype=torch.float64)
    values = torch.linalg.svdvals(b @ a)
    best = float(values[rank:].norm() / values.norm())
    new_a, new_b, error = truncate_pair(a, b, rank)
    assert len(new_a) == new_b.shape[1] == min(rank, m, n)
    assert error == pytest.approx(best, abs=1e-12)
    assert float((b @ a - new_b @ new_a).norm() / (b @ a).norm()) == pytest.approx(best, abs=1e-12)


def test_a_truncated_zero_has_no_error() -> None:
    assert truncate_pair(torch.randn(4, 5), torch.zeros(6, 4), 2)[2] == 0


def test_padding_to_one_rank_changes_no_product() -> None:
    pairs = lora_pairs(mixed())
    padded, errors = fit_ranks(pairs, one_rank=True)
    assert not errors and {len(a) for a, _ in padded.values()} == {max(len(a) for a, _ in pairs.values())}
    assert all(torch.equal(b @ a, pairs[name][1] @ pairs[name][0]) for name, (a, b) in padded.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"max_rank": 4}, r"above max_rank=4: .*\(9\).*max_rank=9 .*truncate=true"),
        ({"max_rank": 0}, "max_rank=0 must be at least 1"),
        ({"truncate": True}, "needs max_rank"),
    ],
)
def test_ranks_that_a_server_does_not_take_are_refused(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    model = mixed()
    with pytest.raises(InputError, match=said):
        morenas.to_lora(model, tmp_path / "lora", **options)
    assert not list(tmp_path.iterdir())


def test_a_truncated_export_keeps_the_limit_and_tells_its_errors(tmp_path: Path) -> None:
    model = mixed()
    done = morenas.to_lora(model, tmp_path / "lora", max_rank=4, truncate=True)
    lora = PeftModel.from_pretrained(tiny_classifier(), tmp_path / "lora")
    for name, layer in lora_modules(lora).items():
        assert layer.r["default"] == 4
        dense, delta = dense_of(model)[name].detach(), layer.get_delta_weight("default").detach().double()
        assert float((dense - delta).norm() / dense.norm()) == pytest.approx(done.errors.get(name, 0), abs=1e-6)
    assert 0 < max(done.errors.values()) < 1 and len(done.errors) < len(done.shapes)


@pytest.mark.parametrize("link", list(Link))
def test_a_monarch_adapter_written_as_lora_projects_back_onto_itself(link: Link) -> None:
    model = mixed("llama", link=link.value)
    shapes = {name: (layer.nblocks["default"], layer.blk_r["default"]) for name, layer in more_layers(model).items()}
    factors, errors = project_pairs(lora_pairs(model), shapes, link)
    sizes = {name: (layer.in_features, layer.out_features) for name, layer in more_layers(model).items()}
    for name, dense in dense_of(model).items():
        again = to_dense(factors[name][0].double(), factors[name][1].double(), link, *sizes[name])
        torch.testing.assert_close(again, dense, atol=1e-6, rtol=1e-5)
    assert max(errors.values()) < 1e-6


def test_the_error_of_a_projection_is_what_is_lost() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(4, 12, dtype=torch.float64), torch.randn(8, 4, dtype=torch.float64)
    factors, errors = project_pairs({"x": (a, b)}, {"x": (4, 2)}, Link.CYCLIC)
    again = to_dense(*factors["x"], Link.CYCLIC, 12, 8)
    assert errors["x"] == pytest.approx(float((b @ a - again).norm() / (b @ a).norm())) and 0 < errors["x"] < 1


def test_a_lora_that_changes_more_than_the_architecture_is_refused_by_module() -> None:
    with pytest.raises(InputError, match="gives no adapter to y"):
        project_pairs({"y": (torch.ones(1, 4), torch.ones(4, 1))}, {"x": (2, 1)}, Link.CYCLIC)


@pytest.mark.parametrize("rslora", [False, True])
def test_scales_of_a_lora_are_folded_in(rslora: bool, tmp_path: Path) -> None:
    patterns: dict[str, Any] = {"rank_pattern": {"query": 2}, "alpha_pattern": {"layer.1.*query": 7}}
    config = LoraConfig(
        r=4, lora_alpha=6, target_modules=["query", "value"], use_rslora=rslora, init_lora_weights=False, **patterns
    )
    lora: Any = get_peft_model(tiny_classifier(), config)
    lora.save_pretrained(str(tmp_path), save_embedding_layers=False)
    pairs, rest = read_pairs(
        LoraConfig.from_pretrained(str(tmp_path)), read_tensors(tmp_path / "adapter_model.safetensors"), "it"
    )
    assert not rest and len(pairs) == 4
    for name, layer in lora_modules(lora).items():
        a, b = pairs[name]
        torch.testing.assert_close(b @ a, layer.get_delta_weight("default"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("base_model.model.x.lora_B.weight"), r"lacks base_model\.model\.x\.lora_B\.weight"),
        (lambda state: state.update({"base_model.model.x.lora_magnitude_vector": torch.ones(4)}), "lora_magnitude"),
    ],
)
def test_a_lora_with_tensors_missing_or_extra_is_refused_by_name(change: Any, said: str) -> None:
    state = {f"base_model.model.x.lora_{side}.weight": torch.ones(2, 2) for side in "AB"}
    change(state)
    with pytest.raises(InputError, match=said):
        read_pairs(LoraConfig(r=2), state, "it")
