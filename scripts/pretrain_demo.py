"""Pretrain the demo's small transformer by masked language modelling and write it as a model folder.

    python scripts/pretrain_demo.py --output morenas/assets/demo

Takes about five minutes on one core. A rerun gave other weights, with which the demo's task was harder to learn (see
experiments/LOG.md): run the demo before replacing the packaged ones.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast, RobertaConfig, RobertaForMaskedLM

from morenas.base.files import whole_directory
from morenas.tasks.sources.demo import FILLERS, WORDS, pretraining_texts

SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
HELD_OUT_SEED = 1  # the training stream has seed 0


def main() -> None:
    arguments = parse_arguments()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    tokenizer = build_tokenizer()
    model = RobertaForMaskedLM(build_config(arguments.width, arguments.layers))
    held_out = encode(tokenizer, list(itertools.islice(pretraining_texts(HELD_OUT_SEED), 1000)))
    pretrain(model, tokenizer, arguments.steps, arguments.batch_size, arguments.learning_rate, held_out)
    accuracy = look_up_accuracy(model, tokenizer, held_out)
    save(model, tokenizer, arguments.output, accuracy, arguments)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--steps", type=int, default=1500, help="optimizer steps")
    parser.add_argument("--batch-size", type=int, default=64, help="texts per step")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0, help="of the weights and of masking")
    return parser.parse_args()


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; pairs are joined as RoBERTa joins them, with one separator."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True)),
    )


def build_config(width: int, layers: int) -> RobertaConfig:
    return RobertaConfig(
        vocab_size=len(SPECIAL) + len(WORDS),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=width // 32,
        intermediate_size=4 * width,
        max_position_embeddings=66,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[tuple[str, str]]) -> Tensor:
    """Token ids, ``(texts, length)``: all texts of the language are equally long."""
    first, second = zip(*texts, strict=True)
    return tokenizer(list(first), list(second), return_tensors="pt")["input_ids"]


def mask(ids: Tensor, tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Mask words that carry meaning, a tenth of the first text and a third of the second; inputs and labels."""
    second = torch.arange(ids.shape[1]) >= ids.shape[1] // 2
    chance = torch.where(second, 0.35, 0.1).expand(ids.shape)
    fillers = torch.tensor(tokenizer.convert_tokens_to_ids(list(FILLERS)))
    words = (ids >= len(SPECIAL)) & ~torch.isin(ids, fillers)
    chosen = (torch.rand(ids.shape) < chance) & words
    return ids.masked_fill(chosen, tokenizer.mask_token_id), ids.masked_fill(~chosen, -100)


def pretrain(
    model: RobertaForMaskedLM,
    tokenizer: PreTrainedTokenizerFast,
    steps: int,
    batch_size: int,
    learning_rate: float,
    held_out: Tensor,
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = transformers.get_cosine_schedule_with_warmup(optimizer, steps // 20, steps)
    texts, began = pretraining_texts(0), time.perf_counter()
    for step in range(1, steps + 1):
        inputs, labels = mask(encode(tokenizer, list(itertools.islice(texts, batch_size))), tokenizer)
        loss = model(input_ids=inputs, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 200 == 0:
            seconds = time.perf_counter() - began
            accuracy = look_up_accuracy(model, tokenizer, held_out)
            print(f"step {step}/{steps}  loss {loss.item():.3f}  look-up {accuracy:.3f}  {seconds:.0f} s", flush=True)


@torch.no_grad()
def look_up_accuracy(model: RobertaForMaskedLM, tokenizer: PreTrainedTokenizerFast, ids: Tensor) -> float:
    """How often the model fills in the colour of the last fact, which only a look-up in the premise tells."""
    colour = ids.shape[1] - 4
    masked = ids.clone()
    masked[:, colour] = tokenizer.mask_token_id
    model.eval()
    predicted = model(input_ids=masked).logits[:, colour].argmax(dim=-1)
    model.train()
    return float((predicted == ids[:, colour]).float().mean())


def save(
    model: RobertaForMaskedLM,
    tokenizer: PreTrainedTokenizerFast,
    output: Path,
    accuracy: float,
    arguments: argparse.Namespace,
) -> None:
    """Write the encoder, without its language-model head, in half precision, and a README."""
    with whole_directory(output) as folder:
        model.roberta.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        (folder / "README.md").write_text(
            "# The demo's pretrained encoder\n\n"
            f"A RoBERTa of {arguments.layers} layers, width {arguments.width}, "
            f"{sum(p.numel() for p in model.roberta.parameters()):,} parameters in float16, pretrained by masked "
            "language\n"
            "modelling on the controlled language of `morenas/tasks/sources/demo.py`. Made by\n\n"
            f"    python scripts/pretrain_demo.py --output morenas/assets/demo --steps {arguments.steps} "
            f"--seed {arguments.seed}\n\n"
            f"with torch {torch.__version__.split('+')[0]} and transformers {transformers.__version__}. On "
            "held-out text it "
            f"fills in the colour of a stated fact with\naccuracy {accuracy:.3f}; guessing among the premise's "
            "three gives 0.333.\n"
        )


if __name__ == "__main__":
    main()
