"""Frozen weights in half precision or as whole numbers: as they were after a run, adapters in float32."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import in_turn
from safetensors.torch import load_file
from tiny_models import save_tiny, tiny_batch, tiny_causal
from tiny_runs import SEARCH_WORDS, CommandLine, read, record_words, task_words
from torch import Tensor

from morenas.base.errors import InputError
from morenas.base.seeds import derive
from morenas.finetune import stage
from morenas.finetune.attach import attach
from morenas.finetune.methods import More
from morenas.models import load_pretrained, target_linears
from morenas.models.weights import QUANTIZERS, FrozenWeights
from morenas.space import Architecture, ModuleShape

SEARCH = [*SEARCH_WORDS, "search.steps=4"]
KEPT = [
    "model.dtype=bfloat16 model.device_map=cpu",
    "model.dtype=float16 model.device_map=auto",
    "model.quantization=int8",
    "model.quantization=bnb_8bit",
]


def settings(kept: str) -> dict[str, str]:
    """What words say, by the name of the setting."""
    return dict(word.removeprefix("model.").split("=") for word in kept.split())


def need(kept: str) -> FrozenWeights:
    """How weights are kept; skips where the library for it is missing."""
    chosen: dict[str, Any] = settings(kept)
    if "quantization" in chosen:
        pytest.importorskip(QUANTIZERS[chosen["quantization"]])
        chosen["device_map"] = "cpu"
    return FrozenWeights(**chosen)


@pytest.fixture
def words(records: Path, llama: Path, tmp_path: Path) -> list[str]:
    return record_words(records, llama, tmp_path / "run")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The models that a run has trained."""
    save, models = stage.save_adapter, list[Any]()

    def told(model: Any, directory: Path) -> None:
        models.append(model)
        save(model, directory)

    monkeypatch.setattr(stage, "save_adapter", told)
    yield models
    models.clear()


def frozen(model: Any) -> dict[str, Tensor]:
    """What is not trained, under the names of the model alone: as numbers where it is quantized."""
    found = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or not hasattr(model, "get_base_model"):
            value = parameter.data.dequantize() if hasattr(parameter.data, "qdata") else parameter.data
            found[name.removeprefix("base_model.model.").replace(".base_layer", "")] = value
    return found


@pytest.mark.parametrize("kept", KEPT)
def test_after_a_run_the_frozen_weights_are_as_they_were_and_adapters_in_float32(
    command: CommandLine, words: list[str], llama: Path, tmp_path: Path, kept: str, trained: list[Any]
) -> None:
    weights = need(kept)
    done = command("search", *words, *SEARCH, *kept.split())
    assert done.status == 0, done.err
    (model,) = trained
    before = frozen(load_pretrained(str(llama), 1, kind="choice", weights=weights).model)
    after = frozen(model)
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert {parameter.dtype for parameter in model.parameters() if parameter.requires_grad} == {torch.float32}
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert saved and {tensor.dtype for tensor in saved.values()} == {torch.float32}
    results = read(tmp_path / "run" / "results.json")
    assert results["model"]["parameters"] == tiny_causal("llama", num_hidden_layers=1).num_parameters()
    for key, value in settings(kept).items():
        assert key == "device_map" or results["model"][key] == value


@in_turn(
    method=["lora", "dora", "adalora", "gralora", "boft", "dora"],
    quantization=["int8", "bnb_8bit"] * 2 + ["bnb_8bit", "int8"],
)
def test_other_methods_train_beside_quantized_weights_or_say_that_they_cannot(
    command: CommandLine, words: list[str], tmp_path: Path, method: str, quantization: str
) -> None:
    need(f"model.quantization={quantization}")
    done = command("finetune", *words, f"method={method}", f"model.quantization={quantization}")
    if (method, quantization) == ("dora", "bnb_8bit"):
        assert done.status == 2 and "dora" in done.err and "Traceback" not in done.err
    else:
        assert done.status == 0, done.err


@pytest.mark.parametrize("quantization", ["int8", "bnb_8bit"])
def test_quantized_weights_take_up_no_adapter(llama: Path, quantization: str) -> None:
    weights = need(f"model.quantization={quantization}")
    model = load_pretrained(str(llama), 1, kind="choice", weights=weights).model
    targets = target_linears(model)
    modules = {module: ModuleShape(2, 1, *shape) for module, shape in targets.items()}
    method = More().with_architecture(Architecture("tiny", "cyclic", modules, 0.1))
    adapted: Any = attach(model, method, targets, (), 0, total_steps=10)
    with pytest.raises(TypeError, match="cannot take up adapters; load the model without quantization"):
        adapted.merge_and_unload()


@pytest.mark.parametrize("quantization", ["int8", "bnb_8bit"])
@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert", "deberta-v2", "electra", "gpt2", "llama"])
def test_a_head_is_never_quantized(tmp_path: Path, family: str, quantization: str) -> None:
    weights = need(f"model.quantization={quantization}")
    pretrained = load_pretrained(str(save_tiny(family, tmp_path / "model")), 2, weights=weights)
    plain = load_pretrained(str(tmp_path / "model"), 2)
    assert pretrained.head == plain.head
    for name in pretrained.head:
        own = dict(pretrained.model.get_submodule(name).named_parameters())
        for key, parameter in plain.model.get_submodule(name).named_parameters():
            assert type(own[key]) is torch.nn.Parameter and torch.equal(own[key], parameter), (name, key)
    with torch.no_grad():
        quantized, expected = (
            model.eval()(**{k: v for k, v in tiny_batch().items() if k != "labels"}).logits
            for model in (pretrained.model, plain.model)
        )
    torch.testing.assert_close(quantized, expected, rtol=0.1, atol=0.05)


@pytest.mark.parametrize("kept", ["model.dtype=bfloat16", "model.quantization=int8", "model.quantization=bnb_8bit"])
def test_a_classifier_is_searched_and_its_head_learns(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, kept: str
) -> None:
    need(kept)
    done = command("search", *task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH, kept)
    assert done.status == 0, done.err
    saved = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    start = load_start(tiny_model)
    for name, value in start.items():
        assert not torch.equal(saved[f"base_model.model.{name}"].float(), value)


def load_start(model: Path) -> dict[str, Tensor]:
    """The head that a run of seed 0 begins with."""
    pretrained = load_pretrained(str(model), 2, seed=derive(0, "head"))
    named = pretrained.model.get_submodule("classifier").named_parameters()
    return {f"classifier.{name}": value.data for name, value in named}


def refused(done: Any, *said: str) -> bool:
    assert done.status == 2 and "Traceback" not in done.err, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("morenas: error:")]
    assert len(errors) == 1
    for word in said:
        assert word in done.err
    return True


def no_kernel(*_: Any) -> Any:
    raise RuntimeError("there is no kernel for this machine")


def test_what_the_kernels_cannot_compute_is_refused(
    command: CommandLine, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("model.quantization=bnb_4bit")
    monkeypatch.setattr("bitsandbytes.nn.Linear4bit.forward", no_kernel)  # some versions have none for a CPU
    done = command("search", *words, *SEARCH, "model.quantization=bnb_4bit")
    assert (
        refused(done, "model.quantization=bnb_4bit (there is no kernel for this machine)", "use int8")
        and not (tmp_path / "run").exists()
    )


@pytest.mark.parametrize("quantization", QUANTIZERS)
def test_a_library_that_is_missing_is_named(
    command: CommandLine, words: list[str], quantization: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = util.find_spec
    monkeypatch.setattr(
        "morenas.models.weights.find_spec", lambda name: None if name in QUANTIZERS.values() else find(name)
    )
    done = command("search", *words, *SEARCH, f"model.quantization={quantization}")
    assert refused(done, QUANTIZERS[quantization], "not installed", "pip install")


@pytest.mark.parametrize("method", ["full", "head"])
def test_quantized_weights_themselves_are_not_trained(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    words = task_words(tiny_task, tiny_model, tmp_path / "run")
    done = command("finetune", *words, f"method={method}", "model.quantization=int8")
    assert refused(done, f"method={method}", "model.quantization=int8") and not (tmp_path / "run").exists()


def test_a_place_that_there_is_not_is_refused(command: CommandLine, words: list[str]) -> None:
    assert refused(command("search", *words, *SEARCH, "model.device_map=nonsense"), "device_map", "nonsense")


def test_a_way_to_keep_weights_that_there_is_not() -> None:
    with pytest.raises(InputError, match=r"model\.quantization=int9: choose from .*did you mean 'int8'"):
        FrozenWeights(quantization="int9")
