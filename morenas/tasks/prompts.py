"""From records to token ids: a prompt that carries no loss, then the output that is learnt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset, Features, List, Value
from transformers import PreTrainedTokenizerBase

from morenas.base.errors import InputError
from morenas.tasks.records import RECORD_TEXTS
from morenas.tasks.spec import TaskSpec
from morenas.tasks.spelling import check_spelling, marks_of

IGNORED = -100  # label of a token that carries no loss
_TASK = "Below is an instruction that describes a task"
_WRITE = "Write a response that appropriately completes the request.\n\n### Instruction:\n"
# With today's date in its prompts, a run that is resumed on another day would not train on what it began with. With a
# template's room for thinking, the model would be trained to put the answer there.
TEMPLATE: dict[str, Any] = {"date_string": "26 Jul 2024", "enable_thinking": False}
_IDS = List(Value("int64"))
ENCODED = Features(
    {
        "input_ids": _IDS,
        "attention_mask": _IDS,
        "labels": _IDS,
        "prompt_length": Value("int64"),
        "choice_ids": List(_IDS),
        "correct": Value("int64"),
        "answer": Value("string"),
        "choices": List(Value("string")),
    }
)


def alpaca_prompt(instruction: str, given: str) -> str:
    """The prompt of Stanford Alpaca (Taori et al. 2023)."""
    if not given.strip():
        return f"{_TASK}. {_WRITE}{instruction}\n\n### Response:\n"
    context = "paired with an input that provides further context"
    return f"{_TASK}, {context}. {_WRITE}{instruction}\n\n### Input:\n{given}\n\n### Response:\n"


def plain_prompt(instruction: str, given: str) -> str:
    """Instruction and input, each on lines of its own."""
    return f"{instruction}\n{given}\n" if given.strip() else f"{instruction}\n"


def prompt_texts(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, spec: TaskSpec) -> tuple[list[str], bool]:
    """The prompt of every record, and whether it holds its special tokens itself, as a chat template's does.

    Raises:
        InputError: If ``spec.prompt`` is "chat" and the tokenizer has no template, or its template fails.
    """
    pairs = list(zip(dataset["instruction"], dataset["input"], strict=True))
    if spec.prompt == "chat" or (spec.prompt == "auto" and tokenizer.chat_template):
        return _chats(pairs, tokenizer), True
    write = plain_prompt if spec.prompt == "plain" else alpaca_prompt
    return [write(*pair) for pair in pairs], False


def encode_records(dataset: Dataset, tokenizer: PreTrainedTokenizerBase, spec: TaskSpec, train: bool) -> Dataset:
    """Tokenize records, in their order.

    Prompt and output are tokenized apart and joined, in training and evaluation alike: what is generated after a
    prompt begins where the output began in training. The prompt has the tokenizer's special tokens at its start and
    none at its end; the output ends in the end-of-sequence token, where there is one.

    Args:
        dataset: Of ``check_records``.
        train: Whether the records are trained on. If not, there must be room after the prompt for every choice and for
            ``spec.max_new_tokens``.
    Returns:
        Columns, not padded:
        ``input_ids``, ``attention_mask``, ``labels`` (-100 on the prompt) of prompt and output, or of the prompt alone
        where a record has no output; ``prompt_length``; ``choice_ids`` (the tokens of every choice's continuation, the
        end of sequence included); ``correct`` (place of the answer in ``choices``, -1 without choices); ``answer``,
        ``choices`` (texts).
    Raises:
        InputError: If records are too long and ``spec.truncate`` is false, with their number; if nothing would be
            left of a prompt; or if a text spells a special token.
    """
    check_spelling(marks_of(tokenizer), *(list(dataset[name]) for name in RECORD_TEXTS))
    texts, chat = prompt_texts(dataset, tokenizer, spec)
    head = [] if chat else leading_tokens(tokenizer)
    prompts = [head + ids for ids in _tokens(tokenizer, texts)]
    outputs = _outputs(dataset["output"], tokenizer)
    choices = _choice_tokens(dataset["choices"], tokenizer, spec.continuation)
    room = [0 if train else max(spec.max_new_tokens, *map(len, ids), 0) for ids in choices]
    window = _Window(spec, tokenizer, len(head) or int(_starts_with_bos(prompts, tokenizer)))
    records = list(zip(prompts, outputs, room, strict=True))
    if spec.truncate:
        pairs = [window.cut(*record) for record in records]
    else:
        window.check([len(prompt) + max(len(output), needed) for prompt, output, needed in records], train)
        pairs = [(prompt, output) for prompt, output, _ in records]
    return Dataset.from_dict(_columns(dataset, pairs, choices), ENCODED)


def leading_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that a tokenizer puts before a text."""
    text = "a"
    whole, bare = (list(tokenizer(text, add_special_tokens=special)["input_ids"]) for special in (True, False))
    starts = range(len(whole) - len(bare) + 1)
    return next((whole[:at] for at in starts if whole[at : at + len(bare)] == bare), [])


@dataclass(frozen=True)
class _Window:
    """How many tokens a record may have; ``kept`` of them, at the start of the prompt, are never cut."""

    spec: TaskSpec
    tokenizer: PreTrainedTokenizerBase
    kept: int

    @property
    def limit(self) -> int:
        return int(min(self.spec.max_length, self.tokenizer.model_max_length))

    def check(self, lengths: Sequence[int], train: bool) -> None:
        """Refuse records that are too long, all of them at once."""
        long = [length for length in lengths if length > self.limit]
        if not long:
            return
        short = self.limit < self.spec.max_length
        raised = f"the model takes no more than {self.limit:,}" if short else "raise task.max_length"
        parts = "prompt and output" if train else "the prompt and the room for its answer (task.max_new_tokens)"
        raise InputError(
            f"{len(long):,} of {len(lengths):,} records of {self.spec.name} {'to train on' if train else 'to test on'} "
            f"have more than {self.limit:,} tokens, {parts} together (the longest: {max(long):,}); {raised}"
            f"{';' if short else ', or'} cut prompts from the left by task.truncate=true."
        )

    def cut(self, prompt: list[int], output: list[int], room: int) -> tuple[list[int], list[int]]:
        """Cut a prompt from the left, at least one token of it staying; an output too long for that, at its end.

        Args:
            room: Tokens to keep free after the prompt, even if the output is shorter.
        """
        least = min(len(prompt), self.kept + 1)
        if self.limit < least + max(room, 1):
            raise InputError(
                f"{self.spec.name}: {self.limit} tokens leave no room for a prompt before the {max(room, 1)} that "
                "follow it; raise task.max_length, or lower task.max_new_tokens."
            )
        output = output[: self.limit - least]
        size = self.limit - max(len(output), room)
        return prompt if len(prompt) <= size else prompt[: self.kept] + prompt[len(prompt) - size + self.kept :], output


def _chats(pairs: Sequence[tuple[str, str]], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    if not tokenizer.chat_template:
        raise InputError(
            "task.prompt=chat: the model's tokenizer has no chat template; use task.prompt=alpaca or plain, or a model "
            "that was tuned for chats."
        )
    messages = [instruction + (f"\n\n{given}" if given.strip() else "") for instruction, given in pairs]
    chats = [[{"role": "user", "content": message}] for message in messages]
    try:
        texts: Any = tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True, **TEMPLATE)
    except Exception as error:  # the template's own code may raise anything
        raise InputError(
            f"task.prompt: the model's chat template refuses a user's message ({error}); use task.prompt=alpaca."
        ) from error
    return list(texts)


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids without special tokens, one list a text."""
    if not texts:
        return []
    ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]
    return [list(row) for row in ids]


def _outputs(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[list[int]]:
    end = _end(tokenizer)
    return [ids + end if text else [] for text, ids in zip(texts, _tokens(tokenizer, texts), strict=True)]


def _choice_tokens(
    choices: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, continuation: str
) -> list[list[list[int]]]:
    """Every record's choices as continuations; records share most of them, so each is tokenized once."""
    names = list(dict.fromkeys(name for record in choices for name in record))
    texts = [continuation.replace("{answer}", name) for name in names]
    ids = dict(zip(names, (row + _end(tokenizer) for row in _tokens(tokenizer, texts)), strict=True))
    return [[ids[name] for name in record] for record in choices]


def _end(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]


def _starts_with_bos(prompts: Sequence[list[int]], tokenizer: PreTrainedTokenizerBase) -> bool:
    return tokenizer.bos_token_id is not None and all(ids[:1] == [tokenizer.bos_token_id] for ids in prompts)


def _columns(
    dataset: Dataset, pairs: Sequence[tuple[list[int], list[int]]], choices: list[list[list[int]]]
) -> Mapping[str, list[Any]]:
    answers, names = list(dataset["answer"]), list(dataset["choices"])
    return {
        "input_ids": [prompt + output for prompt, output in pairs],
        "attention_mask": [[1] * (len(prompt) + len(output)) for prompt, output in pairs],
        "labels": [[IGNORED] * len(prompt) + output for prompt, output in pairs],
        "prompt_length": [len(prompt) for prompt, _ in pairs],
        "choice_ids": choices,
        "correct": [given.index(answer) if given else -1 for answer, given in zip(answers, names, strict=True)],
        "answer": answers,
        "choices": names,
    }
