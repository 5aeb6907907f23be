"""The two link maps."""

from __future__ import annotations

import pytest
import torch
from monarch_reference import factors

from morenas.monarch import Link, link_permutation, to_dense


@pytest.mark.parametrize("link", Link)
@pytest.mark.parametrize(("nblocks", "blk_r"), [(1, 1), (1, 4), (4, 1), (3, 2), (4, 6), (16, 8)])
def test_it_is_a_permutation_that_follows_the_definition(link: Link, nblocks: int, blk_r: int) -> None:
    permutation = link_permutation(link, nblocks, blk_r).tolist()
    assert sorted(permutation) == list(range(nblocks * blk_r))
    for k in range(nblocks):
        for j in range(blk_r):
            i = k * blk_r + j
            block, slot = (i % nblocks, i // nblocks) if link is Link.MONARCH else ((k + j) % nblocks, j)
            assert permutation[block * blk_r + slot] == i


def test_cyclic_is_nested_in_the_rank() -> None:
    first, second = factors(4, 6, 20, 12)
    whole = first.detach().clone(), second.detach().clone()
    whole[0][:, 2:] = 0
    smaller = to_dense(first[:, :2], second[..., :2], Link.CYCLIC, 20, 12)
    torch.testing.assert_close(to_dense(*whole, Link.CYCLIC, 20, 12), smaller)


@pytest.mark.parametrize(("nblocks", "blk_r"), [(2, 2), (2, 4), (4, 4), (3, 6)])
def test_where_n_divides_r_both_links_span_the_same_class(nblocks: int, blk_r: int) -> None:
    """Relabelling the rows of ``first`` and the slots of ``second`` turns one into the other."""
    first, second = factors(nblocks, blk_r, 24, 12)
    relabelled_first, relabelled_second = torch.zeros_like(first), torch.zeros_like(second)
    free = {
        (k, l): [j for j in range(blk_r) if (k + j) % nblocks == l]
        for k in range(nblocks)
        for l in range(nblocks)  # noqa: E741
    }
    for k in range(nblocks):
        for j in range(blk_r):
            value = k * blk_r + j
            l, a = value % nblocks, value // nblocks  # noqa: E741
            slot = free[k, l].pop()
            relabelled_first[k, slot] = first[k, j]
            relabelled_second[l, :, slot] = second[l, :, a]
    torch.testing.assert_close(
        to_dense(relabelled_first, relabelled_second, Link.CYCLIC, 24, 12),
        to_dense(first, second, Link.MONARCH, 24, 12),
    )


def test_where_n_does_not_divide_r_cyclic_stays_connected() -> None:
    """At N = 4, r = 2, monarch falls into components of blocks; cyclic reaches every block from every other."""

    def components(link: Link) -> int:
        reach = torch.eye(8, dtype=torch.bool)
        for slot, value in enumerate(link_permutation(link, 4, 2).tolist()):
            reach[value // 2, 4 + slot // 2] = reach[4 + slot // 2, value // 2] = True
        for _ in range(8):
            reach = (reach.float() @ reach.float()) > 0
        return len({tuple(row.tolist()) for row in reach})

    assert components(Link.CYCLIC) == 1
    assert components(Link.MONARCH) == 2


def test_a_map_first_used_in_inference_mode_can_be_trained_with() -> None:
    with torch.inference_mode():
        link_permutation(Link.CYCLIC, 5, 7)
    value = torch.randn(35, requires_grad=True)
    value[link_permutation(Link.CYCLIC, 5, 7)].sum().backward()
    assert value.grad is not None
