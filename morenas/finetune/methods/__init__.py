"""Ways to adapt a model, as values: our adapters, PEFT's own methods, everything, or the head alone.

A method is a dataclass whose fields are its settings, on a command line ``method.<field>``. It checks them when it is
made, and importing this package pulls in neither torch nor PEFT, so that a wrong setting is refused at once. What
the caller has to add, such as the shapes of an architecture, stands in a class of its own: ``ShapedMore``,
``RankedLora``.
"""

from morenas.finetune.methods.equal_lora import EqualLora, RankedLora, equal_parameter_lora
from morenas.finetune.methods.low_rank import AdaLora, Dora, GraLora, Lora, RsLora
from morenas.finetune.methods.method import Method, Targets, method_name
from morenas.finetune.methods.more import More, ShapedMore
from morenas.finetune.methods.orthogonal import Boft, Hra, Oft, Psoft
from morenas.finetune.methods.others import Full, Head
from morenas.finetune.methods.structured import C3a, FourierFt, LoHa, LoKr, Miss
from morenas.finetune.methods.tuner import Tuner
from morenas.finetune.methods.vectors import Ia3, UniLora, VbLora, Vera

__all__ = [
    "AdaLora",
    "Boft",
    "C3a",
    "Dora",
    "EqualLora",
    "FourierFt",
    "Full",
    "GraLora",
    "Head",
    "Hra",
    "Ia3",
    "LoHa",
    "LoKr",
    "Lora",
    "Method",
    "Miss",
    "More",
    "Oft",
    "Psoft",
    "RankedLora",
    "RsLora",
    "ShapedMore",
    "Targets",
    "Tuner",
    "UniLora",
    "VbLora",
    "Vera",
    "equal_parameter_lora",
    "method_name",
]
