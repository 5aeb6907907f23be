"""Sizes of blocks, numbers of parameters and how factors start."""

from __future__ import annotations

import pytest
import torch

from morenas.monarch import block_sizes, check_divides, init_first_, num_parameters


@pytest.mark.parametrize("nblocks", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("blk_r", [1, 3, 8])
def test_parameters_do_not_depend_on_the_block_count(nblocks: int, blk_r: int) -> None:
    assert num_parameters(384, 1536, nblocks, blk_r) == blk_r * (384 + 1536)


def test_padding_is_counted() -> None:
    assert block_sizes(50, 37, 4) == (13, 10)
    assert num_parameters(50, 37, 4, 2) == 2 * 4 * (13 + 10)


def test_a_count_that_does_not_divide_is_refused_with_those_that_do() -> None:
    check_divides("query", 770, 7)
    with pytest.raises(ValueError, match=r"'query': 770 .* nblocks=4 .* 1, 2, 5, 7, 10 … or set pad=true"):
        check_divides("query", 770, 4)


def test_first_starts_within_the_bound_of_its_block_width() -> None:
    first = init_first_(torch.empty(4, 8, 400), torch.Generator().manual_seed(0))
    assert float(first.abs().max()) <= 400**-0.5
    assert float(first.std()) == pytest.approx(400**-0.5 / 3**0.5, rel=0.02)
