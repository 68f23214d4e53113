"""Teachers: logits are what is served, in the student's windows; runs resume exactly; bad teachers are refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import bothways
from bothways.batch import make_batch
from bothways.data.tables import Columns
from bothways.errors import CheckpointError, DataError, InterruptedRunError, OptionError
from bothways.inference.model_directory import TEACHER, ModelDirectory
from bothways.jobs import finetune as job
from bothways.jobs.finetune import finetune
from bothways.jobs.teachers import find_teacher, read_unlabelled, write_logits
from bothways.model.checkpoint import load_model, model_tensors, write_safetensors
from bothways.model.encoder import initialize
from bothways.model.heads import TaskModel
from bothways.progress import Reporter
from bothways.tasks import Answer, Classify, Pairs, Tag, Trainable
from bothways.text.tokenizer import Tokenizer
from tests.jobs.test_finetune import FAST, LEARNS, quick, stop_in_the_first_evaluation  # noqa: F401
from tests.tiny import BAD, GOOD, ROWS, TINY, write_base, write_csv

QUIET = Reporter(quiet=True)
LONG = TINY.replace(max_position_embeddings=64)
ENTITIES = [
    {"words": ["Ann", "Lee", "ran", "to", "Überlingen", "."], "tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]},
    {"words": ["Rome", "is", "far"], "tags": ["B-LOC", "O", "O"]},
] * 3
QUESTIONS = [
    {"question": "Who ran?", "context": "Yesterday Ann ran. " + "It rained a lot there. " * 8, "answers": ["Ann"]},
    {"question": "What rained?", "context": "It rained.", "answers": ["It"]},
] * 3
PREMISES = [{"premise": text, "hypothesis": "it is good", "label": "yes"} for text in GOOD]
PREMISES += [{"premise": text, "hypothesis": "it is good", "label": "no"} for text in BAD]
NUMBERS = [{"text": text, "score": float(7 * place) + 0.5} for place, text in enumerate((*GOOD, *BAD))]
SEVERAL = [{"text": text, "labels": ["a"] if place % 2 else ["a", "b"]} for place, text in enumerate((*GOOD, *BAD))]


def write_model(
    directory: Path, task: Trainable, *, seed: int = 5, vocabulary: str = "bert-base-uncased", **changes: object
) -> Path:
    """A model directory for a task, with random weights."""
    tokenizer = Tokenizer.packaged(vocabulary)
    changes = {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id, "initializer_range": 0.2} | changes
    config = LONG.replace(**changes)
    model = TaskModel(config, task.head, task.outputs)
    initialize(model, config, torch.Generator().manual_seed(seed))
    directory.mkdir(parents=True)
    write_safetensors(directory / "model.safetensors", model_tensors(model), {"format": "pt"})
    ModelDirectory(directory, config, task, tokenizer).write()
    return directory


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"), LONG)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory) -> dict[str, Path]:
    """A model with random weights for each task."""
    folder, columns = tmp_path_factory.mktemp("teachers"), Columns()
    kinds = {
        "classify": (Classify, ROWS),
        "multi": (Classify, SEVERAL),
        "regression": (Classify, NUMBERS),
        "pairs": (Pairs, PREMISES),
        "tag": (Tag, ENTITIES),
        "answer": (Answer, QUESTIONS),
    }
    return {
        name: write_model(folder / name, kind.learn(kind.read(rows, columns), max_length=32, stride=8))
        for name, (kind, rows) in kinds.items()
    }


def logits_of(teacher: Path, task: Trainable, rows: list, directory: Path, base: Path):
    """The examples, the student's windows, and what `write_logits` writes for them."""
    examples = type(task).read(rows, Columns())
    tokenizer = Tokenizer.from_directory(base)
    windows = [one for one in task.encode(examples, tokenizer) if len(one.head_positions)]
    found = find_teacher(teacher, task, base=base, out=directory / "out")
    write_logits(directory / "rows.npy", found, task, tokenizer, examples, windows, reporter=QUIET)
    return examples, windows, np.load(directory / "rows.npy")


@pytest.mark.parametrize(
    ("name", "rows", "kind"),
    [("classify", ROWS, "single"), ("pairs", PREMISES, "single"), ("multi", SEVERAL, "multi")],
)
def test_a_teacher_of_classes_gives_each_window_what_it_serves_for_the_text(teachers, base, tmp_path, name, rows, kind):
    learn = Pairs if name == "pairs" else Classify
    long = [dict(rows[0]) | {next(iter(rows[0])): "great film " * 30}, *rows]
    task = learn.learn(learn.read(rows, Columns()), max_length=14, stride=3)  # other windows than the teacher's
    examples, windows, found = logits_of(teachers[name], task, long, tmp_path, base)
    served = bothways.load(teachers[name]).predict_examples(examples)
    assert found.dtype == np.float16
    assert len(found) == len(windows) > len(examples)
    for window, row in zip(windows, found.astype(np.float64), strict=True):
        probabilities = np.exp(row) / np.exp(row).sum() if kind == "single" else 1 / (1 + np.exp(-row))
        expected = list(served[window.example].scores.values())
        np.testing.assert_allclose(probabilities, expected, atol=2e-3)


def test_labels_in_another_order_are_matched_by_name(teachers, base, tmp_path):
    task = Classify.learn(Classify.read(ROWS, Columns()), max_length=32, stride=8)
    _, _, found = logits_of(teachers["classify"], task, ROWS, tmp_path, base)
    _, _, turned = logits_of(teachers["classify"], replace(task, labels=task.labels[::-1]), ROWS, tmp_path, base)
    np.testing.assert_array_equal(turned, found[:, ::-1])
    assert not np.array_equal(turned, found)


def test_numbers_keep_their_size(teachers, base, tmp_path):
    task = Classify.learn(Classify.read(NUMBERS, Columns()), max_length=32, stride=8)
    examples, _, found = logits_of(teachers["regression"], task, NUMBERS, tmp_path, base)
    assert found.dtype == np.float32
    served = [one.score for one in bothways.load(teachers["regression"]).predict_examples(examples)]
    np.testing.assert_allclose(found[:, 0], served, rtol=1e-6)


@pytest.mark.parametrize("vocabulary", ["bert-base-uncased", "bert-base-cased", "mpnet-base"])
def test_a_teacher_of_tags_teaches_words_whatever_its_vocabulary(base, tmp_path, vocabulary):
    task = Tag.learn(Tag.read(ENTITIES, Columns()), max_length=8, stride=2)
    family = {"family": "mpnet", "type_vocab_size": 0} if vocabulary == "mpnet-base" else {}
    teacher = write_model(tmp_path / "teacher", replace(task, max_length=60), vocabulary=vocabulary, **family)
    rows = [*ENTITIES, {"words": ["Ann"] * 20, "tags": ["O"] * 20}]
    examples, windows, found = logits_of(teacher, task, rows, tmp_path, base)
    engine = bothways.load(teacher).engine
    first = 0
    for window in windows:
        (own,) = replace(task, max_length=60).encode([examples[window.example]], Tokenizer.from_directory(teacher))
        expected = dict(zip(own.word_ids[own.head_positions].tolist(), engine.run(make_batch([own])), strict=True))
        for word in window.word_ids[window.head_positions].tolist():
            np.testing.assert_allclose(found[first], expected[word], atol=0.02)
            first += 1
    assert first == len(found)
    assert max(window.window for window in windows) > 2


@pytest.mark.parametrize("vocabulary", ["bert-base-uncased", "mpnet-base"])
def test_a_teacher_of_answers_reads_the_windows_of_the_student(base, tmp_path, vocabulary):
    task = Answer(max_length=24, stride=6)
    family = {"family": "mpnet", "type_vocab_size": 0} if vocabulary == "mpnet-base" else {}
    teacher = write_model(tmp_path / "teacher", Answer(max_length=60), vocabulary=vocabulary, **family)
    examples, windows, found = logits_of(teacher, task, QUESTIONS, tmp_path, base)
    theirs = Tokenizer.from_directory(teacher)
    more = len(theirs.layout(2)) - 5
    engine = bothways.load(teacher).engine
    expected = [engine.run(make_batch([one])) for one in replace(task, max_length=24 + more).encode(examples, theirs)]
    np.testing.assert_allclose(found, np.concatenate(expected), atol=0.02)
    assert len(found) == sum(len(window.head_positions) for window in windows)
    assert max(window.window for window in windows) > 1


CASES = {"classify": ROWS, "multi": SEVERAL, "regression": NUMBERS, "pairs": PREMISES, "tag": ENTITIES}
CASES["answer"] = QUESTIONS


@pytest.mark.parametrize("name", CASES)
def test_every_task_has_teachers_and_texts_without_labels(teachers, base, tmp_path, name, caplog):
    task = name if name in ("pairs", "tag", "answer") else "classify"
    out = tmp_path / "out"
    finetune(task, CASES[name], CASES[name], base=base, out=out, teacher=teachers[name], unlabelled=CASES[name], **FAST)
    facts = json.loads((out / "bothways.json").read_text())["facts"]
    assert facts["n_unlabelled"] == facts["n_train"] == len(CASES[name])
    assert len(facts["teacher_sha256"]) == 64
    assert facts["recipe"] | {"teacher": name, "temperature": 2.0, "soft_weight": 0.5} == facts["recipe"]
    assert not (out / TEACHER).exists()
    assert any("rows in memory are ignored: the teacher labels its texts" in text for text in caplog.messages)
    assert bothways.load(out).task.name == task


def test_a_student_comes_to_answer_as_its_teacher(teachers, base, tmp_path):
    rows = [row | {"label": "good"} for row in ROWS[:-1]] + [ROWS[-1]]  # labels that tell nothing
    options = LEARNS | {"soft_weight": 1.0, "temperature": 1.0, "epochs": 60, "eval_steps": 180}
    out = tmp_path / "out"
    finetune("classify", rows, rows, base=base, out=out, teacher=teachers["classify"], **options)
    texts = [row["text"] for row in ROWS]
    ours, theirs = (bothways.load(path).predict_proba(texts) for path in (out, teachers["classify"]))
    np.testing.assert_allclose(ours, theirs, atol=0.1)
    assert theirs[:, 0].std() > 0.01


def test_without_a_teacher_nothing_is_said_of_one(base, tmp_path):
    finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "out", **FAST)
    recipe = json.loads((tmp_path / "out" / "bothways.json").read_text())["facts"]["recipe"]
    assert not {"teacher", "temperature", "soft_weight", "unlabelled"} & set(recipe)


@pytest.fixture
def interrupted(teachers, base, tmp_path, monkeypatch):
    """A run with a teacher that was stopped in its first evaluation, and what began it."""
    given = {"base": base, "out": tmp_path / "out", "teacher": teachers["classify"], "unlabelled": ROWS[::2]}
    given |= FAST | {"epochs": 4, "eval_steps": 5}
    with monkeypatch.context() as patched:
        stop_in_the_first_evaluation(patched)
        with pytest.raises(InterruptedRunError):
            finetune("classify", ROWS, ROWS, **given)
    assert (tmp_path / "out" / TEACHER).is_file()
    return given


def test_a_resumed_run_ends_with_the_bits_of_the_uninterrupted_one_and_asks_its_teacher_once(
    interrupted, tmp_path, monkeypatch
):
    whole = tmp_path / "whole"
    finetune("classify", ROWS, ROWS, **interrupted | {"out": whole})
    monkeypatch.setattr(job, "write_logits", None)  # is not called
    finetune("classify", ROWS, ROWS, resume=True, **interrupted)
    out = interrupted["out"]
    assert (out / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert not (out / TEACHER).exists()


def test_other_logits_are_not_resumed(interrupted, tmp_path):
    rows = np.load(interrupted["out"] / TEACHER)
    np.save(interrupted["out"] / TEACHER, rows + 1)
    with pytest.raises(CheckpointError, match="other logits of the teacher"):
        finetune("classify", ROWS, ROWS, resume=True, **interrupted)
    np.save(interrupted["out"] / TEACHER, rows[1:])
    with pytest.raises(CheckpointError, match=r"teacher.npy: has logits of 17 tokens, the training texts have 18"):
        finetune("classify", ROWS, ROWS, resume=True, **interrupted)


@pytest.mark.parametrize(
    ("task", "rows", "teacher", "message"),
    [
        ("classify", ROWS, "pairs", "teacher pairs does not answer the task classify: .*fine-tuned for pairs"),
        ("tag", ENTITIES, "classify", "teacher classify does not answer the task tag: .*fine-tuned for classify"),
        (
            "classify",
            ROWS,
            "multi",
            "teacher multi is of kind 'multi', .* of kind 'single'",
        ),
        (
            "classify",
            [*ROWS, {"text": "so so", "label": "fair"}],
            "classify",
            "teacher classify has the labels bad, good; the training texts have bad, fair, good",
        ),
        ("tag", [{"words": ["a", "b"], "tags": ["O", "B-X"]}] * 4, "tag", "teacher tag has the labels B-LOC, B-PER"),
        ("answer", [*QUESTIONS, QUESTIONS[0] | {"answers": []}], "answer", "teacher answer always answers"),
        ("classify", ROWS, "nowhere", "no model '.*nowhere'"),
    ],
)
def test_a_teacher_that_cannot_teach_this_is_refused(teachers, base, tmp_path, task, rows, teacher, message):
    directory = teachers.get(teacher, tmp_path / "nowhere")
    with pytest.raises(bothways.BothwaysError, match=message) as found:
        finetune(task, rows, rows, base=base, out=tmp_path / "out", teacher=directory, **FAST)
    assert "\n" not in str(found.value)
    assert not (tmp_path / "out").exists()


def test_a_student_is_not_its_own_teacher(teachers, base, tmp_path):
    shutil.copytree(teachers["classify"], tmp_path / "copy")
    message = "is the student itself; give another model"
    for given in (
        {"base": teachers["classify"], "out": tmp_path / "out"},
        {"base": tmp_path / "copy", "out": tmp_path / "out"},
        {"base": base, "out": tmp_path / "copy", "overwrite": True},
    ):
        teacher = given["out"] if given["out"].exists() else teachers["classify"]
        with pytest.raises(OptionError, match=message):
            finetune("classify", ROWS, ROWS, teacher=teacher, **FAST | given)


def test_tokens_must_match_where_each_is_taught(base, tmp_path):
    teacher = write_model(tmp_path / "teacher", Answer(max_length=60), vocabulary="bert-base-cased")
    rows = [{"question": "Who?", "context": "Überlingen won.", "answers": ["Überlingen"]}] * 4
    with pytest.raises(
        DataError, match=r"teacher teacher produces different tokens from the student; for the task answer"
    ):
        finetune("answer", rows, rows, base=base, out=tmp_path / "out", teacher=teacher, **FAST)
    short = write_model(tmp_path / "short", Answer(max_length=16), max_position_embeddings=16)
    with pytest.raises(OptionError, match=r"teacher short reads at most 16 tokens, and .*windows have 32"):
        finetune("answer", rows, rows, base=base, out=tmp_path / "other", teacher=short, **FAST | {"max_length": 32})


def test_a_teacher_of_tags_that_does_not_read_to_the_end_is_refused(base, tmp_path):
    task = Tag.learn(Tag.read(ENTITIES, Columns()), max_length=8, stride=2, truncation=True)
    teacher = write_model(tmp_path / "teacher", task)
    rows = [*ENTITIES, {"words": ["Ann"] * 20, "tags": ["O"] * 20}]
    with pytest.raises(DataError, match=r"teacher teacher produces different tokens .*must not truncate them"):
        finetune("tag", rows, rows, base=base, out=tmp_path / "out", teacher=teacher, **FAST)


def test_a_teacher_that_computes_no_numbers_is_named(teachers, base, tmp_path):
    shutil.copytree(teachers["tag"], tmp_path / "teacher")
    model, _ = load_model(tmp_path / "teacher", "tokens", 5, torch.Generator())
    torch.nn.init.constant_(model.encoder.layers[0].norm.weight, 1e38)
    write_safetensors(tmp_path / "teacher" / "model.safetensors", model_tensors(model), {"format": "pt"})
    settings = json.loads((tmp_path / "teacher" / "bothways.json").read_text())
    (tmp_path / "teacher" / "bothways.json").write_text(json.dumps({**settings, "weights": None}))
    with pytest.raises(DataError, match="teacher teacher: the model gave NaN or infinite numbers"):
        finetune("tag", ENTITIES, ENTITIES, base=base, out=tmp_path / "out", teacher=tmp_path / "teacher", **FAST)


@pytest.mark.parametrize(
    ("options", "name"), [({"unlabelled": ROWS}, "unlabelled"), ({"temperature": 3.0}, "temperature")]
)
def test_options_of_a_teacher_without_one_are_refused(base, tmp_path, options, name):
    with pytest.raises(OptionError, match=f"^{name} applies only to training with a teacher: give"):
        finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "out", **FAST | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"temperature": 0.0}, "temperature is 0.0, expected"), ({"soft_weight": 1.5}, "soft_weight is 1.5, expected")],
)
def test_numbers_outside_their_limits_are_refused(teachers, base, tmp_path, options, message):
    with pytest.raises(OptionError, match=message):
        finetune(
            "classify", ROWS, ROWS, base=base, out=tmp_path / "out", teacher=teachers["classify"], **FAST | options
        )


def test_labels_of_unlabelled_texts_are_ignored_and_that_is_said(tmp_path):
    task = Classify.learn(Classify.read(ROWS, Columns()))
    wrong = [row | {"label": "what"} for row in ROWS]
    found, notes = read_unlabelled(write_csv(tmp_path / "more.csv", wrong), task, Columns())
    assert [one.reference for one in found] == [None] * len(ROWS)
    assert notes == ["the labels in more.csv are ignored: the teacher labels its texts"]
    (tmp_path / "plain.txt").write_text("one text\n\nanother text\n")
    found, notes = read_unlabelled(tmp_path / "plain.txt", task, Columns())
    assert [one.texts for one in found] == [("one text",), ("another text",)]
    assert notes == [f"1 row(s) of plain.txt cannot be read and are left out, the first at {tmp_path}/plain.txt:2"]
    with pytest.raises(DataError, match="no text to be labeled by the teacher was found"):
        read_unlabelled([{"text": " "}], task, Columns())


@pytest.mark.parametrize(("content", "notes"), [("Ann B-PER\nran O\n", 1), ("Ann\nran\n", 0), ("Ann x\nran y\n", 1)])
def test_tags_of_unlabelled_columns_are_ignored_and_that_is_said(tmp_path, content, notes):
    task = Tag.learn(Tag.read(ENTITIES, Columns()))
    (tmp_path / "more.conll").write_text(content)
    found, said = read_unlabelled(tmp_path / "more.conll", task, Columns())
    assert [one.texts for one in found] == [("Ann ran",)]
    assert [text.startswith("the labels in more.conll are ignored") for text in said] == [True] * notes


def test_rows_of_questions_and_tags_without_labels_are_quiet():
    tag, answer = Tag.learn(Tag.read(ENTITIES, Columns())), Answer()
    assert read_unlabelled([{"words": ["a", "b"]}], tag, Columns())[1] == []
    assert read_unlabelled([{"text": "a b"}], tag, Columns())[1] == []
    assert read_unlabelled([{"question": "q", "context": "c"}], answer, Columns())[1] == []
    assert len(read_unlabelled([{"question": "q", "context": "c", "answers": ["c"]}], answer, Columns())[1]) == 1
