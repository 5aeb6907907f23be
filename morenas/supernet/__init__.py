"""The relaxed search space: one layer that holds every candidate, and the probabilities that mix them."""

from morenas.base.kinds import SHARINGS
from morenas.supernet.inject import Supernet
from morenas.supernet.layer import SupernetLinear
from morenas.supernet.relaxation import Dirichlet, Gumbel, Midpoint, Relaxation, Softmax

__all__ = [
    "SHARINGS",
    "Dirichlet",
    "Gumbel",
    "Midpoint",
    "Relaxation",
    "Softmax",
    "Supernet",
    "SupernetLinear",
]
