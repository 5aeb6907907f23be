"""Small tensors that depend on shapes alone, made once."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, cast

import torch
from torch import Tensor

P = ParamSpec("P")


def constant(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Keep what ``make`` returns, by its arguments.

    A tensor made under ``torch.inference_mode`` could never take part in a backward pass again.
    """

    # A bound, since every tensor kept holds memory of its device; a model has some dozens of shapes.
    @lru_cache(maxsize=256)
    def kept(*arguments: P.args, **named: P.kwargs) -> Tensor:
        with torch.inference_mode(False):
            return make(*arguments, **named)

    kept.__doc__ = make.__doc__
    return cast(Callable[P, Tensor], kept)
