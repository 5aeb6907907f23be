"""The adapter's configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from peft.config import PeftConfig

from morenas.adapters.peft_type import extend_enum
from morenas.base.errors import InputError, suggest
from morenas.monarch import Link
from morenas.space import Architecture

BIASES = ("none", "all", "morenas_only")


class HasShapes(Protocol):
    """What an architecture says of itself."""

    @property
    def link(self) -> str: ...

    def shapes(self) -> Any:
        """Module name to ``(nblocks, blk_r)``."""
        ...


class HasArchitecture(Protocol):
    """What holds an architecture, such as the outcome of a search."""

    @property
    def architecture(self) -> HasShapes: ...


@dataclass
class MoReConfig(PeftConfig):
    """Configuration of a Monarch adapter (MoRe, arXiv 2408.17383).

    Args:
        nblocks: Block count N of every adapted module that ``architecture`` does not name.
        blk_r: Rank r of a block, likewise.
        link: "cyclic" or "monarch", the link map between the two factors.
        pad: Pad feature counts that N does not divide; if False they are refused.
        target_modules: As in PEFT: names, a regex, or "all-linear". With an architecture: its modules.
        exclude_modules: As in PEFT.
        modules_to_save: Modules trained and saved whole, the head say.
        layers_to_transform: As in PEFT.
        layers_pattern: As in PEFT.
        bias: "none", "all" or "morenas_only": which biases are trained.
        dropout: Dropout probability on the adapter's input.
        init_weights: Start as the identity; if False both factors start at random, for tests.
        architecture: Shape per module, ``{"<name or regex>": {"nblocks": N, "blk_r": r}}``; modules that no entry
            matches get no adapter.
    Raises:
        InputError: If a value is out of range.
    """

    nblocks: int = field(default=4)
    blk_r: int = field(default=4)
    link: str = field(default=Link.CYCLIC.value)
    pad: bool = field(default=True)
    target_modules: list[str] | str | None = field(default=None)
    exclude_modules: list[str] | str | None = field(default=None)
    modules_to_save: list[str] | None = field(default=None)
    layers_to_transform: list[int] | int | None = field(default=None)
    layers_pattern: list[str] | str | None = field(default=None)
    bias: str = field(default="none")
    dropout: float = field(default=0.0)
    init_weights: bool = field(default=True)
    architecture: dict[str, dict[str, int]] | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = extend_enum()
        self.link = getattr(self.link, "value", self.link)
        self._check_values()
        if self.architecture is not None:
            self._check_architecture(self.architecture)
            if self.target_modules is None:
                self.target_modules = list(self.architecture)
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)  # type: ignore[assignment]  # as PEFT keeps it
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)  # type: ignore[assignment]

    @classmethod
    def from_architecture(cls, architecture: HasShapes | HasArchitecture | str | Path, **kwargs: Any) -> MoReConfig:
        """Build the config of a found architecture.

        Args:
            architecture: A ``morenas.Architecture``, the outcome of ``morenas.search_architecture``, or the path of an
                ``architecture.json``.
            kwargs: Any other field: ``modules_to_save`` for a head, ``dropout``, ``task_type``, …
        Raises:
            InputError: If the architecture gives no module an adapter, or the file is missing or broken.
        """
        found = _read(architecture)
        shapes = {name: {"nblocks": int(n), "blk_r": int(r)} for name, (n, r) in found.shapes().items()}
        return cls(link=found.link, architecture=shapes, **kwargs)

    def shape_of(self, module_name: str) -> tuple[int, int] | None:
        """``(nblocks, blk_r)`` of a module, or None where an architecture leaves it out."""
        if self.architecture is None:
            return self.nblocks, self.blk_r
        entry = self.architecture.get(module_name)
        if entry is None:
            entry = next((e for pattern, e in self.architecture.items() if _matches(pattern, module_name)), None)
        return None if entry is None else (entry["nblocks"], entry["blk_r"])

    def _check_values(self) -> None:
        links = [link.value for link in Link]
        if self.link not in links:
            raise InputError(
                f"MoReConfig: link={self.link!r} is none of {', '.join(links)}{suggest(str(self.link), links)}"
            )
        if self.bias not in BIASES:
            raise InputError(
                f"MoReConfig: bias={self.bias!r} is none of {', '.join(BIASES)}{suggest(self.bias, BIASES)}"
            )
        if not 0 <= self.dropout < 1:
            raise InputError(f"MoReConfig: dropout={self.dropout} must be in [0, 1).")
        self._check_layers()
        _check_shape("MoReConfig", {"nblocks": self.nblocks, "blk_r": self.blk_r})

    def _check_layers(self) -> None:
        for option in ("layers_to_transform", "layers_pattern"):
            if getattr(self, option) is not None and isinstance(self.target_modules, str):
                kind = "all-linear" if self.target_modules.lower() == "all-linear" else "a pattern"
                raise InputError(
                    f"MoReConfig: {option} has no effect on {kind}; give target_modules as a list of name endings."
                )
        if self.layers_pattern and self.layers_to_transform is None:
            raise InputError("MoReConfig: layers_pattern has no effect without layers_to_transform; give both.")

    def _check_architecture(self, architecture: dict[str, dict[str, int]]) -> None:
        if not architecture:
            raise InputError("MoReConfig: the architecture is empty: no module would get an adapter.")
        for option in ("exclude_modules", "layers_to_transform"):
            if getattr(self, option):
                raise InputError(f"MoReConfig: an architecture names every module it adapts; leave {option} out.")
        for name, entry in architecture.items():
            if set(entry) != {"nblocks", "blk_r"}:
                raise InputError(
                    f"MoReConfig: architecture['{name}'] must give nblocks and blk_r, this gives {sorted(entry)}."
                )
            _check_shape(f"MoReConfig: architecture['{name}']", entry)


def _read(architecture: HasShapes | HasArchitecture | str | Path) -> HasShapes:
    if isinstance(architecture, str | Path):
        return Architecture.from_json(architecture)
    return architecture.architecture if hasattr(architecture, "architecture") else architecture


def _check_shape(owner: str, shape: dict[str, int]) -> None:
    for key, value in shape.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(f"{owner}: {key}={value!r} must be a whole number of at least 1.")


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False
