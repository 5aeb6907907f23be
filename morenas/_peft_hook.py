"""Register the adapter with PEFT as soon as PEFT is there, without importing it.

``import morenas`` must stay quick, and ``PeftModel.from_pretrained`` must know our adapters after it, in whichever
order the two are imported. If PEFT is imported already, the method is registered at once; if not, a finder at the
head of ``sys.meta_path`` waits for that import and registers when it is done.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType


class _Loader(importlib.abc.Loader):
    """The loader of peft, followed by the registration."""

    def __init__(self, inner: importlib.abc.Loader) -> None:
        self.inner = inner

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self.inner.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.inner.exec_module(module)
        _register()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds peft by all other finders, once, and hands its loader on."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != "peft":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


def _register() -> None:
    import morenas.adapters  # noqa: F401


def register_with_peft() -> None:
    """Register now, or when PEFT is imported."""
    if "peft" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Finder())
