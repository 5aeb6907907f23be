"""Exact: the unrolled hypergradient with its second derivative by autograd, what finite differences are checked by."""

from __future__ import annotations

from morenas.bilevel.hypergradients.unrolled import Unrolled
from morenas.bilevel.second_derivative import double_backward

exact = Unrolled(double_backward)
"""``Unrolled`` without finite differences. It has no name in the registry, since it works only for models that can be
differentiated twice and holds their graphs of all micro-batches; whoever has such a model gives the object:
``SearchSettings(hypergradient=exact)``. The implicit counterpart is ``Neumann(second_derivative=double_backward)``."""
