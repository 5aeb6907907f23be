"""Ways to adapt a model, as values: our adapters, PEFT's own methods, everything, or the head alone.

A method is a dataclass whose fields are its settings, on a command line ``method.<field>``. It checks them when it is
made, and importing this package pulls in neither torch nor PEFT, so that a wrong setting is refused at once. What
the caller has to add, such as the shapes of an architecture, stands in a class of its own: ``ShapedMore``,
``RankedLora``.
"""

from morenas.finetune.methods.equal_lora import RankedLora, equal_parameter_lora
from morenas.finetune.methods.low_rank import AdaLora, Dora, GraLora, Lora
from morenas.finetune.methods.method import Method, Targets, method_name
from morenas.finetune.methods.more import More, ShapedMore
from morenas.finetune.methods.others import Boft, Full, Head

__all__ = [
    "AdaLora",
    "Boft",
    "Dora",
    "Full",
    "GraLora",
    "Head",
    "Lora",
    "Method",
    "More",
    "RankedLora",
    "ShapedMore",
    "Targets",
    "equal_parameter_lora",
    "method_name",
]
