"""Pretraining learns, resumes to the same bits, means the same on several processes, and loads in transformers."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bothways
from bothways.batch import make_batch
from bothways.errors import BothwaysError, CheckpointError, DataError, InterruptedRunError, OptionError
from bothways.jobs.pretrain import pretrain
from bothways.model.checkpoint import load_for_pretraining, model_tensors
from bothways.model.families import FAMILIES
from bothways.model.forward import packed_inputs
from bothways.model.pretraining import PretrainModel
from bothways.progress import Reporter
from bothways.text.tokenizer import Tokenizer
from bothways.text.vocabulary import train_vocabulary
from bothways.training import loop
from bothways.training.pretrain import Pretraining
from bothways.training.recipe import PretrainRecipe
from tests.test_cli import refused, run
from tests.tiny import TINY, write_base, write_csv
from tests.training.test_corpus import documents, write

RECIPE = PretrainRecipe(steps=12, batch_size=8, max_length="32", eval_steps=5, learning_rate=3e-3, precision="fp32")


@pytest.fixture(scope="module")
def text(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("text") / "corpus.txt", documents(200))


@pytest.fixture(scope="module")
def vocab(text, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vocab")
    train_vocabulary([text], folder, size=150)
    return folder


@pytest.fixture(scope="module")
def shape(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("shape") / "config.json"
    path.write_text(json.dumps(TINY.to_json()))
    return path


@pytest.fixture
def go(text, vocab, shape, tmp_path):
    """Pretrain on the tiny corpus; the shards of all runs of a test are the same."""

    def run(name: str = "run", *, corpus=text, **more):
        given = {"vocab": vocab, "size": shape, "recipe": RECIPE, "shards": tmp_path / "shards"} | more
        return pretrain([corpus], out=tmp_path / name, **given)

    return run


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model.safetensors")


def test_it_learns_and_both_losses_are_told_apart(go):
    run = go(recipe=replace(RECIPE, steps=150, eval_steps=150))
    first, last = (line["dev"] for line in run.history if "dev" in line)
    assert first["mlm_loss"] > 4.5
    assert last["mlm_loss"] < first["mlm_loss"] - 0.5
    assert last["perplexity"] == pytest.approx(np.exp(last["mlm_loss"]))
    assert {"mlm_loss", "mlm_accuracy", "nsp_loss", "nsp_accuracy", "loss"} <= run.history[1].keys()
    for name in ("config.json", "tokenizer.json", "vocab.txt", "report.html", "curves.png", "README.md", "run.json"):
        assert (run.directory / name).stat().st_size
    assert not (run.directory / "resume.safetensors").exists()


def test_transformers_loads_it_with_every_weight_and_gives_the_same_losses(go, text):
    from transformers import AutoTokenizer, BertForPreTraining

    run = go()
    theirs, info = BertForPreTraining.from_pretrained(run.directory, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(run.directory)
    model, report = load_for_pretraining(run.directory, torch.Generator(), pairs=True)
    assert not report.new
    given = tokenizer([["Document1 the river", "green house"], ["a", "night story of old"]], padding=True)
    ids = torch.tensor(given["input_ids"])
    labels = torch.full_like(ids, -100)
    labels[:, 2:4] = ids[:, 2:4]
    follows = torch.tensor([0, 1])
    expected = theirs.eval()(
        **{name: torch.tensor(value) for name, value in given.items()}, labels=labels, next_sentence_label=follows
    ).loss
    expected.backward()
    ours = Tokenizer.from_directory(run.directory)
    made = [ours.encode("Document1 the river", "green house"), ours.encode("a", "night story of old")]
    batch = make_batch([replace(one, head_positions=np.array([0, 2, 3])) for one in made])
    firsts = np.tile([True, False, False], 2)
    guess, answer = model(*packed_inputs(batch, model.encoder), torch.from_numpy(firsts))
    targets = torch.tensor([made[member].ids[place] for member in batch.members for place in (2, 3)]).long()
    loss, _ = model.masked_losses(guess, targets, torch.float32)
    loss = loss / 4 + torch.nn.functional.cross_entropy(answer, follows[torch.from_numpy(batch.members)])
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    theirs_by_name = dict(theirs.named_parameters())
    table = "bert.embeddings.word_embeddings.weight"
    torch.testing.assert_close(
        model.encoder.embeddings.word.weight.grad, theirs_by_name[table].grad, atol=1e-6, rtol=1e-4
    )
    torch.testing.assert_close(
        model.head.dense.weight.grad,
        theirs_by_name["cls.predictions.transform.dense.weight"].grad,
        atol=1e-6,
        rtol=1e-4,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_chunked_loss_is_cross_entropy_with_its_gradients(dtype):
    torch.manual_seed(0)
    model = PretrainModel(TINY.replace(vocab_size=50), pairs=False)
    guess, targets = torch.randn(1100, 32), torch.randint(0, 50, (1100,))  # more than one chunk
    found = []
    for ours in (True, False):
        model.zero_grad()
        rows = guess.clone().requires_grad_()
        if ours:
            loss, right = model.masked_losses(rows, targets, dtype)
        else:
            logits = rows @ model.encoder.embeddings.word.weight.t() + model.head.bias
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
            right = int((logits.argmax(1) == targets).sum())
        (loss / 7).backward()
        found.append((loss.detach(), rows.grad, model.encoder.embeddings.word.weight.grad.clone(), right))
    tolerance = {"atol": 1e-4, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.3, "rtol": 0.03}
    for one, other in zip(found[0][:3], found[1][:3], strict=True):
        torch.testing.assert_close(one, other, **tolerance)
    assert abs(found[0][3] - found[1][3]) <= (0 if dtype == torch.float32 else 20)


@pytest.mark.parametrize(
    "more",
    [{}, {"nsp": False, "whole_word_mask": True}, {"max_length": "16:0.5,32:0.5", "gradient_accumulation_steps": 2}],
)
def test_a_resumed_run_ends_with_the_bits_of_the_uninterrupted_one(go, tmp_path, monkeypatch, more):
    """Stopped between evaluations and lines, behind a change of length and in a second epoch."""
    monkeypatch.setattr(loop, "LOG_LINES", 5)
    recipe = replace(RECIPE, precision="bf16", steps=40, batch_size=64, **more)
    whole = go("whole", recipe=recipe)
    following, asked = Pretraining._next, []

    def stop(work: Pretraining, size: int) -> tuple[Any, Any]:
        asked.append(size)
        if len(asked) == 28:
            os.kill(os.getpid(), signal.SIGINT)
        return following(work, size)

    monkeypatch.setattr(Pretraining, "_next", stop)
    with pytest.raises(InterruptedRunError, match="--resume"):
        go("parts", recipe=recipe)
    monkeypatch.setattr(Pretraining, "_next", following)
    parts = go("parts", recipe=recipe, resume=True)
    assert whole.history[-1]["epoch"] > 1
    expected, found = weights(whole.directory), weights(parts.directory)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    clock = {"seconds": 0, "tokens_per_second": 0}
    lines = [[{**line, **clock} for line in run.history] for run in (whole, parts)]
    assert lines[0] == lines[1]


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_masks_do_not_depend_on_how_an_update_is_divided(go):
    whole, parts = (go(str(n), recipe=replace(RECIPE, dropout=0.0, gradient_accumulation_steps=n)) for n in (1, 4))
    for one, other in zip(whole.history, parts.history, strict=True):
        assert one.get("mlm_loss") == pytest.approx(other.get("mlm_loss"), abs=1e-4)


def test_two_processes_make_the_steps_of_one(go, text, vocab, shape, tmp_path):
    """The same global batch in two parts: computed by one process one after the other, or by two at once."""
    one = go("one", recipe=replace(RECIPE, gradient_accumulation_steps=2))
    command = [*TORCHRUN, "-m", "bothways", "pretrain", str(text), "--vocab", str(vocab), "--size", str(shape)]
    command += ["--shards", str(tmp_path / "shards"), "--out", str(tmp_path / "two"), "--steps", "12", "--json"]
    command += ["--batch-size", "8", "--max-length", "32", "--eval-steps", "5", "--lr", "3e-3", "--precision", "fp32"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.strip().splitlines()) == 1  # one process speaks
    lines = [json.loads(line) for line in (tmp_path / "two" / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == len(one.history)
    for ours, theirs in zip(one.history, lines, strict=True):
        if "loss" in ours:
            assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-4)
            assert theirs["mlm_loss"] == pytest.approx(ours["mlm_loss"], abs=1e-4)
    expected, found = weights(one.directory), weights(tmp_path / "two")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=2e-4, rtol=0)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_pretrains_and_loads_back(family, text, vocab, tmp_path):
    rules = FAMILIES[family]
    if rules.position_offset:
        vocab = tmp_path / "bpe"
        train_vocabulary([text], vocab, algorithm="bpe", size=300)
    config = TINY.replace(
        family=family,
        type_vocab_size=2 if rules.segments else 0,
        max_position_embeddings=32 + rules.position_offset,
        embedding_size=16 if family in ("albert", "electra") else None,
    )
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_json()))
    pairs = "next" in rules.heads
    recipe = replace(RECIPE, steps=2, nsp=pairs)
    run = pretrain([text], vocab=vocab, size=path, out=tmp_path / "run", recipe=recipe)
    model, report = load_for_pretraining(run.directory, torch.Generator(), pairs=pairs)
    assert not report.new
    assert not report.left_over
    saved = weights(run.directory)
    for name, tensor in model_tensors(model).items():
        assert torch.equal(saved[name], tensor), name
    if not pairs:
        with pytest.raises(CheckpointError, match="--no-nsp"):
            PretrainModel(config, pairs=True)


def test_going_on_from_a_model_without_heads_says_so_and_keeps_its_weights(text, tmp_path):
    base = write_base(tmp_path / "base")
    said = tmp_path / "said.txt"
    with said.open("w") as stream:
        run = pretrain(
            [text],
            base=base,
            out=tmp_path / "run",
            recipe=replace(RECIPE, learning_rate=0.0),
            reporter=Reporter(stream=stream),
        )
    assert "new, to be trained: head, head.dense, head.norm, next.output" in said.read_text()
    before, after = weights(base), weights(run.directory)
    assert all(torch.equal(before[name], after[f"bert.{name}"]) for name in before)


def test_what_was_pretrained_fills_masks_and_is_a_base(go, tmp_path):
    run = go()
    assert len(bothways.pipeline("fill-mask", model=str(run.directory))("The [MASK] house")) == 5
    rows = [{"text": "green river", "label": "a"}, {"text": "old story", "label": "b"}] * 8
    recipe = bothways.Recipe(epochs=1, max_length=16, stride=4)
    made = bothways.finetune("classify", rows, rows, base=run.directory, out=tmp_path / "tuned", recipe=recipe)
    assert made.comparison is not None


def test_no_sequence_is_read_twice_in_an_epoch(go, monkeypatch):
    seen: list[tuple[int, ...]] = []
    following = Pretraining._next

    def note(work, size):
        sequences, chosen = following(work, size)
        seen.extend(map(tuple, sequences.rows[chosen].tolist()))
        return sequences, chosen

    monkeypatch.setattr(Pretraining, "_next", note)
    go()
    seen = seen[RECIPE.batch_size :]  # the first were looked at before the run, to know that there is enough
    assert len(seen) == 96
    assert len({row[:3] for row in seen}) == 96


def test_another_shapes_checkpoint_is_refused_and_stays(go, tmp_path, shape, monkeypatch):
    monkeypatch.setattr(Pretraining, "evaluate", lambda _: os.kill(os.getpid(), signal.SIGINT) or {})
    with pytest.raises(InterruptedRunError):
        go()
    before = (tmp_path / "run" / "resume.safetensors").read_bytes()
    other = tmp_path / "other.json"
    other.write_text(json.dumps(TINY.replace(num_hidden_layers=3).to_json()))
    with pytest.raises(CheckpointError, match="other data, base or settings"):
        go(size=other, resume=True)
    assert (tmp_path / "run" / "resume.safetensors").read_bytes() == before


def test_a_full_disk_leaves_the_last_checkpoint_loadable(go, tmp_path, monkeypatch):
    from bothways.model import checkpoint

    save_file, calls = checkpoint.save_file, []

    def full(tensors, path, metadata):
        calls.append(path)
        if len(calls) > 2:
            Path(path).write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save_file(tensors, path, metadata)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(BothwaysError, match=r"No space left on device.*unchanged"):
        go()
    monkeypatch.setattr(checkpoint, "save_file", save_file)
    assert go(resume=True).history[-1]["step"] == 12


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"vocab": None}, OptionError, "no vocabulary; make one with bothways vocab"),
        ({"vocab": "nowhere"}, OptionError, "no vocabulary 'nowhere'"),
        ({"size": "giant"}, OptionError, "no size 'giant': not one of tiny, mini"),
        ({"recipe": replace(RECIPE, max_length="64")}, OptionError, "max_length is 64; .* reads at most 32"),
        ({"recipe": replace(RECIPE, batch_size=100_000)}, DataError, "too little text for an update of 100000"),
        (
            {"recipe": replace(RECIPE, gradient_accumulation_steps=3)},
            OptionError,
            "expected a multiple of",
        ),
        ({"time_budget": 0.0}, OptionError, "expected more than 0"),
        ({"corpus": "nowhere.txt"}, DataError, "nowhere.txt: .*expected a text file"),
        ({"resume": True}, OptionError, "nothing to resume"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_bad_input_is_said_in_one_line(go, given, error, message):
    with pytest.raises(error, match=message) as caught:
        go(**given)
    assert "\n" not in str(caught.value)


def test_a_vocabulary_of_another_model_is_refused(text, vocab, tmp_path):
    base = write_base(tmp_path / "base")
    with pytest.raises(CheckpointError, match="another vocabulary than that of"):
        pretrain([text], vocab=vocab, base=base, out=tmp_path / "run", recipe=RECIPE)


def test_a_mistake_is_said_once_by_two_processes(text, vocab, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "other").touch()
    command = [
        *TORCHRUN,
        "-m",
        "bothways",
        "pretrain",
        str(text),
        "--vocab",
        str(vocab),
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode
    said = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(said) == 1
    assert "holds other files" in said[0]
    assert "Traceback (most recent call last):\n  File" not in done.stderr.split("torch/distributed")[0]


def test_a_run_that_cannot_be_leaves_the_model_that_is_there(go):
    run = go()
    before = (run.directory / "model.safetensors").read_bytes()
    for change, error in (({"gradient_accumulation_steps": 3}, OptionError), ({"batch_size": 100_000}, DataError)):
        with pytest.raises(error):
            go(recipe=replace(RECIPE, **change), overwrite=True)
    assert (run.directory / "model.safetensors").read_bytes() == before


def test_a_corpus_with_one_document_held_out_is_checked_by_its_tokens(go, tmp_path):
    few = write(tmp_path / "few.txt", documents(50))
    run = go(corpus=few, shards=tmp_path / "few")
    assert "perplexity" in run.dev
    assert "nsp_accuracy" not in run.dev


def test_one_document_says_that_pairs_need_two(go, tmp_path):
    one = write(tmp_path / "one.txt", [documents(1)[0] * 300])
    with pytest.raises(DataError, match="two documents, found one"):
        go(corpus=one, shards=tmp_path / "one")
    assert go(corpus=one, shards=tmp_path / "one", recipe=replace(RECIPE, nsp=False)).history[-1]["step"] == 12


def test_a_roberta_needs_the_vocabulary_of_one(text, vocab, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY.replace(family="roberta", max_position_embeddings=34, pad_token_id=1).to_json()))
    with pytest.raises(CheckpointError, match=r"pad token is number 1, found 0; .*--algorithm bpe"):
        pretrain([text], vocab=vocab, size=path, out=tmp_path / "run", recipe=replace(RECIPE, nsp=False))


def test_pairs_need_segments_that_differ(go, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(TINY.replace(type_vocab_size=1).to_json()))
    with pytest.raises(CheckpointError, match=r"segments 0 and 1.*--no-nsp"):
        go(size=path)


def test_size_and_from_exclude_each_other(text, tmp_path):
    with pytest.raises(OptionError, match="leave out one of them"):
        pretrain([text], base=write_base(tmp_path / "base"), size="large", out=tmp_path / "run")


def test_a_pipe_is_no_corpus(go, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="read twice, so it cannot be a pipe"):
        go(corpus=tmp_path / "pipe")


@pytest.mark.parametrize("lengths", ["", "4", "128:0.5", "128:0.9,512:0.2", "a", "128:-1,64:2"])
def test_lengths_that_make_no_sense_are_refused(lengths):
    with pytest.raises(OptionError, match=r"such as 128:0\.9,512:0\.1"):
        PretrainRecipe(max_length=lengths)


def test_the_time_budget_decides_when_it_ends_and_what_the_rate_is(go):
    run = go(recipe=replace(RECIPE, eval_steps=0, steps=10**6), time_budget=2.0)
    assert 1.5 < run.history[-1]["seconds"] < 10
    assert 3 <= sum("dev" in line for line in run.history) <= 12
    rates = [line["learning_rate"] for line in run.history if "learning_rate" in line]
    assert max(rates) > rates[-1]


def test_the_commands_go_from_text_to_a_model(text, tmp_path, capsys):
    run(["vocab", text, "--size", "150", "--out", tmp_path / "vocab"])
    options = ["--steps", "2", "--batch-size", "4", "--max-length", "32", "--json"]
    options += ["--vocab", tmp_path / "vocab", "--size", "tiny", "--out", tmp_path / "run"]
    capsys.readouterr()
    run(["pretrain", text, *options])
    said = json.loads(capsys.readouterr().out)
    assert said["dev"]["perplexity"] > 1
    assert "finished model" in refused(capsys, ["pretrain", text, *options])
    empty = tmp_path / "empty.txt"
    empty.touch()
    nowhere = ["--vocab", tmp_path / "vocab", "--out", tmp_path / "other"]
    assert "no text to train on" in refused(capsys, ["pretrain", empty, *nowhere])
    assert "no text" in refused(capsys, ["vocab", empty, "--out", tmp_path / "empty"])
    assert not (tmp_path / "other" / "run.json").exists()


@pytest.mark.slow
def test_finetune_in_two_processes_makes_the_steps_of_one(tmp_path):
    base, rows = write_base(tmp_path / "base"), write_csv(tmp_path / "train.csv")
    options = ["finetune", "classify", str(rows), "--dev", str(rows), "--base", str(base), "--no-export"]
    options += ["--epochs", "2", "--batch-size", "4", "--max-length", "16", "--stride", "4", "--dropout", "0"]
    options += ["--precision", "fp32", "--lr", "1e-3"]
    run([*options, "--out", tmp_path / "one"])
    done = subprocess.run(
        [*TORCHRUN, "-m", "bothways", *options, "--out", str(tmp_path / "two")],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    curves = [
        [
            json.loads(line)["loss"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
            if "learning_rate" in line
        ]
        for name in ("one", "two")
    ]
    assert curves[1] == pytest.approx(curves[0], abs=1e-4)
    assert (tmp_path / "two" / "report.html").is_file()


def test_a_part_without_a_pair_has_no_sequences():
    from bothways.training.sequences import _exchanged

    rows = np.zeros((0, 7), np.int64)
    assert _exchanged(rows, np.zeros(0, np.int64), 30, np.random.default_rng(0)).shape == (0, 7)


def test_units_of_one_token_only_are_no_pairs_and_no_error():
    from bothways.training.corpus import Text
    from bothways.training.sequences import plan

    class Shards:
        def text(self, *_):
            return Text(np.array([7, 8], np.uint16), np.array([1, 2]), np.array([0, 1]))

    assert len(plan(Shards(), "dev", [0], room=30, pairs=True, seed=(0,))) == 0
