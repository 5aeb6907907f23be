"""Pretrained models: where they come from, how their weights are kept, and the linear layers adapters may go to.

Importing this package loads neither torch nor transformers, so that a model that cannot be had is refused at once.
"""

from morenas.models.load import Pretrained, is_causal, load_pretrained
from morenas.models.source import ModelSource, hub_need, resolve_model
from morenas.models.targets import target_linears

__all__ = ["ModelSource", "Pretrained", "hub_need", "is_causal", "load_pretrained", "resolve_model", "target_linears"]
