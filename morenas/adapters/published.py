"""Checkpoints of the paper's own implementation, as Monarch adapters and back.

For every adapted layer they hold ``<module>.blkdiag1`` ``(N, r, p)`` and ``<module>.blkdiag2`` ``(N, s, r)`` under the
``monarch`` link, with ``p = ceil(n / N)`` and ``s = p * ceil(m / n)``, and beside them whatever else was trained, such
as the classifier; no frozen weight. Output feature ``o = i * N + l`` is value i of block l, and those from m on are
cut off, so of the s values of a block only the first ``ceil(m / N)`` are ever read: those are ours.

Source: github.com/SprocketLab/sparse_matrix_fine_tuning, the layer ``MonarchLinear``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from morenas.base.errors import InputError
from morenas.monarch import Factors, block_sizes

FIRST, SECOND = "blkdiag1", "blkdiag2"


def from_published(
    tensors: Mapping[str, Tensor], linears: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, Factors], dict[str, Tensor]]:
    """Read a published checkpoint, number for number.

    Args:
        tensors: The checkpoint.
        linears: Linear layers of the model it belongs to, name to ``(in_features, out_features)``.
    Returns:
        Factors ``(first, second)`` by module for ``Link.MONARCH``, and the tensors that are no factors.
    Raises:
        InputError: If a factor lacks its partner, stands beside something that changes what it computes, belongs to
            no linear layer, or cuts its features at other places than blocks of equal size do; each is named.
    """
    names = sorted({name.rpartition(".")[0] for name in tensors if name.rpartition(".")[2] in (FIRST, SECOND)})
    if not names:
        raise InputError(f"Published checkpoint: holds no {FIRST} and {SECOND}; it has {_listed(sorted(tensors))}.")
    missing = [f"{name}.{part}" for name in names for part in (FIRST, SECOND) if f"{name}.{part}" not in tensors]
    inside = [name for name in tensors if name.startswith(tuple(f"{module}." for module in names))]
    extra = [name for name in inside if name.rpartition(".")[2] not in (FIRST, SECOND)]
    extra += [f"{name}.{FIRST}" for name in names if name not in linears]
    _refuse(missing, extra)
    factors = {name: _read(name, tensors, *linears[name]) for name in names}
    return factors, {name: tensor for name, tensor in tensors.items() if name not in inside}


def to_published(factors: Mapping[str, Factors], linears: Mapping[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Write factors for ``Link.MONARCH`` under the published names, values that are never read as zeros."""
    tensors = {}
    for name, (first, second) in factors.items():
        height = _height(first, *linears[name])
        tensors[f"{name}.{FIRST}"] = first
        tensors[f"{name}.{SECOND}"] = F.pad(second, (0, 0, 0, height - second.shape[1]))
    return tensors


def _read(name: str, tensors: Mapping[str, Tensor], in_features: int, out_features: int) -> Factors:
    first, second = tensors[f"{name}.{FIRST}"], tensors[f"{name}.{SECOND}"]
    if first.ndim != 3 or second.ndim != 3 or first.shape[:2] != (second.shape[0], second.shape[2]):
        raise InputError(
            f"Published checkpoint '{name}': shapes {tuple(first.shape)} and {tuple(second.shape)} do not chain; they "
            "should be (N, r, p) and (N, s, r)."
        )
    width, height = block_sizes(in_features, out_features, len(first))
    if first.shape[2] != width or second.shape[1] < height:
        raise InputError(
            f"Published checkpoint '{name}': {len(first)} blocks of {first.shape[2]} inputs and {second.shape[1]} "
            f"outputs do not fit {in_features} -> {out_features}, which takes {width} and at least {height}; it "
            "belongs to another model, or was made with a blk_sz that cuts the features unevenly."
        )
    return first, second[:, :height].contiguous()


def _height(first: Tensor, in_features: int, out_features: int) -> int:
    return int(first.shape[2]) * -(-out_features // in_features)


def _refuse(missing: list[str], extra: list[str]) -> None:
    if missing or extra:
        parts = [f"lacks {', '.join(sorted(missing))}"] if missing else []
        parts += [f"has {', '.join(sorted(extra))}, for which there is no place"] if extra else []
        raise InputError(
            f"Published checkpoint: {' and '.join(parts)}. It must hold {FIRST} and {SECOND} of every adapted linear "
            "layer of the model, without scaler, dense weight or multiplicative factor."
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
