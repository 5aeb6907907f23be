"""Search an adapter architecture in a program of one's own, train it with transformers' Trainer, leave with a LoRA.

    python examples/search_then_trainer.py [--model <folder or name on the hub>] [--out <folder>]

Downloads nothing by default: the model and the words of this toy task are those of the package's demo.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

import morenas

WORDS = (["mia", "tom", "eva", "max"], ["keeps", "sells", "finds"], ["red", "blue", "gold"], ["box", "key", "cup"])


def examples(tokenizer: Any, count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs of texts; the label is 1 where the first says what the second says."""
    rng, rows = random.Random(seed), []
    for number in range(count):
        drawn = [rng.sample(words, 3) for words in WORDS]
        facts = [f"{who} {does} the {colour} {thing} ." for who, does, colour, thing in zip(*drawn, strict=True)]
        asked, label = rng.choice(facts), number % 2
        missing = next(name for name in WORDS[0] if name not in drawn[0])
        claim = asked if label else f"{missing} {asked.partition(' ')[2]}"
        rows.append({**tokenizer(" ".join(facts), claim), "labels": label})
    return rows


@torch.no_grad()
def logits(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    """Logits of a batch, ``(examples, labels)``."""
    found: torch.Tensor = model.eval().cpu()(**batch).logits
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--steps", type=int, default=60, help="of the search; the Trainer takes twice as many")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} is there already; name another folder: --out")

    base = morenas.load_pretrained(args.model, num_labels=2)  # or any model of transformers
    model: Any = base.model
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    collate = DataCollatorWithPadding(base.tokenizer)
    train, held_out = examples(base.tokenizer, 800, seed=0), examples(base.tokenizer, 200, seed=1)

    # 1. Search, within a twentieth of the parameters of a LoRA of rank 32 on the same layers.
    space = morenas.build_space(morenas.target_linears(model, exclude=base.head), nblocks=[1, 2, 4], ranks=[0, 1, 2, 4])
    outcome = morenas.search_architecture(
        model,
        morenas.numbered_batches(train[:500], 16, collate),
        morenas.numbered_batches(train[500:], 16, collate),
        space,
        morenas.Budget.resolve(space, lora_rank=32, fraction=0.05),
        morenas.SearchSettings(steps=args.steps, warmup=args.steps, learning_rate=3e-3),
        head=base.head,
    )
    outcome.architecture.to_json(args.out / "architecture.json")
    print(f"found: adapters on {len(outcome.shapes)} of {len(space.modules)} layers, {outcome.params:,} parameters")

    # 2. Train, from the factors and the head that the search has trained already.
    model.load_state_dict(outcome.head, strict=False)
    adapted = get_peft_model(model, morenas.MoReConfig.from_architecture(outcome, modules_to_save=list(base.head)))
    morenas.set_factors(adapted, outcome.factors)
    arguments = TrainingArguments(
        str(args.out / "trainer"),
        max_steps=2 * args.steps,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        save_strategy="no",
        report_to="none",
    )
    Trainer(adapted, arguments, train_dataset=train, data_collator=collate).train()

    # 3. Leave with a LoRA, which needs no morenas to be loaded.
    morenas.to_lora(adapted, args.out / "lora")
    lora = PeftModel.from_pretrained(morenas.load_pretrained(args.model, num_labels=2).model, str(args.out / "lora"))
    batch = collate(held_out)
    labels, ours, theirs = batch.pop("labels"), logits(adapted, batch), logits(lora, batch)
    print(f"accuracy on {len(labels)} held-out examples: {(ours.argmax(1) == labels).float().mean():.3f}")
    print(f"largest difference between the logits of MoRe and LoRA: {(ours - theirs).abs().max():.1e}")


if __name__ == "__main__":
    main()
