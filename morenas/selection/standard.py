"""Scores of choices in a unit of their own, so that scores of different kinds can be added."""

from __future__ import annotations

import torch
from torch import Tensor


def deviation(scores: Tensor, allowed: Tensor) -> float:
    """Standard deviation of scores ``(groups, choices)`` from their group's mean, over all allowed choices."""
    return float(_centred(scores, allowed).square().nanmean().sqrt().nan_to_num(0.0))


def standardized(scores: Tensor, allowed: Tensor) -> Tensor:
    """Zero mean a group and unit standard deviation over all allowed choices; zeros elsewhere, or if none differ."""
    centred, scale = _centred(scores, allowed), deviation(scores, allowed)
    # Of scores that differ by rounding alone, the rounding must not become the score.
    largest = float(scores.double().masked_fill(~allowed, 0.0).abs().max())
    rounding = 4 * torch.finfo(scores.dtype).eps * largest
    return (centred / scale if scale > rounding else torch.zeros_like(centred)).nan_to_num(0.0)


def _centred(scores: Tensor, allowed: Tensor) -> Tensor:
    kept = scores.double().masked_fill(~allowed, torch.nan)
    return kept - kept.nanmean(dim=1, keepdim=True)
