"""Fine-tuning of what was found and of what it is compared with, in one harness."""

from morenas.training.attach import Parameters, attach, count_parameters
from morenas.training.equal_lora import equal_parameter_lora
from morenas.training.evaluate import ClassifierScorer, Scorer, predict
from morenas.training.finetune import FinetuneData, FinetuneResult, finetune
from morenas.training.language import LanguageScorer
from morenas.training.methods import (
    METHODS,
    AdaLora,
    Boft,
    Dora,
    Full,
    GraLora,
    Head,
    Lora,
    Method,
    More,
    build_method,
)
from morenas.training.saving import save_adapter
from morenas.training.settings import TrainingSettings

__all__ = [
    "METHODS",
    "AdaLora",
    "Boft",
    "ClassifierScorer",
    "Dora",
    "FinetuneData",
    "FinetuneResult",
    "Full",
    "GraLora",
    "Head",
    "LanguageScorer",
    "Lora",
    "Method",
    "More",
    "Parameters",
    "Scorer",
    "TrainingSettings",
    "attach",
    "build_method",
    "count_parameters",
    "equal_parameter_lora",
    "finetune",
    "predict",
    "save_adapter",
]
