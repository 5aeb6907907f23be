"""Every hypergradient that has a name."""

from __future__ import annotations

from morenas.base.registry import BUILTIN, registry
from morenas.bilevel import Hypergradient

HYPERGRADIENTS: dict[str, Hypergradient] = {
    name: registry("hypergradient").build(name) for name in BUILTIN["hypergradient"]
}
