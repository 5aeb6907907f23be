"""A training loop of one's own, by accelerate: a MoRe adapter beside a frozen bfloat16 or quantized language model.

    accelerate launch examples/accelerate_loop.py [--model <folder or name>] [--quantize 4bit] [--out <folder>]

Downloads nothing by default: a tiny model that reads letter by letter is made on the spot.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    DataCollatorForLanguageModeling,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

import morenas

TEXTS = [f"{a} and {b} make {a + b}." for a in range(20) for b in range(20)]
QUANTIZED = {
    "4bit": BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16),
    "8bit": BitsAndBytesConfig(load_in_8bit=True),
}


def tiny_model(folder: Path) -> None:
    """Write a language model of two layers with random weights, and its tokenizer."""
    symbols = ["<unk>", "<eos>", *sorted(set("".join(TEXTS)))]
    letters = Tokenizer(models.WordLevel({symbol: place for place, symbol in enumerate(symbols)}, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    PreTrainedTokenizerFast(tokenizer_object=letters, unk_token="<unk>", eos_token="<eos>").save_pretrained(folder)
    sizes: Any = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaForCausalLM(LlamaConfig(vocab_size=len(symbols), eos_token_id=1, **sizes)).save_pretrained(folder)


def adapted_model(name: str, quantize: str | None, architecture: str | None) -> Any:
    """The frozen model with an adapter, whose own weights PEFT keeps in float32."""
    model: Any = AutoModelForCausalLM.from_pretrained(
        name, dtype=torch.bfloat16, use_cache=False, quantization_config=QUANTIZED.get(quantize or "")
    )
    model.gradient_checkpointing_enable({"use_reentrant": False})
    if architecture:  # an architecture.json that a search wrote
        return get_peft_model(model, morenas.MoReConfig.from_architecture(architecture, task_type="CAUSAL_LM"))
    config = morenas.MoReConfig(nblocks=4, blk_r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="default: a tiny one, made on the spot")
    parser.add_argument("--quantize", choices=QUANTIZED, help="default: bfloat16")
    parser.add_argument("--architecture", help="an architecture.json; default: 4 blocks of rank 2 everywhere")
    parser.add_argument("--out", type=Path, default=Path("out"))
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()

    accelerator = Accelerator()
    if accelerator.is_main_process and args.out.exists():
        parser.error(f"{args.out} is there already; name another folder: --out")
    torch.manual_seed(0)
    if accelerator.is_main_process and not args.model:
        tiny_model(args.out / "tiny")
    accelerator.wait_for_everyone()
    name = args.model or str(args.out / "tiny")
    tokenizer: Any = AutoTokenizer.from_pretrained(name)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    rows: Any = [tokenizer(text) for text in TEXTS]
    collate: Any = DataCollatorForLanguageModeling(tokenizer, mlm=False)

    model = adapted_model(name, args.quantize, args.architecture)
    optimizer: Any = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    loader: Any = DataLoader(rows, batch_size=16, shuffle=True, collate_fn=collate)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    for epoch in range(args.epochs):
        model.train()
        for batch in loader:
            loss = model(**batch).loss
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        accelerator.print(f"epoch {epoch + 1}: loss {loss.item():.3f}")

    if accelerator.is_main_process:
        trained = accelerator.unwrap_model(model).eval()
        trained.save_pretrained(str(args.out / "adapter"))
        morenas.to_merged(args.out / "adapter", args.out / "merged")  # into the base model's weights in float32
        merged = AutoModelForCausalLM.from_pretrained(args.out / "merged").to(accelerator.device)
        with torch.no_grad():
            batch = collate(rows[:64]).to(accelerator.device)
            losses = [float(one(**batch).loss) for one in (trained, merged)]
        print("loss with the adapter {:.3f}, merged into the model {:.3f}".format(*losses))


if __name__ == "__main__":
    main()
