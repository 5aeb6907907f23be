"""Register the adapter with PEFT as soon as PEFT is there, without importing it.

``import morenas`` must stay quick, and ``PeftModel.from_pretrained`` must know our adapters after it, in whichever
order the two are imported. If PEFT is imported already, the method is registered at once; if not, a finder at the
head of ``sys.meta_path`` waits for that import and registers when it is done. Being looked for is not being imported:
transformers asks for PEFT's spec whenever it loads a model, so the finder stays until the module has run.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType


class _Loader(importlib.abc.Loader):
    """The loader of peft, followed by the registration."""

    def __init__(self, inner: importlib.abc.Loader, finder: _Finder) -> None:
        self.inner, self.finder = inner, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.inner  # what reads a module's source or files asks its loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.inner
        self.inner.exec_module(module)
        if self.finder in sys.meta_path:
            sys.meta_path.remove(self.finder)
        _register()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds peft by all other finders and wraps its loader."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "peft":
            return None
        found = (finder.find_spec(fullname, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec


def _register() -> None:
    import morenas.adapters  # noqa: F401


def register_with_peft() -> None:
    """Register now, or when PEFT is imported."""
    if "peft" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Finder())
