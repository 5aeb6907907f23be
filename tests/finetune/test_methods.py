"""Methods become the PEFT configs they name, or are refused in words."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from peft import IA3Config, PeftModel
from tiny_training import SETTINGS, Recorder, tiny_adapted, tiny_architecture, tiny_data

from morenas.base.builtin import BUILTIN
from morenas.base.errors import InputError
from morenas.base.registry import registry
from morenas.base.settings import meanings
from morenas.finetune.loop import finetune
from morenas.finetune.methods import AdaLora, Boft, Dora, GraLora, Lora, Method, More, RankedLora, Targets, method_name

TARGETS = {"layer.0.up": (16, 24), "layer.0.down": (24, 16)}
HEAD = ("classifier",)


@pytest.mark.parametrize("name", BUILTIN["method"])
def test_every_name_builds_what_is_called_so(name: str) -> None:
    assert method_name(registry("method").build(name)) == name


def test_what_a_caller_adds_keeps_the_name_of_the_method() -> None:
    assert method_name(RankedLora(ranks={})) == "lora"
    assert method_name(More().with_architecture(tiny_architecture())) == "more"


@pytest.mark.parametrize("name", BUILTIN["method"])
def test_every_setting_says_what_it_means_and_has_a_default(name: str) -> None:
    method = registry("method").get(name)
    assert set(registry("method").settings(name)) <= meanings(method).keys()
    method()


def test_settings_are_those_of_a_command_line_alone() -> None:
    settings = {name: registry("method").settings(name) for name in BUILTIN["method"]}
    assert settings["more"] == ("dropout", "nblocks", "blk_r", "link") and settings["full"] == settings["head"] == ()
    assert settings["lora"] == settings["dora"] == settings["rslora"] == ("rank", "alpha", "dropout")
    assert settings["boft"] == ("block_size", "dropout") and "blocks" in settings["gralora"]
    assert {type(field.default) for name in settings for field in fields(registry("method").get(name))} <= {
        int,
        float,
        str,
        type(None),
    }


def test_methods_are_checked_without_torch() -> None:
    code = (
        "import sys; from morenas.base.registry import registry\n"
        "for name in registry('method').names(): registry('method').build(name)\n"
        "sys.exit(bool({'torch', 'peft', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("lorra", {}, "did you mean 'lora'"),
        ("lora", {"rnak": 4}, "did you mean 'rank'"),
        ("lora", {"block_size": 4}, "it has rank, alpha"),
        ("lora", {"ranks": {}}, "it has rank, alpha"),
        ("full", {"rank": 4}, "it has none"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(name: str, parameters: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        registry("method").build(name, **parameters)


def test_ranks_by_module_keep_one_scale() -> None:
    method = RankedLora(rank=4, alpha=8, ranks={"layer.0.up": 4, "layer.0.down": 3})
    config = method.peft_config(TARGETS, HEAD, 10)
    assert config.r == 4 and config.lora_alpha == 8
    assert config.rank_pattern == {r"layer\.0\.down": 3}
    assert config.alpha_pattern == {r"layer\.0\.down": 6}


def test_a_module_of_rank_zero_is_no_target() -> None:
    config = RankedLora(rank=4, ranks={"layer.0.up": 4, "layer.0.down": 0}).peft_config(TARGETS, HEAD, 10)
    assert set(config.target_modules or ()) == {"layer.0.up"}


def test_alpha_is_twice_the_rank_unless_given() -> None:
    assert Lora(rank=3).peft_config(TARGETS, HEAD, 10).lora_alpha == 6
    assert Dora(rank=3, alpha=3).peft_config(TARGETS, HEAD, 10).lora_alpha == 3


def test_dora_is_lora_with_magnitudes() -> None:
    assert Dora().peft_config(TARGETS, HEAD, 10).use_dora
    assert not Lora().peft_config(TARGETS, HEAD, 10).use_dora


def test_adalora_leaves_steps_to_cut_ranks_in() -> None:
    config = AdaLora(rank=4).peft_config(TARGETS, HEAD, 100)
    assert (config.init_r, config.target_r, config.tinit, config.tfinal, config.total_step) == (
        6,
        4,
        10,
        30,
        100,
    )


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        (Lora, {"rank": 0}, "method.rank=0: must be at least 1"),
        (Lora, {"alpha": 0.0}, "method.alpha=0.0: must be above 0"),
        (Dora, {"dropout": 1.0}, "method.dropout=1.0: must be at least 0 and below 1"),
        (More, {"dropout": -0.1}, "method.dropout=-0.1"),
        (More, {"nblocks": 4}, "blk_r=None: must be given together with nblocks, which is 4"),
        (More, {"nblocks": 0, "blk_r": 4}, "method.nblocks=0: must be at least 1"),
        (More, {"link": "cylic"}, "method.link=cylic: choose from cyclic, monarch.*did you mean 'cyclic'"),
        (Boft, {"dropout": 2.0}, "method.dropout=2.0"),
        (AdaLora, {"rank": 4, "initial_rank": 4}, "there is nothing to cut"),
        (AdaLora, {"settle": 1.0}, "method.settle=1.0"),
        (AdaLora, {"every": 0}, "method.every=0"),
        (AdaLora, {"orthogonality": 0.0}, "method.orthogonality=0.0"),
        (GraLora, {"rank": 4, "blocks": 3}, "rank=4: must be a multiple of blocks=3"),
    ],
)
def test_settings_out_of_range_are_refused_at_once(
    method: Callable[..., Method], settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        method(**settings)


@pytest.mark.parametrize(
    ("method", "steps", "said"),
    [
        (AdaLora(rank=4), 1, "1 steps leave none"),
        (GraLora(rank=10, blocks=5), 10, r"blocks=5: does not divide 16 \('layer.0.up'\)"),
        (Boft(block_size=7), 10, "block_size=7: does not divide 16"),
        (More(), 10, "has no shapes yet"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(method: Method, steps: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        method.peft_config(TARGETS, HEAD, steps)


@dataclass(frozen=True)
class Scales:
    """A method of somebody else's."""

    feedforward: bool = False

    def peft_config(self, targets: Targets, head: Sequence[str], total_steps: int) -> IA3Config:
        return IA3Config(
            target_modules=list(targets),
            feedforward_modules=list(targets) if self.feedforward else [],
            modules_to_save=list(head),
        )


def test_a_method_of_ones_own_is_chosen_by_name_and_trained(tmp_path: Path, doors: Callable[..., None]) -> None:
    assert method_name(Scales()) == "Scales"
    doors("method", "scales", Scales)
    method = registry("method").build("scales", feedforward=True)
    model = tiny_adapted(method)
    result = finetune(model, tiny_data(), SETTINGS, tmp_path, Recorder())
    assert isinstance(model, PeftModel) and method_name(method) == "scales"
    assert 0 < result.adapter_params < 1000 and result.steps == 12
