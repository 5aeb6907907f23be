"""The relaxed search space: one layer that holds every candidate, and the probabilities that mix them."""

from morenas.base.kinds import SHARINGS
from morenas.supernet.inject import Supernet
from morenas.supernet.layer import SupernetLinear
from morenas.supernet.relaxation import Dirichlet, Gumbel, Relaxation, Softmax

__all__ = [
    "SHARINGS",
    "Dirichlet",
    "Gumbel",
    "Relaxation",
    "Softmax",
    "Supernet",
    "SupernetLinear",
]
