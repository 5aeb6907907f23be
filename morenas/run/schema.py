"""The typed configuration: every key a user can set, with its unit. Free of torch, so that ``--help`` is quick."""

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from omegaconf import MISSING

# OmegaConf reads the annotations at run time: builtin generics and Optional spelled with None are fine, Literal is not.
# A mapping of the user's own names is Any: OmegaConf neither adds keys to a typed one nor merges one into null.


class Granularity(Enum):
    module = "module"
    type = "type"
    layer = "layer"
    all = "all"


class RelaxationName(Enum):
    softmax = "softmax"
    gumbel = "gumbel"
    dirichlet = "dirichlet"


class Sharing(Enum):
    full = "full"
    per_nblocks = "per_nblocks"


class HypergradientName(Enum):
    first_order = "first_order"
    single_level = "single_level"
    mixed_level = "mixed_level"
    unrolled = "unrolled"
    neumann = "neumann"


class SelectionName(Enum):
    surrogate = "surrogate"
    perturbation = "perturbation"
    playoff = "playoff"
    budgeted = "budgeted"
    argmax = "argmax"


class Start(Enum):
    spectral = "spectral"
    level = "level"


class Stop(Enum):
    none = "none"
    entropy = "entropy"
    curvature = "curvature"


class Init(Enum):
    inherit = "inherit"
    fresh = "fresh"


class Compare(Enum):
    auto = "auto"
    none = "none"
    lora = "lora"


class Kind(Enum):
    classification = "classification"
    regression = "regression"
    choice = "choice"
    generation = "generation"


class Answer(Enum):
    choice = "choice"
    number = "number"
    letter = "letter"
    text = "text"


class Prompt(Enum):
    auto = "auto"
    chat = "chat"
    alpaca = "alpaca"
    plain = "plain"


class Dtype(Enum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Quantization(Enum):
    none = "none"
    bnb_4bit = "bnb_4bit"
    bnb_8bit = "bnb_8bit"
    int8 = "int8"


class Source(Enum):
    hub = "hub"
    files = "files"
    demo = "demo"


class WandbMode(Enum):
    auto = "auto"
    online = "online"
    offline = "offline"
    disabled = "disabled"


class MethodName(Enum):
    more = "more"
    lora = "lora"
    dora = "dora"
    adalora = "adalora"
    gralora = "gralora"
    boft = "boft"
    full = "full"
    head = "head"


@dataclass
class TaskConfig:
    name: str = MISSING  # as in +task=<name>
    kind: Kind = Kind.classification
    text_columns: list[str] = MISSING  # one or two columns; of records, those that make up the prompt
    label_column: str = "label"
    label_names: list[str] | None = None  # in label order; null: taken from the data
    metrics: list[str] = MISSING  # the first is maximized
    source: Source = Source.files
    hub_path: str | None = None  # data set on the Hugging Face hub
    hub_name: str | None = None  # its configuration
    train_split: str = "train"
    test_splits: Any = None  # name in the results: split on the hub; null: test
    data_dir: str | None = None  # folder of jsonl, json, csv, tsv or parquet files, read in place of the hub
    train_file: str | None = None  # file in data_dir; null: train.*
    test_files: Any = None  # name in the results: file in data_dir; null: validation.*, else test.*
    search_val: float = 0.30  # fraction of the train split that the architecture is trained on
    select: float = 0.15  # fraction of the train split that checkpoints and candidates are chosen on
    max_examples: int | None = None  # take a seeded sample of the train split; null: all of it
    max_length: int = 128  # tokens; of a record, prompt and output together
    select_metric: str | None = None  # chooses checkpoints on the select split; null: the first of metrics
    folder: str | None = None  # of the task inside data_dir, looked into where it is there; null: the name's last part
    mix: Any = None  # name of a part: {fields in which it differs}; trained on together, tested one by one
    # Of kind choice and generation, whose examples are records of instruction, input, output and answer:
    render: str | None = None  # turns the rows of a hub data set into records; null: they are records
    choices: list[str] | None = None  # where a record names none ("Answer format: a/b"); null: those of train
    continuation: str = "the correct answer is {answer}"  # what a choice is scored as
    answer: Answer = Answer.choice  # how an answer is read out of generated text
    prompt: Prompt = Prompt.auto  # auto: the tokenizer's chat template, else alpaca
    max_new_tokens: int = 32  # tokens generated at most
    truncate: bool = False  # cut a prompt that is too long from the left; false: refuse it


@dataclass
class ModelConfig:
    name_or_path: str = MISSING  # name on the hub, a local folder, or "demo"
    attn_implementation: str | None = None  # "eager", "sdpa" …; null: the library's choice
    dtype: Dtype = Dtype.float32  # of the frozen weights; adapters stay in float32
    quantization: Quantization = Quantization.none  # of the frozen weights; bnb_*: bitsandbytes, int8: torchao
    device_map: str | None = None  # "auto" …: accelerate spreads the model over devices; null: one device


@dataclass
class SpaceConfig:
    nblocks: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16])
    ranks: list[int] = field(default_factory=lambda: [0, 1, 2, 4, 8])  # 0: the module may go without an adapter
    granularity: Granularity = Granularity.module
    target_modules: Any = (
        "all-linear"  # "all-linear", "auto" (PEFT's choice for the model type), a list of names, or a regex
    )
    exclude_modules: Any = None  # a list of names, or a regex
    pad: bool = True  # allow block counts that do not divide a feature count


@dataclass
class BudgetConfig:
    params: int | None = None  # adapter parameters
    fraction: float | None = None  # of the model's parameters, or of a LoRA's where lora_rank is set
    lora_rank: int | None = None  # rank of the LoRA on the same modules that fraction refers to


@dataclass
class RelaxationConfig:
    name: RelaxationName = RelaxationName.softmax
    sharing: Sharing = Sharing.per_nblocks  # full: block counts share their factors; for search.start=level alone
    temperature_start: float = 1.0
    temperature_end: float = 0.2


@dataclass
class HypergradientConfig:
    name: HypergradientName = HypergradientName.first_order


@dataclass
class SelectionConfig:
    name: SelectionName = SelectionName.surrogate


@dataclass
class SearchConfig:
    steps: int | None = None  # weight steps; null: steps_fraction of the final fine-tune's
    steps_fraction: float = 0.65  # of the final fine-tune's optimizer steps
    start: Start = Start.spectral  # logits from closed-form scores of what the warm-up learns; level: from zero
    warmup: float | None = None  # fraction of the weight steps before the first architecture step; null: 1, level: 0.2
    every: int = 2  # weight steps between architecture steps
    arch_learning_rate: float = 0.1
    learning_rate: float | None = None  # of the weights; null: training.learning_rate
    measurements: int | None = (
        None  # architectures whose loss a selection measures; null: 0.15 of the steps; in a short search more, up to 12
    )
    playoff: int = 4  # architectures that selection=playoff trains alone
    playoff_steps: int | None = None  # weight steps of each of them; null: 0.05 of the search's
    stop: Stop = Stop.none  # ends the architecture steps before their time, and selects
    stop_entropy: float = 0.05  # stop=entropy: below so many nats, mean over the groups
    stop_curvature: float = 1.3  # stop=curvature: once a moving average is above so many times its earlier value
    stop_every: int = 5  # architecture steps between looks at the curvature, of six gradients each
    checkpoint_every: int = 50  # weight steps


@dataclass
class TrainingConfig:
    learning_rate: float = 1e-3
    epochs: float = 3.0
    max_steps: int | None = None  # optimizer steps; null: as many as epochs give
    batch_size: int = 16  # examples per optimizer step and micro-batch
    eval_batch_size: int = 64  # examples
    gradient_accumulation: int = 1  # micro-batches per optimizer step
    weight_decay: float = 1e-3
    warmup_ratio: float = 0.06  # fraction of the optimizer steps
    scheduler: str = "cosine"  # a schedule of transformers
    max_grad_norm: float = 1.0  # gradients are scaled down to it; 0: as they are
    evals: int = 3  # evaluations on the select split over the run; the best is kept
    checkpoint_every: int = 200  # optimizer steps; one is kept at each evaluation too
    gradient_checkpointing: bool = False  # compute activations anew in the backward pass: less memory, a third slower
    bf16: bool = False  # autocast; for GPUs, and processors with AVX512-bf16 or AMX
    init: Init = Init.inherit  # of the final adapter: from the supernet, or fresh


@dataclass
class CompareConfig:
    learning_rate: float | None = None  # of the compared LoRA; null: training.learning_rate
    alpha: float | None = None  # of the compared LoRA; null: twice its rank


@dataclass
class WandbConfig:
    mode: WandbMode = WandbMode.auto
    project: str = "morenas"
    entity: str | None = None
    group: str | None = None  # null: the sweep's name in a sweep
    tags: list[str] = field(default_factory=list)


@dataclass
class TrackingConfig:
    name: str = "wandb"  # what metrics go to beside the JSON lines; local: nothing
    wandb: WandbConfig = field(default_factory=WandbConfig)


@dataclass
class MethodConfig:
    name: MethodName = MethodName.more
    target_modules: Any = "all-linear"  # as space.target_modules; an architecture brings its own
    exclude_modules: Any = None
    rank: int = 8
    alpha: float | None = None  # null: twice the rank
    dropout: float = 0.0
    block_size: int = 4  # boft: width of a block


@dataclass
class RunConfig:
    """What a search and a fine-tune share."""

    seed: int = 0
    device: str = "auto"  # auto, cpu, cuda, cuda:N, mps
    threads: int | None = None  # processor threads; null: torch's choice
    task: TaskConfig = field(default_factory=TaskConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    resume: str | None = None  # run directory to go on with; takes no other argument


@dataclass
class SearchRunConfig(RunConfig):
    space: SpaceConfig = field(default_factory=SpaceConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    relaxation: RelaxationConfig = field(default_factory=RelaxationConfig)
    hypergradient: HypergradientConfig = field(default_factory=HypergradientConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    compare: Compare = Compare.auto  # fine-tune this beside ours, at equal parameters; auto: LoRA in the demo
    comparison: CompareConfig = field(default_factory=CompareConfig)


@dataclass
class FinetuneRunConfig(RunConfig):
    method: MethodConfig = field(default_factory=MethodConfig)
    architecture: str | None = None  # architecture.json of a search, for method=more
