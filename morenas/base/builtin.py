"""Every door, and what comes with morenas behind it: names to ``module:Name``, so that a list needs no import."""

from __future__ import annotations

BUILTIN: dict[str, dict[str, str]] = {
    "source": {
        "hub": "morenas.tasks.sources.hub:read_hub",
        "files": "morenas.tasks.sources.files:read_files",
        "demo": "morenas.tasks.sources.demo:read_demo",
    },
    "render": {
        "boolq": "morenas.tasks.sources.render:render_boolq",
        "piqa": "morenas.tasks.sources.render:render_piqa",
        "siqa": "morenas.tasks.sources.render:render_siqa",
        "hellaswag": "morenas.tasks.sources.render:render_hellaswag",
        "winogrande": "morenas.tasks.sources.render:render_winogrande",
        "arc": "morenas.tasks.sources.render:render_arc",
        "openbookqa": "morenas.tasks.sources.render:render_openbookqa",
        "gsm8k": "morenas.tasks.sources.render:render_gsm8k",
        "aqua": "morenas.tasks.sources.render:render_aqua",
        "mathqa": "morenas.tasks.sources.render:render_mathqa",
        "mawps": "morenas.tasks.sources.render:render_mawps",
        "svamp": "morenas.tasks.sources.render:render_svamp",
        "multiarith": "morenas.tasks.sources.render:render_multiarith",
    },
    "metric": {
        "accuracy": "morenas.tasks.metrics:accuracy",
        "f1": "morenas.tasks.metrics:f1",
        "matthews_correlation": "morenas.tasks.metrics:matthews_correlation",
        "pearson": "morenas.tasks.metrics:pearson",
        "spearman": "morenas.tasks.metrics:spearman",
        "generated_accuracy": "morenas.tasks.metrics:generated_accuracy",
        "log_likelihood": "morenas.tasks.metrics:log_likelihood",
    },
    "method": {
        "more": "morenas.finetune.methods.more:More",
        "lora": "morenas.finetune.methods.low_rank:Lora",
        "dora": "morenas.finetune.methods.low_rank:Dora",
        "adalora": "morenas.finetune.methods.low_rank:AdaLora",
        "gralora": "morenas.finetune.methods.low_rank:GraLora",
        "rslora": "morenas.finetune.methods.low_rank:RsLora",
        "vera": "morenas.finetune.methods.vectors:Vera",
        "vblora": "morenas.finetune.methods.vectors:VbLora",
        "unilora": "morenas.finetune.methods.vectors:UniLora",
        "ia3": "morenas.finetune.methods.vectors:Ia3",
        "c3a": "morenas.finetune.methods.structured:C3a",
        "fourierft": "morenas.finetune.methods.structured:FourierFt",
        "loha": "morenas.finetune.methods.structured:LoHa",
        "lokr": "morenas.finetune.methods.structured:LoKr",
        "miss": "morenas.finetune.methods.structured:Miss",
        "boft": "morenas.finetune.methods.orthogonal:Boft",
        "oft": "morenas.finetune.methods.orthogonal:Oft",
        "hra": "morenas.finetune.methods.orthogonal:Hra",
        "psoft": "morenas.finetune.methods.orthogonal:Psoft",
        "full": "morenas.finetune.methods.others:Full",
        "head": "morenas.finetune.methods.others:Head",
    },
    "relaxation": {
        "softmax": "morenas.supernet.relaxation:Softmax",
        "gumbel": "morenas.supernet.relaxation:Gumbel",
        "dirichlet": "morenas.supernet.relaxation:Dirichlet",
    },
    "hypergradient": {
        "first_order": "morenas.bilevel.hypergradients.first_order:first_order",
        "single_level": "morenas.bilevel.hypergradients.single_level:single_level",
        "mixed_level": "morenas.bilevel.hypergradients.mixed_level:MixedLevel",
        "unrolled": "morenas.bilevel.hypergradients.unrolled:Unrolled",
        "neumann": "morenas.bilevel.hypergradients.neumann:Neumann",
    },
    "selection": {
        "race": "morenas.selection.race:race",
        "surrogate": "morenas.selection.surrogate:surrogate",
        "perturbation": "morenas.selection.perturbation:perturbation",
        "playoff": "morenas.selection.playoff:playoff",
        "budgeted": "morenas.selection.budgeted:budgeted",
        "argmax": "morenas.selection.argmax:argmax",
    },
    "start": {
        "spectral": "morenas.search.start:SpectralStart",
        "level": "morenas.search.start:LevelStart",
    },
    "cost": {"params": "morenas.space.cost:Params"},
    "guard": {
        "none": "morenas.bilevel.guards:NoGuard",
        "entropy": "morenas.bilevel.guards:EntropyGuard",
        "curvature": "morenas.bilevel.guards:CurvatureGuard",
    },
    "tracker": {
        "local": "morenas.tracking.tracker:Local",
        "wandb": "morenas.tracking.wandb:WandbTracker",
        "tensorboard": "morenas.tracking.services:TensorBoard",
        "trackio": "morenas.tracking.services:Trackio",
        "mlflow": "morenas.tracking.services:MLflow",
        "aim": "morenas.tracking.services:Aim",
        "comet": "morenas.tracking.services:Comet",
        "swanlab": "morenas.tracking.services:SwanLab",
    },
}
"""Kind of door to name to where its object is defined."""

NEEDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "relaxation": ("morenas.supernet.Relaxation", ("scores", "logits", "mixing_probs")),
    "hypergradient": ("morenas.bilevel.Hypergradient", ("__call__",)),
    "selection": ("morenas.selection.Selection", ("__call__",)),
    "start": ("morenas.search.start.Start", ("__call__", "open_warmup")),
    "cost": ("morenas.space.Cost", ("__call__",)),
    "guard": ("morenas.bilevel.Guard", ("look", "reason", "state_tensors", "load_state_tensors")),
}
"""Kind of door to the protocol of its objects, and what an object must have to be one."""
