"""Checkpoints of the paper's own implementation: read number for number, and written back equal."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import pairs
from peft import PeftModel
from safetensors.torch import save_file
from tiny_models import save_tiny
from torch import Tensor
from transformers import AutoModelForSequenceClassification

import morenas
from morenas.adapters import more_layers
from morenas.adapters.published import from_published, to_published
from morenas.base.errors import InputError
from morenas.monarch import Link, to_dense

SIZES = [(16, 16), (16, 24), (24, 16), (16, 48), (48, 16), (15, 22), (22, 15), (17, 64)]


def published(in_features: int, out_features: int, nblocks: int, blk_r: int, seed: int = 0) -> dict[str, Tensor]:
    """Factors of one layer "x" as the published layer makes them, values that it never trains at zero."""
    generator = torch.Generator().manual_seed(seed)
    width = math.ceil(in_features / nblocks)
    nblocks = math.ceil(in_features / width)  # blocks of padding alone are thrown away
    second = torch.zeros(nblocks, width * math.ceil(out_features / in_features), blk_r, dtype=torch.float64)
    for feature in range(out_features):
        second[feature % nblocks, feature // nblocks] = torch.randn(blk_r, generator=generator, dtype=torch.float64)
    first = torch.randn(nblocks, blk_r, width, generator=generator, dtype=torch.float64)
    return {"x.blkdiag1": first, "x.blkdiag2": second}


def published_product(x: Tensor, first: Tensor, second: Tensor, out_features: int) -> Tensor:
    """What the published layer adds, feature by feature, from its definition."""
    nblocks, blk_r, width = first.shape
    x = torch.nn.functional.pad(x, (0, nblocks * width - x.shape[1]))
    values = [x[:, k * width : (k + 1) * width] @ first[k, j] for k in range(nblocks) for j in range(blk_r)]
    outputs = [
        sum(second[o % nblocks, o // nblocks, a] * values[a * nblocks + o % nblocks] for a in range(blk_r))
        for o in range(out_features)
    ]
    return torch.stack([torch.as_tensor(output) for output in outputs], dim=1)


@pairs(size=SIZES, nblocks=[1, 2, 3, 4, 6, 8], blk_r=[1, 2, 3, 4])
def test_it_computes_the_same_and_is_written_back_equal(size: tuple[int, int], nblocks: int, blk_r: int) -> None:
    tensors, linears = published(*size, nblocks, blk_r), {"x": size}
    factors, rest = from_published(tensors, linears)
    assert not rest
    x = torch.randn(5, size[0], dtype=torch.float64)
    ours = x @ to_dense(*factors["x"], Link.MONARCH, *size).T
    theirs = published_product(x, tensors["x.blkdiag1"], tensors["x.blkdiag2"], size[1])
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    again = to_published(factors, linears)
    assert again.keys() == tensors.keys() and all(torch.equal(again[name], tensors[name]) for name in tensors)


def test_values_that_are_never_read_do_not_matter() -> None:
    tensors = published(24, 16, 4, 2)
    dead = tensors["x.blkdiag2"].clone()
    dead[:, 4:] = 7.0
    one, other = (
        from_published(given, {"x": (24, 16)})[0]["x"] for given in (tensors, {**tensors, "x.blkdiag2": dead})
    )
    assert torch.equal(one[1], other[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("x.blkdiag2"), r"lacks x\.blkdiag2"),
        (lambda state: state.pop("x.blkdiag1"), r"lacks x\.blkdiag1"),
        (lambda state: state.update({"x.scaler.scaler": torch.ones(1)}), r"has x\.scaler\.scaler"),
        (lambda state: state.update({"x.dense": torch.ones(16, 16)}), r"has x\.dense"),
        (lambda state: state.update({"y.blkdiag1": 0, "y.blkdiag2": 0}), r"has y\.blkdiag1"),
        (lambda state: state.update({"x.blkdiag1": torch.ones(2, 3, 8)}), "do not chain"),
        (lambda state: state.update({"x.blkdiag1": torch.ones(2, 2, 9)}), "2 blocks of 9 inputs.*do not fit 16 -> 16"),
        (lambda state: state.clear(), "holds no blkdiag1"),
    ],
)
def test_what_is_missing_extra_or_of_another_shape_is_named(
    change: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    tensors = published(16, 16, 2, 2)
    change(tensors)
    with pytest.raises(InputError, match=said):
        from_published(tensors, {"x": (16, 16)})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny("roberta", tmp_path / "base")


def checkpoint(base: Path, num_labels: int = 3) -> dict[str, Tensor]:
    """Queries and values adapted, the classifier trained, as the published trainer saves them."""
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=num_labels)
    torch.manual_seed(0)
    tensors = {name: torch.randn_like(value) for name, value in model.named_parameters() if "classifier" in name}
    for name, _ in model.named_modules():
        if name.endswith(("query", "value")):
            layer = published(16, 16, 4, 3, seed=len(tensors))
            tensors |= {f"{name}.{part[2:]}": tensor.float() for part, tensor in layer.items()}
    return tensors


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_a_whole_checkpoint_becomes_an_adapter_with_its_head(base: Path, tmp_path: Path, name: str) -> None:
    tensors = checkpoint(base)
    torch.save(tensors, tmp_path / name) if name.endswith(".bin") else save_file(tensors, tmp_path / name)
    done = morenas.from_published(tmp_path / name, str(base), tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    adapted: Any = PeftModel.from_pretrained(model, tmp_path / "out")
    layers = more_layers(adapted)
    assert layers.keys() == done.shapes.keys() and len(layers) == 4
    for module, layer in layers.items():
        assert torch.equal(layer.morenas_first["default"], tensors[f"{module}.blkdiag1"])
        assert torch.equal(layer.morenas_second["default"], tensors[f"{module}.blkdiag2"])
    head = adapted.base_model.model.classifier.modules_to_save["default"]
    assert torch.equal(head.out_proj.weight, tensors["classifier.out_proj.weight"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda state: state.pop("classifier.dense.bias"), r"Missing: .*classifier\.dense\.bias"),
        (lambda state: state.update({"clasifier.bias": torch.ones(3)}), r"clasifier\.bias"),
        (
            lambda state: state.update({"classifier.dense.weight": torch.ones(3, 4)}),
            r"classifier\.dense\.weight \(3, 4\)",
        ),
    ],
)
def test_a_head_that_does_not_fit_is_refused_by_name(
    base: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], None], said: str
) -> None:
    tensors = checkpoint(base)
    change(tensors)
    with pytest.raises(InputError, match=said):
        morenas.from_published(tensors, str(base), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_checkpoint_is_refused(base: Path, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"pytorch_model\.bin: cannot be read as tensors"):
        morenas.from_published(tmp_path / "pytorch_model.bin", str(base), tmp_path / "out")
    with pytest.raises(InputError, match=r"gone\.bin: is missing"):
        morenas.from_published(tmp_path / "gone.bin", str(base), tmp_path / "out")
