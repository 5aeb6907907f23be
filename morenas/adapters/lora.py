"""A Monarch adapter as a plain LoRA of PEFT, and a LoRA as a Monarch adapter.

A Monarch matrix of shape (N, r) is a LoRA of rank N r, exactly. Pairs are ``a`` ``(rank, n)`` and ``b`` ``(m, rank)``
with every scale inside ``b``: the change of the weight is ``b @ a``, in PEFT's words ``lora_alpha == r``. Where all
ranks are one, llama.cpp (``lora_alpha`` over a tensor's own rank) and vLLM (``lora_alpha / r``) scale it by one too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from morenas.adapters.factors import more_layers
from morenas.base.errors import InputError
from morenas.monarch import Link, project, to_dense, to_lora

Pair = tuple[Tensor, Tensor]
BASE = "base_model.model."
"""What PEFT puts before the names of the task model."""
BIAS = {"none": "none", "all": "all", "morenas_only": "lora_only"}
"""Our choice of trained biases in LoRA's words."""
LISTED = 5


@torch.no_grad()
def lora_pairs(model: nn.Module, adapter_name: str = "default") -> dict[str, Pair]:
    """Write every Monarch adapter of a PEFT model as a LoRA pair of rank N r, number for number."""
    return {
        name: to_lora(
            layer.morenas_first[adapter_name].detach().cpu(),
            layer.morenas_second[adapter_name].detach().cpu(),
            layer.link[adapter_name],
            layer.in_features,
            layer.out_features,
        )
        for name, layer in more_layers(model, adapter_name).items()
    }


def fit_ranks(
    pairs: Mapping[str, Pair], one_rank: bool = False, max_rank: int | None = None, truncate: bool = False
) -> tuple[dict[str, Pair], dict[str, float]]:
    """Bring pairs to the ranks that a server takes.

    Args:
        one_rank: Pad all pairs with zeros to the largest rank.
        max_rank: Largest rank allowed; None for any.
        truncate: Replace pairs above ``max_rank`` by their best approximations.
    Returns:
        The pairs, and the relative error of each that was truncated.
    Raises:
        InputError: If a rank is above ``max_rank`` and ``truncate`` is off; if an option would do nothing.
    """
    _check_limits(pairs, max_rank, truncate)
    fitted, errors = dict(pairs), {}
    for name, (a, b) in pairs.items():
        if max_rank is not None and len(a) > max_rank:
            fitted_a, fitted_b, errors[name] = truncate_pair(a, b, max_rank)
            fitted[name] = (fitted_a, fitted_b)
    if one_rank:
        largest = max(len(a) for a, _ in fitted.values())
        fitted = {name: pad_pair(a, b, largest) for name, (a, b) in fitted.items()}
    return fitted, errors


def truncate_pair(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor, float]:
    """The best approximation of ``b @ a`` in the Frobenius norm by a pair of lower rank, singular values split evenly.

    Never writes the dense matrix: an SVD of the small core between two QR decompositions, in float64.

    Returns:
        ``a`` ``(k, n)`` and ``b`` ``(m, k)``, k the least of ``rank``, n and m; and the norm of what is lost over the
        norm of the whole.
    """
    out_basis, out_part = torch.linalg.qr(b.double())
    in_basis, in_part = torch.linalg.qr(a.double().T)
    u, values, vt = torch.linalg.svd(out_part @ in_part.T, full_matrices=False)
    u, kept, vt = u[:, :rank], values[:rank], vt[:rank]
    new_a, new_b = (kept.sqrt()[:, None] * vt) @ in_basis.T, out_basis @ (u * kept.sqrt())
    whole = float(values.norm())
    return new_a.to(a.dtype), new_b.to(b.dtype), float(values[rank:].norm()) / whole if whole else 0.0


def pad_pair(a: Tensor, b: Tensor, rank: int) -> Pair:
    """Add zeros up to ``rank``: the same product."""
    more = rank - len(a)
    return torch.cat([a, a.new_zeros(more, a.shape[1])]), torch.cat([b, b.new_zeros(b.shape[0], more)], dim=1)


def lora_config(ranks: Mapping[str, int], modules: Iterable[str], **fields: Any) -> LoraConfig:
    """The config of a LoRA on exactly the modules of ``ranks``, scaled by one.

    Args:
        ranks: Module name, relative to the task model, to rank.
        modules: Names of all modules of the task model.
        fields: Any other field of ``LoraConfig``.
    Raises:
        InputError: If PEFT would give another set of modules an adapter, whatever ``target_modules`` says.
    """
    largest = max(ranks.values())
    # PEFT reads keys as regular expressions that match at the end of a name; the anchor makes it the whole name.
    # Where only the ranks were given, the scale lora_alpha / rank would differ from one.
    others = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != largest}
    config = LoraConfig(
        r=largest, lora_alpha=largest, rank_pattern=others, alpha_pattern=dict(others), inference_mode=True, **fields
    )
    # Servers expect a list. PEFT takes its entries as endings; where one hits another module, a regular expression of
    # whole names does not.
    for targets in (sorted(ranks), "|".join(re.escape(name) for name in sorted(ranks))):
        config.target_modules = targets
        hit = {name for name in modules if name and _is_target(config, name)}
        if hit == set(ranks):
            return config
    raise InputError(
        f"LoRA export: PEFT would leave out {_listed(sorted(set(ranks) - hit))}: a module trained as a whole "
        f"({', '.join(fields.get('modules_to_save') or [])}) hides it by its name; export with to=merged."
    )


def lora_state(pairs: Mapping[str, Pair]) -> dict[str, Tensor]:
    """Tensors of the pairs under PEFT's names."""
    state = {}
    for name, (a, b) in pairs.items():
        state[f"{BASE}{name}.lora_A.weight"] = a.contiguous()
        state[f"{BASE}{name}.lora_B.weight"] = b.contiguous()
    return state


def read_pairs(
    config: LoraConfig, state: Mapping[str, Tensor], source: str
) -> tuple[dict[str, Pair], dict[str, Tensor]]:
    """Take a saved LoRA apart into pairs, scales folded in, and what else it trained.

    Args:
        config: Its ``adapter_config.json``.
        state: Its tensors.
        source: Where it came from, for the message.
    Raises:
        InputError: If it is no plain LoRA, or a tensor of a pair is missing; each is named.
    """
    odd = sorted(name for name in state if re.search(r"\.lora_(?![AB]\.weight$)", name))
    if config.use_dora or odd:
        raise InputError(
            f"{source}: holds more than pairs lora_A, lora_B ({_listed(odd) or 'use_dora=true'}): such a change of the "
            "weights is no LoRA; give a plain one."
        )
    parts = {name: tensor for name, tensor in state.items() if ".lora_" in name}
    names = sorted({name.removeprefix(BASE).rpartition(".lora_")[0] for name in parts})
    wanted = {f"{BASE}{name}.lora_{side}.weight" for name in names for side in "AB"}
    if missing := sorted(wanted - set(parts)):
        raise InputError(f"{source}: lacks {_listed(missing)}; copy the adapter again.")
    pairs = {name: _pair(config, parts, name) for name in names}
    return pairs, {name: tensor for name, tensor in state.items() if name not in parts}


def project_pairs(
    pairs: Mapping[str, Pair], shapes: Mapping[str, tuple[int, int]], link: Link
) -> tuple[dict[str, Pair], dict[str, float]]:
    """The nearest Monarch adapter of given shapes, module by module, in the Frobenius norm.

    Args:
        pairs: Module name to LoRA pair.
        shapes: Module name to ``(nblocks, blk_r)``.
    Returns:
        Factors ``(first, second)`` by module, and the norm of what is lost over the norm of the change.
    Raises:
        InputError: If a pair's module has no shape.
    """
    if lost := sorted(set(pairs) - set(shapes)):
        raise InputError(
            f"LoRA to MoRe: the architecture gives no adapter to {_listed(lost)}, which the LoRA changes; use an "
            "architecture that adapts every module of the LoRA."
        )
    factors, errors = {}, {}
    for name, (a, b) in pairs.items():
        dense = b.double() @ a.double()
        first, second = project(dense, *shapes[name], link)
        rest = dense - to_dense(first, second, link, a.shape[1], len(b))
        factors[name] = (first.to(a.dtype), second.to(b.dtype))
        errors[name] = float(rest.norm() / dense.norm()) if dense.any() else 0.0
    return factors, errors


def _pair(config: LoraConfig, parts: Mapping[str, Tensor], name: str) -> Pair:
    a, b = (parts[f"{BASE}{name}.lora_{side}.weight"] for side in "AB")
    alphas, rank = config.alpha_pattern or {}, len(a)
    alpha = alphas.get(get_pattern_key(list(alphas), name), config.lora_alpha)
    return a, b * (alpha / (math.sqrt(rank) if config.use_rslora else rank))


def _is_target(config: LoraConfig, name: str) -> bool:
    # What is excluded comes back as a falsy object.
    return bool(check_target_module_exists(config, name))


def _check_limits(pairs: Mapping[str, Pair], max_rank: int | None, truncate: bool) -> None:
    if max_rank is None:
        if truncate:
            raise InputError("LoRA export: truncate=true needs max_rank, the rank to truncate to.")
        return
    if max_rank < 1:
        raise InputError(f"LoRA export: max_rank={max_rank} must be at least 1.")
    above = {name: len(a) for name, (a, _) in pairs.items() if len(a) > max_rank}
    if above and not truncate:
        raise InputError(
            f"LoRA export: {len(above)} of {len(pairs)} modules have a rank N r above max_rank={max_rank}: "
            f"{_listed([f'{name} ({rank})' for name, rank in above.items()])}. Set max_rank={max(above.values())} for "
            "the exact function, or truncate=true for the best approximation, whose error is told."
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
