"""The found architecture, as a value and as ``architecture.json``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from morenas.base.documents import validate
from morenas.base.errors import InputError, suggest
from morenas.base.files import read_json, write_json
from morenas.monarch import num_parameters

FORMAT = "morenas.architecture/1"
MOST_FEATURES = 2**24
"""Of a layer: far more than any has, and few enough that a factor of as many blocks is no surprise."""


@dataclass(frozen=True)
class ModuleShape:
    """The adapter of one linear layer ``in_features -> out_features``."""

    nblocks: int
    blk_r: int
    in_features: int
    out_features: int

    @property
    def params(self) -> int:
        """Stored parameters, padding counted."""
        return num_parameters(self.in_features, self.out_features, self.nblocks, self.blk_r)

    def check(self, who: str) -> None:
        """Refuse a shape that would be larger than the layer, before anything is made of it.

        Raises:
            InputError: Naming the number that is too large.
        """
        largest = max(self.in_features, self.out_features)
        if largest > MOST_FEATURES:
            raise InputError(f"{who}: {largest:,} features; no layer has more than {MOST_FEATURES:,}.")
        for key in ("nblocks", "blk_r"):
            if getattr(self, key) > largest:
                raise InputError(
                    f"{who}: {key}={getattr(self, key):,} is more than the layer {self.in_features} -> "
                    f"{self.out_features} has features; correct it, or search again."
                )


@dataclass(frozen=True)
class Architecture:
    """A Monarch shape per module; modules without an adapter are absent.

    Attributes:
        base_model: Name or path of the pretrained model.
        link: Link map of every adapter, "cyclic" or "monarch".
        modules: Module name, relative to the task model, to shape.
        params_fraction: Adapter parameters over the model's parameters.
        budget: ``{"params": int, "request": {...}}`` it was found under; ``cost`` and ``value`` in the place of
            ``params`` where it is counted in another cost.
        search: How it was found.
    """

    base_model: str
    link: str
    modules: Mapping[str, ModuleShape]
    params_fraction: float
    budget: Mapping[str, Any] = field(default_factory=dict)
    search: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_shapes(
        cls,
        shapes: Mapping[str, tuple[int, int]],
        linears: Mapping[str, tuple[int, int]],
        base_model: str,
        model_parameters: int,
        link: str = "cyclic",
    ) -> Architecture:
        """Write down an architecture of one's own.

        Args:
            shapes: Module name to ``(nblocks, blk_r)``, each at least 1.
            linears: Module name to ``(in_features, out_features)``, from ``morenas.target_linears`` say.
            base_model: Name or path of the pretrained model.
            model_parameters: Its parameters, the head's not counted.
            link: "cyclic" or "monarch".
        Raises:
            InputError: If a module is none of ``linears``.
        """
        if unknown := [name for name in shapes if name not in linears]:
            near = suggest(unknown[0], linears)
            raise InputError(f"Architecture: '{unknown[0]}' is no linear layer of '{base_model}'{near}.")
        modules = {name: ModuleShape(*shape, *linears[name]) for name, shape in shapes.items()}
        params = sum(shape.params for shape in modules.values())
        return cls(base_model, link, modules, params / model_parameters)

    def num_parameters(self) -> int:
        """Adapter parameters, head not counted."""
        return sum(shape.params for shape in self.modules.values())

    def shapes(self) -> dict[str, tuple[int, int]]:
        """Module name to ``(nblocks, blk_r)``."""
        return {name: (shape.nblocks, shape.blk_r) for name, shape in self.modules.items()}

    def check(self, linears: Mapping[str, tuple[int, int]]) -> None:
        """Refuse a model whose linear layers (name to ``(in, out)``) are not those of this architecture.

        Raises:
            InputError: Naming the modules that do not match.
        """
        wrong = []
        for name, shape in self.modules.items():
            if name not in linears:
                wrong.append(f"'{name}' is not there{suggest(name, linears)}")
            elif linears[name] != (shape.in_features, shape.out_features):
                here = "{} -> {}".format(*linears[name])
                wrong.append(
                    f"'{name}' is {here} here, {shape.in_features} -> {shape.out_features} in the architecture"
                )
        if wrong:
            more = f"; and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise InputError(
                f"The architecture was found for '{self.base_model}' and does not match this model: "
                f"{'; '.join(wrong[:5])}{more}. "
                "Use it with the model it was found for, or search again."
            )

    def to_json(self, path: str | Path) -> None:
        """Write ``architecture.json``, whole or not at all, checked against its schema."""
        write_json(path, self.document())

    def document(self) -> dict[str, Any]:
        """The JSON object that ``to_json`` writes."""
        document = {
            "format": FORMAT,
            "base_model": self.base_model,
            "link": self.link,
            "modules": {name: asdict(shape) for name, shape in self.modules.items()},
            "params": self.num_parameters(),
            "params_fraction": self.params_fraction,
            "budget": dict(self.budget),
            "search": dict(self.search),
        }
        validate(document, "architecture", source="architecture")
        return document

    @classmethod
    def from_json(cls, path: str | Path) -> Architecture:
        """Read ``architecture.json``.

        Raises:
            InputError: If it is missing, not JSON, of another version, or does not follow the schema.
        """
        document = read_json(path, "architecture")
        validate(document, "architecture", source=str(path))
        shapes = {name: {key: int(value) for key, value in of.items()} for name, of in document["modules"].items()}
        architecture = cls(
            base_model=document["base_model"],
            link=document["link"],
            modules={name: ModuleShape(**shape) for name, shape in shapes.items()},
            params_fraction=document["params_fraction"],
            budget=document["budget"],
            search=document["search"],
        )
        for name, shape in architecture.modules.items():
            shape.check(f"{path}: '{name}'")
        if architecture.num_parameters() != document["params"]:
            raise InputError(
                f"{path}: params={document['params']:,}, but its modules add up to {architecture.num_parameters():,}; "
                "the file was edited by hand: correct params or search again."
            )
        return architecture
