"""The published implementation of the Monarch product, taken from a checkout of the paper's repository."""

from __future__ import annotations

import importlib.util
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from morenas.base.errors import InputError
from morenas.monarch import Link, block_sizes, multiply

Product = Callable[[Tensor, Tensor, Tensor], Tensor]
FILE = Path("src") / "ops" / "blockdiag_butterfly_multiply.py"
FUNCTION = "blockdiag_butterfly_multiply"
TOLERANCE = 1e-4  # relative


@cache
def load_published(checkout: Path) -> Product:
    """The product ``(x, first, second)`` of a checkout, under ``Link.MONARCH``.

    Raises:
        InputError: If the checkout lacks the file or the function, or it computes something else than ours.
    """
    path = checkout / FILE
    if not path.is_file():
        raise InputError(f"--reference {checkout}: lacks {FILE}; name a checkout of the paper's repository.")
    product = getattr(_load(path), FUNCTION, None)
    if not callable(product):
        raise InputError(f"--reference {checkout}: {FILE} has no {FUNCTION}; check out the paper's own version.")
    _check_agrees(product, checkout)
    return product


def _load(path: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("published_product", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _einops(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever a file may raise
            raise InputError(f"--reference: {path} cannot be loaded ({type(error).__name__}: {error}).") from error
    return module


@contextmanager
def _einops() -> Iterator[None]:
    """The file imports einops, for a function that is not used here; where it is missing, a stub stands in."""
    if importlib.util.find_spec("einops") is not None:
        yield
        return
    stub = types.ModuleType("einops")
    stub.__dict__["rearrange"] = None
    sys.modules["einops"] = stub
    try:
        yield
    finally:
        del sys.modules["einops"]


def _check_agrees(product: Product, checkout: Path) -> None:
    for n, m, nblocks, blk_r in ((32, 48, 4, 4), (48, 32, 4, 8), (32, 32, 8, 2), (24, 24, 1, 3)):
        generator = torch.Generator().manual_seed(n + nblocks)
        width, height = block_sizes(n, m, nblocks)
        x = torch.randn(5, n, generator=generator)
        first = torch.randn(nblocks, blk_r, width, generator=generator)
        second = torch.randn(nblocks, height, blk_r, generator=generator)
        ours = multiply(x, first, second, Link.MONARCH, m)
        theirs = product(x, first, second)
        error = float((ours - theirs).norm() / ours.norm()) if theirs.shape == ours.shape else float("inf")
        if not error <= TOLERANCE:
            raise InputError(
                f"--reference {checkout}: its product differs from ours by {error:.1g} of its size at n={n}, m={m}, "
                f"N={nblocks}, r={blk_r}; {TOLERANCE:g} is allowed. Check out the paper's own version."
            )
