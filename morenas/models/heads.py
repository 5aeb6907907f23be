"""The head that a task puts onto a pretrained network: which modules it is, and how many labels it has."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from morenas.models.quiet import quiet_transformers
from morenas.models.source import ModelSource, cannot_load

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel


def find_head(model: nn.Module, new_keys: Iterable[str] = ()) -> tuple[str, ...]:
    """Name the modules that a task trains with any adapter, in module order.

    Args:
        model: A task model.
        new_keys: Parameters that are in no checkpoint.
    Returns:
        Modules with parameters outside the pretrained network (``base_model_prefix``), and inside it those
        whose own parameters are new, such as a pooler that the checkpoint lacks.
    """
    prefix = getattr(model, "base_model_prefix", "")
    head = {key.rpartition(".")[0] for key in new_keys}
    if prefix and hasattr(model, prefix):
        outside = {
            name for name, child in model.named_children() if name != prefix and any(True for _ in child.parameters())
        }
        head = {name for name in head if name.partition(".")[0] not in outside} | outside
    return tuple(name for name, _ in model.named_modules() if name in head)


def pretrained_parameters(model: nn.Module, head: Sequence[str]) -> int:
    """Parameters of a model before any adapter is put into it, its head not counted."""
    known: Any = model
    # transformers knows how many parameters a quantized weight stands for
    count = known.num_parameters() if hasattr(model, "num_parameters") else _count(model)
    return int(count) - sum(_count(model.get_submodule(name)) for name in head)


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def head_config(num_labels: int, label_names: Sequence[str] | None, kind: str) -> dict[str, Any]:
    """What a classifier's config says of its labels."""
    if kind == "regression":
        return {"num_labels": 1, "problem_type": "regression"}
    names = list(label_names) if label_names else [f"LABEL_{index}" for index in range(num_labels)]
    return {
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
        "problem_type": "single_label_classification",
    }


def start_at(model: nn.Module, new_keys: Iterable[str], value: float) -> None:
    """Let a new head of one output begin near a value: in the bias of its last layer, where that has one.

    From zero, labels about 3 would first of all have every adapter push the same way, far beyond what it learns later.

    Args:
        new_keys: Parameters that are in no checkpoint.
    """
    import torch

    biases = [model.get_parameter(key) for key in new_keys if key.endswith("bias")]
    with torch.no_grad():
        for bias in biases:
            if bias.shape == (1,):
                bias.fill_(value)


def head_to_come(source: ModelSource, labels: Mapping[str, Any]) -> tuple[str, ...]:
    """The head that a classifier will have, found without its weights: quantization must know it before they load."""
    return find_head(_skeleton(source, labels))


def count_labels(source: ModelSource, head: Mapping[str, Tensor]) -> int:
    """The number of labels with which a classifier's head has the shapes of a trained one.

    A head of several layers may be wider than it has labels, or have more labels than it is wide.

    Args:
        head: Trained tensors, by name in the task model.
    """
    sizes = sorted({len(tensor) for tensor in head.values() if tensor.ndim})
    if len(sizes) < 2:
        return sizes[0] if sizes else 2

    def misfits(size: int) -> int:
        made = _skeleton(source, head_config(size, None, "regression" if size == 1 else "classification")).state_dict()
        return sum(made[name].shape != tensor.shape for name, tensor in head.items() if name in made)

    return min(sizes, key=misfits)


def _skeleton(source: ModelSource, labels: Mapping[str, Any]) -> PreTrainedModel:
    """A classifier without its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(source.location, **source.options, **labels)
            with torch.device("meta"):
                model: PreTrainedModel = AutoModelForSequenceClassification.from_config(
                    config, trust_remote_code=source.trusted
                )
                return model
        except Exception as error:  # of any kind: what the libraries raise shares no base
            raise cannot_load(source, "model", error) from error
