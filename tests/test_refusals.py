"""Wrong input: one clear error, exit status 2, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from grids import pairs
from tiny_models import save_tiny, save_tiny_causal, tiny_config, tiny_tokenizer
from tiny_runs import SEARCH_WORDS, CommandLine, Outcome, record_words, run, task_words, write_records, write_task
from transformers import BertForMaskedLM

from morenas.space import Architecture, ModuleShape


@pytest.fixture
def words(tiny_task: Path, tiny_model: Path, tmp_path: Path) -> list[str]:
    return [*task_words(tiny_task, tiny_model, tmp_path / "run"), *SEARCH_WORDS]


def changed(words: list[str], changes: list[str]) -> list[str]:
    """The words of a command line with others in the place of those of the same keys."""
    taken = {change.split("=")[0] for change in changes}
    return [*(word for word in words if word.split("=")[0] not in taken), *changes]


def refused(done: Outcome, *said: str) -> bool:
    """One error that says these words, no traceback, status 2; what is not so is an error of its own."""
    assert done.status == 2, done.err
    errors = [line for line in done.err.splitlines() if line.startswith("morenas: error:")]
    assert len(errors) == 1
    assert "Traceback" not in done.err
    for words in said:
        assert words in done.err
    return True


def failed(done: Outcome, *said: str) -> bool:
    """One line that says these words, no traceback, status 1: the input was right, and the work went wrong."""
    assert done.status == 1, done.err
    assert sum(line.startswith("morenas: failed:") for line in done.err.splitlines()) == 1
    assert "Traceback" not in done.err
    for words in said:
        assert words in done.err
    return True


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped(tiny_task: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was interrupted when its search and its training were done; copy it to work on it."""
    directory = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("morenas.finetune.stage.save_adapter", interrupt)
        patch.setattr(sys, "argv", ["morenas.search", *task_words(tiny_task, tiny_model, directory), *SEARCH_WORDS])
        assert run("search") != 0
    return directory


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["+task=glue/rtee"], ["task=glue/rtee", "(did you mean 'glue/rte'?)"]),
        (["+task=demo", "model=roberta"], ["model=roberta", "(did you mean 'roberta-base'?)", "minilm"]),
        (["+task=demo", "relaxation=gumble"], ["relaxation=gumble", "(did you mean 'gumbel'?)"]),
        (["+task=demo", "relaxation.name=gumble"], ["relaxation.name", "gumbel"]),
        (["+task=demo", "spase.ranks=[1]"], ["spase", "(did you mean 'space.ranks'?)"]),
        (
            ["+task=demo", "training.learning_rat=1"],
            ["training.learning_rat", "(did you mean 'training.learning_rate'?)"],
        ),
        (["+task=demo", "+training.lrr=1"], ["training.lrr", "there is no such key; training has batch_size, "]),
        (["+task=demo", "+lrr=1"], ["lrr: there is no such key."]),
        (["+task=demo", "training=5"], ["training=5"]),
        (["+task=demo", "space.ranks=[a]"], ["space.ranks[0]: Value 'a'"]),
        (["+task=demo", "training.learning_rate=abc"], ["training.learning_rate", "abc"]),
        (["+task=demo", "training.epochs=[1]"], ["training.epochs"]),
        (["+task=demo", "optimizer=sgd"], ["optimizer"]),
        (["task=demo"], ["task: nothing is chosen yet", "+task=demo"]),
        ([], ["+task="]),
        (["+task=files"], ["task.text_columns"]),
        (["+task=hub", "task.text_columns=[text]"], ["task.hub_path: must be set"]),
        (["+task=files", "task.text_columns=[text]"], ["task.data_dir"]),
        (["+task=demo", "device=cuda:99"], ["device=cuda:99", "auto, cpu, cuda"]),
        (["+task=demo", "device=tpu"], ["device=tpu", "auto, cpu, cuda"]),
        (["+task=demo", "search.every=0"], ["search.every=0"]),
        (["+task=demo", "search.start=level", "search.warmup=1"], ["search.warmup=1", "below 1"]),
        (["+task=demo", "search.warmup=1.01"], ["search.warmup=1.01", "at most 1"]),
        (["+task=demo", "search.warmup=0"], ["search.warmup=0", "above 0"]),
        (
            ["+task=demo", "relaxation.sharing=full"],
            ["relaxation.sharing=full", "search.start=spectral", "per_nblocks"],
        ),
        (["+task=demo", "search.start=steep"], ["search.start", "spectral, level"]),
        (["+task=demo", "hypergradient=unrolled"], ["hypergradient=unrolled would do nothing", "search.start=level"]),
        (["+task=demo", "hypergradient=neumann"], ["hypergradient=neumann would do nothing", "search.warmup=0.7"]),
        (["+task=demo", "search.stop=entropy"], ["stop=entropy would do nothing", "search.start=level"]),
        (["+task=demo", "search.stop=bored"], ["search.stop", "none, entropy, curvature"]),
        (["+task=demo", "search.stop_entropy=-1"], ["search.stop_entropy=-1"]),
        (["+task=demo", "search.stop_curvature=nan"], ["search.stop_curvature=nan"]),
        (["+task=demo", "search.stop_every=0"], ["search.stop_every=0"]),
        (["+task=demo", "search.measurements=0"], ["search.measurements=0", "at least 1"]),
        (["+task=demo", "search.playoff=0"], ["search.playoff=0"]),
        (["+task=demo", "search.playoff_steps=0"], ["search.playoff_steps=0"]),
        (["+task=demo", "selection=play_off"], ["selection=play_off", "(did you mean 'playoff'?)"]),
        (["+task=demo", "training.batch_size=0"], ["batch_size"]),
        (["+task=demo", "task.metrics=[accuraccy]"], ["accuraccy", "accuracy"]),
        (["+task=demo", "relaxation.temperature_end=0"], ["temperature_end"]),
        (["+task=demo", "threads=0"], ["threads"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_command_line_that_is_wrong(command: CommandLine, extra: list[str], said: list[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    assert refused(command("search", *extra, "tracking=local", f"hydra.run.dir={run_dir}"), *said)
    assert not run_dir.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["budget.fraction=0"], ["budget"]),
        (["budget.fraction=nan"], ["budget.fraction=nan", "finite"]),
        (["budget.fraction=inf"], ["budget.fraction=inf", "finite"]),
        (["budget=custom", "budget.params=0"], ["budget"]),
        (["budget=custom", f"budget.params={10**20}"], ["more than can be counted"]),
        (["budget=custom", "budget.params=3"], ["3", "smallest"]),
        (["space.nblocks=[3,5]", "space.pad=false"], ["3, 5", "pad"]),
        (["space.target_modules=[qury]"], ["qury", "query"]),
        (["space.target_modules='.*nothing'"], ["nothing"]),
        (["space.target_modules=3"], ["Target modules 3", "a list of names"]),
        (["space.exclude_modules=3"], ["Target modules 3", "a list of names"]),
        (["space.exclude_modules='.*'"], ["exclude_modules='.*' leaves none"]),
        (["space.ranks=[]"], ["space.ranks"]),
        (["space.ranks=[-1]"], ["-1"]),
        (["space.nblocks=[0]"], ["space.nblocks"]),
        (["task.text_columns=[txt]"], ["txt", "text"]),
        (["task.label_column=lable"], ["lable", "label"]),
        (["task.label_names=[no,maybe]", "task.label_column=text"], ["maybe"]),
        (["task.search_val=1.2"], ["search_val"]),
        (["task.max_length=2"], ["task.max_length=2", "at least 3"]),
        (["task.max_examples=1"], ["max_examples"]),
        (["training.max_steps=null", "training.epochs=inf"], ["training.epochs=inf", "finite"]),
        (["search.warmup=nan"], ["search.warmup=nan"]),
        (["search.share=1"], ["search.share=1"]),
        (["search.learning_rate=0"], ["learning_rate=0"]),
        (["search.arch_learning_rate=inf"], ["arch_learning_rate=inf", "finite"]),
        (["compare=lora", "comparison.learning_rate=-1"], ["comparison.learning_rate=-1"]),
        (["compare=lora", "comparison.alpha=0"], ["comparison.alpha=0"]),
        (["task.data_dir=/nowhere"], ["/nowhere"]),
        (["task.train_file=nothing.jsonl"], ["nothing.jsonl"]),
        (["task.test_files={test: nothing.jsonl}"], ["nothing.jsonl"]),
        (["task.test_files=validation.jsonl"], ["task.test_files", "must be a mapping"]),
        (["task.test_splits={test: 3}"], ["task.test_splits", "must be a mapping"]),
        (["model.name_or_path=/nowhere"], ["/nowhere"]),
        (["model.name_or_path=./gone"], ["./gone", "no folder here"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_task_a_space_or_a_budget_that_is_wrong(
    command: CommandLine, words: list[str], changes: list[str], said: list[str], tmp_path: Path
) -> None:
    if any(change.startswith("budget=") for change in changes):
        words = [word for word in words if not word.startswith("budget")]
    assert refused(command("search", *changed(words, changes)), *said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": "a cat", "label": 7}', ["label"]),
        ('{"text": "a cat"}', ["label"]),
        ('{"text": null, "label": 1}', ["text"]),
        ("{not json", ["train.jsonl"]),
    ],
)
def test_data_that_are_wrong(
    command: CommandLine, tiny_model: Path, tmp_path: Path, line: str, said: list[str]
) -> None:
    data = write_task(tmp_path / "data")
    with (data / "train.jsonl").open("a") as file:
        file.write(line + "\n")
    words = task_words(data, tiny_model, tmp_path / "run")
    assert refused(command("search", *words, *SEARCH_WORDS, "task.label_names=[no,yes]"), *said)
    assert not (tmp_path / "run").exists()


def test_what_is_refused_begins_no_dashboard(
    command: CommandLine, words: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it leave a run directory: data, model, device, targets and budget are all looked at before."""
    monkeypatch.setattr("morenas.tracking.wandb.choose_mode", pytest.fail)
    spelled, model = write_task(tmp_path / "spelled"), shutil.copytree(tiny_model, tmp_path / "model")
    (model / "tokenizer.json").write_text('{"model": {}}')
    with (spelled / "validation.jsonl").open("a") as file:
        file.write('{"text": "the dog [SEP]", "label": 1}\n')
    for change, said in (
        (f"task.data_dir={spelled}", "validation.jsonl, line 41: 'the dog [SEP]' spells"),
        (f"model.name_or_path={model}", "tokenizer cannot be loaded"),
        ("device=nowhere", "device=nowhere"),
        ("space.target_modules=[qury]", "qury"),
        ("budget.fraction=0.0001", "smallest"),
    ):
        assert refused(command("search", *changed(words, [change, "tracking=wandb"])), said)
        assert not (tmp_path / "run").exists()
    with pytest.raises(pytest.fail.Exception):
        command("search", *changed(words, ["tracking=wandb"]))


def test_what_is_wrong_in_files_is_refused_without_torch(tiny_model: Path, tmp_path: Path) -> None:
    """So within a second or two of the processor."""
    data = write_task(tmp_path / "data")
    with (data / "train.jsonl").open("a") as file:
        file.write('{"text": "the dog [SEP]", "label": 1}\n')
    argv = ["morenas.search", *task_words(data, tiny_model, tmp_path / "run")]
    code = f"import sys; sys.argv = {argv!r}\nfrom morenas.run.launch import launch\n"
    code += "from morenas.search.phase import COMMAND\ntry: launch(COMMAND)\n"
    code += "finally: print([name for name in ('torch', 'transformers', 'wandb') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and "train.jsonl, line 161: 'the dog [SEP]' spells" in done.stderr
    assert done.stdout.strip() == "[]"


def test_a_name_in_an_error_does_not_command_the_terminal(
    command: CommandLine, tiny_model: Path, tmp_path: Path
) -> None:
    data = write_task(tmp_path / "data")
    with (data / "train.jsonl").open("a") as file:
        file.write(json.dumps({"text": "a dog", "label": "\x1b[2J\x1b]0;title\x07\x9b31m"}) + "\n")
    done = command("search", *task_words(data, tiny_model, tmp_path / "run"), "task.label_names=[no,yes]")
    assert refused(done, "train.jsonl, line 161") and not {"\x1b", "\x07", "\x9b"} & {*done.err}
    done = command("search", "+task=demo", "model.name_or_path='\x1b[2J'")
    assert refused(done, "\\x1b[2J") and "\x1b" not in done.err


def test_text_that_is_not_utf8_names_the_file(command: CommandLine, tiny_model: Path, tmp_path: Path) -> None:
    data = write_task(tmp_path / "data")
    (data / "train.jsonl").write_bytes(b'{"text": "caf\xe9", "label": 1}\n' * 50)
    assert refused(
        command("search", *task_words(data, tiny_model, tmp_path / "run"), *SEARCH_WORDS), "train.jsonl", "UTF-8"
    )


def test_one_class_only(command: CommandLine, tiny_model: Path, tmp_path: Path) -> None:
    data = write_task(tmp_path / "data")
    rows = [line for line in (data / "train.jsonl").read_text().splitlines() if json.loads(line)["label"] == 1]
    (data / "train.jsonl").write_text("\n".join(rows))
    assert refused(command("search", *task_words(data, tiny_model, tmp_path / "run"), *SEARCH_WORDS), "class")


@pytest.mark.parametrize("pattern", ["model.safetensors", "tokenizer*"])
def test_a_model_folder_without_weights_or_tokenizer(
    command: CommandLine, tiny_task: Path, tmp_path: Path, pattern: str
) -> None:
    model = save_tiny("bert", tmp_path / "model")
    for path in model.glob(pattern):
        path.unlink()
    done = command("search", *task_words(tiny_task, model, tmp_path / "run"), *SEARCH_WORDS)
    assert refused(done, str(model), "weights" if pattern == "model.safetensors" else "tokenizer")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = command("search", *task_words(tiny_task, tiny_model, tmp_path / "file" / "run"), *SEARCH_WORDS)
    assert refused(done, str(tmp_path / "file" / "run"))


def test_a_run_directory_that_is_taken(command: CommandLine, words: list[str], tmp_path: Path) -> None:
    assert command("search", *words).status == 0
    before = (tmp_path / "run" / "results.json").read_bytes()
    assert refused(command("search", *words), "complete")
    assert refused(command("search", f"resume={tmp_path / 'run'}"), "complete")
    assert (tmp_path / "run" / "results.json").read_bytes() == before
    (tmp_path / "run" / "results.json").unlink()
    assert refused(command("search", *words), f"resume={tmp_path / 'run'}")
    assert refused(command("search", *words, "seed=7"), "another configuration", "seed")
    assert refused(command("finetune", f"resume={tmp_path / 'run'}"), "morenas.search")
    assert refused(command("search", f"resume={tmp_path / 'run'}", "seed=3"), "seed=3")
    assert refused(command("search", f"resume={tmp_path}"), "no run")
    assert refused(command("search", f"resume={tmp_path / 'run'}", f"resume={tmp_path}"), "one run directory")
    assert refused(command("search", "resume=", *words), "one run directory")
    assert refused(command("search", f"resume={tmp_path / 'nowhere'}"), "no such directory")


def test_a_refused_run_leaves_alone_what_was_there(command: CommandLine, words: list[str], tmp_path: Path) -> None:
    mine = tmp_path / "run" / "wandb" / "mine.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    assert refused(command("search", *words, "training.scheduler=none"), "scheduler")
    assert [path for path in (tmp_path / "run").rglob("*") if path.is_file()] == [mine]


def test_a_refused_run_leaves_alone_a_run_that_has_only_just_begun(
    command: CommandLine, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("morenas.run.session.load_task", interrupt)
        assert command("search", *words).status != 0
    assert refused(command("search", *words), f"resume={tmp_path / 'run'}")
    assert command("search", f"resume={tmp_path / 'run'}").status == 0


@pytest.mark.parametrize(
    ("name", "text"), [(".hydra/run.json", "{}"), (".hydra/run.json", "[]"), ("results.json", "[]")]
)
def test_a_document_of_another_kind_in_a_run_directory(
    command: CommandLine, words: list[str], stopped: Path, tmp_path: Path, name: str, text: str
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    (tmp_path / "run" / name).write_text(text)
    assert refused(command("search", *words), name)
    assert refused(command("search", f"resume={tmp_path / 'run'}"), name)


@pytest.mark.parametrize("name", ["architecture.json", "checkpoints/inherited.safetensors"])
def test_what_the_search_left_can_be_made_anew(command: CommandLine, stopped: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    found = (tmp_path / "run" / "architecture.json").read_bytes()
    (tmp_path / "run" / name).unlink()
    assert command("search", f"resume={tmp_path / 'run'}").status == 0
    assert (tmp_path / "run" / "architecture.json").read_bytes() == found


def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint(
    command: CommandLine, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from morenas.search.objective import Objective

    true_loss, calls = Objective._pass, []

    def spoilt(self: object, level: str, *rest: object) -> torch.Tensor:
        calls.append(level)
        loss = true_loss(self, level, *rest)  # type: ignore[arg-type]
        return loss * float("nan") if calls.count("lower") == 6 else loss

    monkeypatch.setattr(Objective, "_pass", spoilt)
    done = command("search", *words)
    assert failed(done, "nan", "step 5", "learning rate", "batch", "search.safetensors")
    assert (tmp_path / "run" / "checkpoints" / "search.safetensors").exists()
    monkeypatch.setattr(Objective, "_pass", true_loss)
    assert command("search", f"resume={tmp_path / 'run'}").status == 0


def test_a_search_that_diverges_before_its_first_checkpoint_says_so(command: CommandLine, words: list[str]) -> None:
    hot = [word for word in words if word.split("=")[0] not in ("training.learning_rate", "search.checkpoint_every")]
    done = command("search", *hot, "training.learning_rate=1e30")
    assert failed(done, "step", "learning rate", "batch", "No checkpoint had been written")


@pytest.mark.parametrize("evals", [1, 12])
def test_a_loss_that_is_not_finite_in_the_final_finetune(command: CommandLine, words: list[str], evals: int) -> None:
    hot = [word for word in words if word.split("=")[0] not in ("training.learning_rate", "training.evals")]
    done = command(
        "search", *hot, "training.learning_rate=1e30", "search.learning_rate=1e-3", f"training.evals={evals}"
    )
    assert failed(done, "finetune", "step", "learning rate", "batch", "heckpoint")


@pytest.mark.parametrize("spoil", ["json", "version", "model", "missing", "empty"])
def test_an_architecture_that_does_not_fit(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, spoil: str
) -> None:
    path = tmp_path / "architecture.json"
    name = f"bert.encoder.layer.{7 if spoil == 'model' else 0}.attention.self.query"
    Architecture("tiny", "cyclic", {name: ModuleShape(2, 1, 16, 16)}, 0.1, {"params": 100, "request": {}}).to_json(path)
    if spoil == "version":
        path.write_text(path.read_text().replace("morenas.architecture/1", "morenas.architecture/9"))
    if spoil == "json":
        path.write_text(path.read_text()[:-20])
    if spoil == "empty":
        Architecture("tiny", "cyclic", {}, 0.0, {"params": 100, "request": {}}).to_json(path)
    if spoil == "missing":
        path.unlink()
    said = {
        "json": ["not JSON"],
        "version": ["morenas.architecture/9", "morenas.architecture/1"],
        "model": [name],
        "missing": ["cannot be read"],
        "empty": ["no module", "method=head"],
    }[spoil]
    done = command("finetune", *task_words(tiny_task, tiny_model, tmp_path / "run"), f"architecture={path}")
    assert refused(done, *said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["method=lora", "architecture=a.json"],
        ["method.nblocks=4", "method.blk_r=4", "architecture=a.json"],
        ["method=vera", "method.initial=0"],
        ["method=lorra"],
        ["method=lora", "method.rank=0"],
        ["method=lora", "method.block_size=2"],
        ["method=lora", "method.dropout=-1"],
        ["method=lora", "method.alpha=nan"],
        ["method=gralora", "method.rank=3"],
        ["method=boft", "method.block_size=5"],
        ["method=head", "method.rank=4"],
        ["method=full", "method.target_modules=[query]"],
    ],
)
def test_a_method_that_does_not_fit(
    command: CommandLine, tiny_task: Path, tiny_model: Path, tmp_path: Path, extra: list[str]
) -> None:
    assert refused(command("finetune", *task_words(tiny_task, tiny_model, tmp_path / "run"), *extra), "method")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["search.safetensors", "finetune"])
def test_a_checkpoint_cut_short(
    command: CommandLine,
    words: list[str],
    stopped: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    if name == "finetune":
        shutil.copytree(stopped, tmp_path / "run")
    else:
        with monkeypatch.context() as patch:
            patch.setattr("morenas.search.files.write_trajectory", interrupt)
            assert command("search", *words).status != 0
    path = tmp_path / "run" / "checkpoints" / name
    if path.is_dir():
        path = max(path.rglob("*.safetensors"), key=lambda file: file.stat().st_size)
    os.truncate(path, path.stat().st_size // 2)
    assert refused(
        command("search", f"resume={tmp_path / 'run'}"), str(path.name) if name != "finetune" else "checkpoint"
    )


def test_a_read_only_parent_is_told(command: CommandLine, words: list[str], tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    tmp_path.chmod(0o500)
    try:
        assert refused(command("search", *words), "cannot be written")
    finally:
        tmp_path.chmod(0o700)


@pytest.fixture
def language(llama: Path, tmp_path: Path) -> list[str]:
    """Words of a search by a language model on records in ``records``."""
    return [*record_words(write_records(tmp_path / "records"), llama, tmp_path / "run"), *SEARCH_WORDS]


@pairs(
    split=["train", "test"],
    wrong=[
        ({"instruction": "a cat", "output": "it is red"}, ["the record has no answer"]),
        ({"instruction": "a cat", "output": "it is red", "answer": " "}, ["the record has no answer"]),
        (
            {"instruction": "a cat Answer format: red/blue", "output": "it is good", "answer": "good"},
            ["the answer 'good' is none of the record's choices", "red, blue"],
        ),
        ({"instruction": " ", "output": "it is red", "answer": "red"}, ["'instruction' is empty"]),
        (
            {"instruction": "cat " * 50, "output": "it is red", "answer": "red"},
            ["more than 40 tokens", "task.truncate"],
        ),
    ],
)
def test_a_record_that_is_wrong(
    command: CommandLine, language: list[str], tmp_path: Path, split: str, wrong: tuple[dict[str, str], list[str]]
) -> None:
    record, said = wrong
    with (tmp_path / "records" / f"{split}.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")
    assert refused(command("search", *language), *said)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["task.mix={one: {foldr: one}}"], ["task.mix.one.foldr", "(did you mean 'folder'?)"]),
        (["task.metrics=[f1]"], ["f1", "choice", "accuracy"]),
        (["task.select_metric=f1"], ["f1"]),
        (["task.prompt=chat"], ["task.prompt=chat", "no chat template", "alpaca"]),
        (["task.prompt=chatt"], ["task.prompt", "auto, chat, alpaca, plain"]),
        (["task.choices=[red]"], ["task.choices", "at least two"]),
        (["task.continuation=it"], ["task.continuation", "{answer}"]),
        (["task.max_new_tokens=0"], ["task.max_new_tokens=0"]),
        (["model.quantization=int4"], ["model.quantization", "none, bnb_4bit, bnb_8bit, int8"]),
        (["model.dtype=bfloat"], ["model.dtype", "float32, bfloat16, float16"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_task_of_records_or_a_language_model_that_is_wrong(
    command: CommandLine, language: list[str], changes: list[str], said: list[str], tmp_path: Path
) -> None:
    assert refused(command("search", *changed(language, changes)), *said)
    assert not (tmp_path / "run").exists()


def test_the_head_of_a_language_model(command: CommandLine, llama: Path, tmp_path: Path) -> None:
    words = record_words(write_records(tmp_path / "records"), llama, tmp_path / "run")
    assert refused(command("finetune", *words, "method=head"), "method=head", "choice", "method=full")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("masked", [False, True])
def test_a_model_that_predicts_no_next_token(command: CommandLine, tmp_path: Path, masked: bool) -> None:
    model = save_tiny("bert", tmp_path / "bert")
    if masked:  # which has an output layer of its own
        config: Any = tiny_config("bert")
        BertForMaskedLM(config).save_pretrained(model)
    words = record_words(write_records(tmp_path / "records"), model, tmp_path / "run")
    assert refused(command("search", *words, *SEARCH_WORDS), "no causal language model", "model=llama")


def test_a_tokenizer_with_neither_pad_nor_eos(command: CommandLine, tmp_path: Path) -> None:
    model, tokenizer = save_tiny_causal(tmp_path / "llama", "llama"), tiny_tokenizer("llama")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(model)
    words = record_words(write_records(tmp_path / "records"), model, tmp_path / "run")
    assert refused(command("search", *words, *SEARCH_WORDS), "neither a pad nor an eos token", "pad_token")


@pytest.mark.parametrize(
    ("task", "named"),
    [("commonsense/boolq", "google/boolq"), ("commonsense/mixed", "google/boolq"), ("math/gsm8k", "")],
)
def test_records_from_a_hub_that_is_out_of_reach(
    command: CommandLine, llama: Path, tmp_path: Path, task: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    words = [f"+task={task}", "model=local", f"model.name_or_path={llama}", "tracking=local"]
    began = time.monotonic()
    done = command("search", *words, f"hydra.run.dir={tmp_path / 'run'}")
    assert refused(done, "cannot be reached", named, "task.data_dir=") and time.monotonic() - began < 10
    assert not (tmp_path / "run").exists()
