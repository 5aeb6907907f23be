"""What a classifier's head reads of a sequence: the first token, or the mean of all tokens.

The classifiers of transformers read the first token, or a pooler's view of it. Sentence encoders were trained with the
mean of the last hidden states over the tokens that are no padding: a head on their first token starts from far less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from morenas.base.errors import InputError, suggest
from morenas.base.kinds import CAUSAL, POOLINGS

if TYPE_CHECKING:
    from torch import Tensor, nn

RECORDED = "classifier_pooling"
"""Key of a model's config that says what its head reads; the name is ModernBERT's, which does this by itself."""


def check_pooling(pooling: str, kind: str) -> None:
    """Refuse a pooling that there is not, or that a kind of task has no use for.

    Raises:
        InputError: With the way out.
    """
    if pooling not in POOLINGS:
        raise InputError(f"model.pooling={pooling}: choose from {', '.join(POOLINGS)}{suggest(pooling, POOLINGS)}.")
    if pooling != "own" and kind in CAUSAL:
        raise InputError(f"model.pooling={pooling}: a task of kind {kind} has no classifier; leave model.pooling=own.")


def pool_by_mean(model: Any) -> None:
    """Let the head of a classifier read the mean of the last hidden states over the tokens of the attention mask.

    The mean takes the place of the pooler's output and, for heads that read it, of the first token. The config records
    it, so that a model that was saved whole is pooled again when ``load_pretrained`` loads it.

    Args:
        model: A classifier of transformers whose head reads the first token: the likes of BERT, RoBERTa, DistilBERT.
    Raises:
        InputError: If the model pools in a way of its own, or is no encoder.
    """
    name, config = type(model).__name__, model.config
    if hasattr(config, RECORDED) and config.model_type == "modernbert":
        setattr(config, RECORDED, "mean")
        return
    encoder = getattr(model, model.base_model_prefix, None)
    if encoder is None or config.is_encoder_decoder or name.endswith(("ForCausalLM",)) or _reads_last_token(model):
        raise InputError(
            f"model.pooling=mean: the head of {name} does not read the first token of an encoder. Leave "
            "model.pooling=own, or choose an encoder such as BERT, RoBERTa or DistilBERT."
        )
    setattr(config, RECORDED, "mean")
    if hasattr(encoder, "pooler"):
        encoder.pooler = None  # else it would be trained with the head, or counted, and never read
    encoder.register_forward_hook(_give_mean, with_kwargs=True)


def _reads_last_token(model: nn.Module) -> bool:
    """Decoders classify by their last token, through a head called ``score``."""
    return hasattr(model, "score")


def _give_mean(encoder: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
    hidden: Tensor = output[0]
    mask = kwargs.get("attention_mask")
    if mask is None and len(args) > 1:
        mask = args[1]
    weights = hidden.new_ones(hidden.shape[:2]) if mask is None else mask.to(hidden.dtype)
    mean = (hidden * weights[..., None]).sum(dim=1) / weights.sum(dim=1, keepdim=True).clamp(min=1)
    output["last_hidden_state"] = hidden.index_copy(1, weights.new_zeros(1).long(), mean[:, None])
    if hasattr(output, "pooler_output"):
        output["pooler_output"] = mean
    return output
