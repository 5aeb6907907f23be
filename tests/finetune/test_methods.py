"""Methods become the PEFT configs they name, or are refused in words."""

from __future__ import annotations

import pytest

from morenas.base.errors import InputError
from morenas.finetune.methods import METHODS, AdaLora, Boft, Dora, GraLora, Lora, build_method

TARGETS = {"layer.0.up": (16, 24), "layer.0.down": (24, 16)}
HEAD = ("classifier",)


def test_every_name_builds() -> None:
    for name in METHODS.keys() - {"more"}:
        assert build_method(name).name == name


def test_parameters_reach_the_method_and_none_keeps_the_default() -> None:
    assert build_method("lora", rank=4, alpha=None, dropout=0.1) == Lora(rank=4, dropout=0.1)


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("lorra", {}, "did you mean 'lora'"),
        ("lora", {"rnak": 4}, "did you mean 'rank'"),
        ("lora", {"block_size": 4}, "it has rank, alpha"),
        ("full", {"rank": 4}, "it has none"),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(name: str, parameters: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build_method(name, **parameters)


def test_ranks_by_module_keep_one_scale() -> None:
    config = Lora(rank=4, alpha=8, ranks={"layer.0.up": 4, "layer.0.down": 3}).peft_config(TARGETS, HEAD, 10)
    assert config.r == 4 and config.lora_alpha == 8
    assert config.rank_pattern == {r"layer\.0\.down": 3}
    assert config.alpha_pattern == {r"layer\.0\.down": 6}


def test_a_module_of_rank_zero_is_no_target() -> None:
    config = Lora(rank=4, ranks={"layer.0.up": 4, "layer.0.down": 0}).peft_config(TARGETS, HEAD, 10)
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
    ("method", "steps", "said"),
    [
        (Lora(rank=0), 10, "rank=0"),
        (AdaLora(rank=4, initial_rank=4), 10, "nothing to cut"),
        (AdaLora(rank=4), 1, "1 steps leave none"),
        (GraLora(rank=4, blocks=3), 10, "rank=4 must be a multiple of blocks=3"),
        (GraLora(rank=10, blocks=5), 10, r"blocks=5 does not divide 16 \('layer.0.up'\)"),
        (Boft(block_size=7), 10, "block_size=7 does not divide 16"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(method: Lora | AdaLora | GraLora | Boft, steps: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        method.peft_config(TARGETS, HEAD, steps)
