"""What can be found: choices of ``(nblocks, blk_r)`` for every linear layer, their cost, and the result."""

from morenas.space.architecture import Architecture, ModuleShape
from morenas.space.budget import Budget, lora_parameters
from morenas.space.candidates import Choice
from morenas.space.choices import SearchSpace, build_space
from morenas.space.cost import Cost, LinearLayer, Params
from morenas.space.sampling import sample_architecture

__all__ = [
    "Architecture",
    "Budget",
    "Choice",
    "Cost",
    "LinearLayer",
    "ModuleShape",
    "Params",
    "SearchSpace",
    "build_space",
    "lora_parameters",
    "sample_architecture",
]
