"""Monarch algebra: block-diagonal, permuted, block-diagonal. Depends on torch alone."""

from morenas.monarch.constant import constant
from morenas.monarch.convert import to_dense, to_lora
from morenas.monarch.grouped import linked_product
from morenas.monarch.init import init_first_
from morenas.monarch.link import Link, link_permutation
from morenas.monarch.multiply import add_to, cast_for_autocast, multiply
from morenas.monarch.project import project
from morenas.monarch.shapes import Factors, block_sizes, check_divides, num_parameters

__all__ = [
    "Factors",
    "Link",
    "add_to",
    "block_sizes",
    "cast_for_autocast",
    "check_divides",
    "constant",
    "init_first_",
    "link_permutation",
    "linked_product",
    "multiply",
    "num_parameters",
    "project",
    "to_dense",
    "to_lora",
]
