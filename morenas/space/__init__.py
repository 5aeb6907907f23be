"""What can be found: choices of ``(nblocks, blk_r)`` for every linear layer, their cost, and the result."""

from morenas.space.architecture import Architecture, ModuleShape
from morenas.space.budget import Budget, lora_parameters
from morenas.space.choices import Choice, SearchSpace, build_space
from morenas.space.sampling import sample_architecture

__all__ = [
    "Architecture",
    "Budget",
    "Choice",
    "ModuleShape",
    "SearchSpace",
    "build_space",
    "lora_parameters",
    "sample_architecture",
]
