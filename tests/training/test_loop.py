"""The loop learns, stops, resumes to the same bits, and keeps its promises about order and weight."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bothways.errors import BothwaysError, CheckpointError, InterruptedRunError
from bothways.inference.predictor import load
from bothways.jobs.finetune import finetune
from bothways.model.checkpoint import load_model
from bothways.model.families import FAMILIES
from bothways.model.heads import TaskModel
from bothways.progress import Reporter
from bothways.tasks import Classify
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training import loop
from bothways.training.finetune import FineTuning, FineTuningJob, class_weights, window_weights
from bothways.training.loop import CHECKPOINT, State
from bothways.training.optimizer import Group, MasterAdamW, parameter_groups
from bothways.training.recipe import Recipe
from bothways.training.train import dropout_rate, train
from tests.tiny import ROWS, TINY, write_base

QUIET = Reporter(quiet=True)
RECIPE = Recipe(epochs=4, batch_size=4, learning_rate=1e-3, precision="bf16")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


def setup(base: Path, directory: Path, recipe: Recipe, *, rows=ROWS, stop_at: int | None = None, **more):
    """A model and a job on tiny texts; `stop_at` sends this process a Ctrl-C in that step's evaluation."""
    directory.mkdir(exist_ok=True)
    examples = Classify.read(rows, loop_columns())
    task = Classify.learn(examples, max_length=16, stride=4)
    tokenizer = Tokenizer.from_directory(base)
    windows = task.encode(examples, tokenizer)
    model, _ = load_model(base, task.head, task.outputs, torch.Generator().manual_seed(recipe.seed))
    evaluated: list[int] = []

    def evaluate() -> dict[str, float]:
        evaluated.append(1)
        if stop_at == len(evaluated):
            os.kill(os.getpid(), signal.SIGINT)
        return {"accuracy": float(len(evaluated))}  # each better than the last, so the last weights are kept

    return model, FineTuningJob(
        windows, task.loss, evaluate, "accuracy", recipe, directory, {"data": "the same"}, recipe.precision, **more
    )


def fit(model, job, reporter, *, resume=False):
    work = FineTuning(model, job)
    return train(work, work.plan(), reporter, resume=resume)


def loop_columns():
    from bothways.data.tables import Columns

    return Columns()


def weights(model) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16"},
        {"precision": "fp32"},
        {"freeze_encoder": True},
        {"freeze_embeddings": True},
        {"layer_decay": 0.7, "class_weights": "balanced"},
    ],
    ids=str,
)
def test_a_resumed_run_ends_with_the_bits_of_the_uninterrupted_one(base, tmp_path, options):
    recipe = replace(RECIPE, eval_steps=5, **options)  # evaluations fall inside epochs
    whole, job = setup(base, tmp_path / "whole", recipe)
    fit(whole, job, QUIET)

    first, job = setup(base, tmp_path / "parts", recipe, stop_at=1)
    with pytest.raises(InterruptedRunError, match="--resume"):
        fit(first, job, QUIET)
    second, job = setup(base, tmp_path / "parts", recipe)
    state = fit(second, job, QUIET, resume=True)

    assert state.step == 12
    for (name, expected), found in zip(weights(whole).items(), weights(second).values(), strict=True):
        assert torch.equal(expected, found), name
    lines = [(tmp_path / place / "metrics.jsonl").read_text().count("\n") for place in ("whole", "parts")]
    assert lines[0] == lines[1]


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(base, tmp_path):
    runs = []
    for number, seed in enumerate((0, 0, 1)):
        model, job = setup(base, tmp_path / str(number), replace(RECIPE, seed=seed, epochs=1))
        fit(model, job, QUIET)
        runs.append(weights(model)["head.output.weight"])
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_another_runs_checkpoint_is_refused(base, tmp_path):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, eval_steps=5), stop_at=1)
    with pytest.raises(InterruptedRunError):
        fit(model, job, QUIET)
    model, job = setup(base, tmp_path / "run", RECIPE)
    with pytest.raises(CheckpointError, match=r"other data, base or settings \(data was the same, now other\)"):
        fit(model, replace(job, identity={"data": "other"}), QUIET, resume=True)


def test_a_damaged_checkpoint_is_refused(base, tmp_path):
    model, job = setup(base, tmp_path / "run", RECIPE)
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        fit(model, job, QUIET, resume=True)


def test_a_checkpoint_of_another_version_is_refused_in_one_line(base, tmp_path):
    from bothways.model.checkpoint import write_safetensors

    model, job = setup(base, tmp_path / "run", RECIPE)
    for metadata in (
        {},
        {"identity": "ab12", "state": "{}"},
        {"identity": "{}", "machine": "{}", "state": '{"steps": 3}'},
    ):
        write_safetensors(tmp_path / "run" / CHECKPOINT, {"a": torch.zeros(1)}, metadata)
        with pytest.raises(CheckpointError, match="of another version of bothways"):
            fit(model, job, QUIET, resume=True)


def test_nothing_to_resume_is_said(base, tmp_path):
    model, job = setup(base, tmp_path / "run", RECIPE)
    with pytest.raises(CheckpointError, match="nothing to resume"):
        fit(model, job, QUIET, resume=True)


def test_early_stopping_is_remembered_when_resumed(base, tmp_path):
    recipe = replace(RECIPE, epochs=50, patience=2)
    model, job = setup(base, tmp_path / "run", recipe)
    state = fit(model, replace(job, evaluate=lambda: {"accuracy": 0.5}), QUIET)
    stopped = weights(model)
    again, job = setup(base, tmp_path / "run", recipe)
    resumed = fit(again, job, QUIET, resume=True)
    assert resumed.step == state.step
    assert all(torch.equal(value, stopped[name]) for name, value in weights(again).items())


@pytest.mark.parametrize("family", ["roberta", "albert", "distilbert", "electra", "mpnet"])
def test_every_family_trains_in_bf16_and_resumes_to_the_same_bits(tmp_path, family):
    changes = {"family": family, "embedding_size": 16 if family in ("albert", "electra") else None}
    segments = 2 if FAMILIES[family].segments else 0
    config = TINY.replace(**changes, type_vocab_size=segments, max_position_embeddings=34)
    base = write_base(tmp_path / "base", config)
    recipe = replace(RECIPE, eval_steps=5)
    whole, job = setup(base, tmp_path / "whole", recipe)
    before = weights(whole)
    fit(whole, job, QUIET)
    first, job = setup(base, tmp_path / "parts", recipe, stop_at=1)
    with pytest.raises(InterruptedRunError):
        fit(first, job, QUIET)
    second, job = setup(base, tmp_path / "parts", recipe)
    fit(second, job, QUIET, resume=True)
    for (name, expected), found in zip(weights(whole).items(), weights(second).values(), strict=True):
        assert torch.equal(expected, found), name
        assert not torch.equal(expected, before[name]), name


def test_gradients_of_several_batches_are_added_in_fp32():
    layer = torch.nn.Linear(1, 1, bias=False)
    optimizer = MasterAdamW(layer, [Group(("weight",), 1.0, 0.0)])
    layer.to(torch.bfloat16)
    for value in (256.0, *([1.0] * 8)):  # in bf16, 256 + 1 is 256
        layer.weight.grad = torch.full_like(layer.weight, value)
        optimizer.collect()
    assert optimizer.step(0.0, max_norm=1e9) == 264.0


def test_accumulating_two_halves_is_one_whole_batch(base, tmp_path):
    recipe = replace(RECIPE, precision="fp32", epochs=1, dropout=0.0, learning_rate=1e-4)
    whole, job = setup(base, tmp_path / "whole", replace(recipe, batch_size=4))
    fit(whole, job, QUIET)
    halves, job = setup(base, tmp_path / "halves", replace(recipe, batch_size=2, gradient_accumulation_steps=2))
    fit(halves, job, QUIET)
    for (name, expected), found in zip(weights(whole).items(), weights(halves).values(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_frozen_encoder_stays_as_it_was(base, tmp_path, precision):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, freeze_encoder=True, precision=precision))
    before = weights(model)
    fit(model, job, QUIET)
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]) == name.startswith("encoder."), name
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == 2 * (TINY.hidden_size + 1)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_frozen_word_embeddings_stay_as_they_were(base, tmp_path, precision):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, freeze_embeddings=True, precision=precision))
    before = weights(model)
    fit(model, job, QUIET)
    same = {name for name, value in weights(model).items() if torch.equal(value, before[name])}
    assert same == {"encoder.embeddings.word.weight"}


@pytest.mark.parametrize("new", [True, False])
def test_a_new_pooler_learns_with_a_frozen_encoder(base, tmp_path, new):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, freeze_encoder=True))
    before = weights(model)
    fit(model, replace(job, pooler_is_new=new), QUIET)
    moved = {name for name, value in weights(model).items() if not torch.equal(value, before[name])}
    pooler = {"encoder.pooler.weight", "encoder.pooler.bias"} if new else set()
    assert moved == {"head.output.weight", "head.output.bias"} | pooler


def test_frozen_bert_base_trains_1538_parameters():
    from bothways.model.config import EncoderConfig
    from bothways.model.heads import TaskModel

    with torch.device("meta"):
        model = TaskModel(EncoderConfig(), "classify", 2)
    model.encoder.requires_grad_(False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 109_483_778
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == 1_538


def test_rows_of_the_vocabulary_that_no_text_uses_stay_as_pretrained(base, tmp_path):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, precision="fp32"))
    before = weights(model)["encoder.embeddings.word.weight"]
    fit(model, job, QUIET)
    after = weights(model)["encoder.embeddings.word.weight"]
    used = np.unique(np.concatenate([window.ids for window in job.windows]))
    moved = (before != after).any(dim=1).nonzero()[:, 0].numpy()
    assert after.shape == before.shape
    assert set(moved) == set(used)


def test_patience_stops_and_the_best_weights_are_kept(base, tmp_path):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, epochs=50, patience=2))
    values = iter([0.5, 0.9, 0.8, 0.7, 0.99])
    kept: list[torch.Tensor] = []

    def evaluate() -> dict[str, float]:
        kept.append(model.head.output.weight.detach().clone())
        return {"accuracy": next(values)}

    state = fit(model, replace(job, evaluate=evaluate), QUIET)
    assert len(kept) == 4
    assert state.best == 0.9
    assert torch.equal(model.head.output.weight, kept[1])


def test_a_time_budget_ends_the_run_in_time_with_a_finished_schedule(base, tmp_path):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, epochs=3), time_budget=2.5)
    state = fit(model, job, QUIET)
    assert 2.5 <= state.seconds < 6
    rates = [line["learning_rate"] for line in state.history if "learning_rate" in line]
    assert max(rates) <= 1e-3
    assert rates[-1] < 0.5 * max(rates)  # a busy machine may take long for the last updates


def test_a_loss_that_is_no_number_ends_the_run(base, tmp_path):
    model, job = setup(base, tmp_path / "run", RECIPE)
    with torch.no_grad():
        model.head.output.weight.fill_(float("nan"))
    with pytest.raises(BothwaysError, match="loss became nan and the gradient nan at step 1"):
        fit(model, job, QUIET)


def test_a_full_disk_leaves_the_last_checkpoint_whole(base, tmp_path, monkeypatch):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, eval_steps=3), stop_at=1)
    with pytest.raises(InterruptedRunError):
        fit(model, job, QUIET)
    good = (tmp_path / "run" / CHECKPOINT).read_bytes()

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bothways.model.checkpoint.save_file", full)
    model, job = setup(base, tmp_path / "run", replace(RECIPE, eval_steps=3))
    with pytest.raises(BothwaysError, match="No space left on device"):
        fit(model, job, QUIET, resume=True)
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == good
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_biases_and_norms_do_not_decay_and_lower_layers_learn_slower(base, tmp_path):
    model, _ = setup(base, tmp_path / "run", RECIPE)
    groups = parameter_groups(model, 0.5, RECIPE.weight_decay)
    place = {name: group for group in groups for name in group.names}
    assert len(place) == len(list(model.named_parameters()))
    assert place["encoder.layers.0.norm.weight"].weight_decay == 0.0
    assert place["encoder.layers.0.inner.bias"].weight_decay == 0.0
    assert place["encoder.layers.0.inner.weight"].weight_decay == 0.01
    assert place["head.output.weight"].lr_factor == place["encoder.pooler.weight"].lr_factor == 1.0
    assert place["encoder.layers.1.inner.weight"].lr_factor == 0.5
    assert place["encoder.layers.0.inner.weight"].lr_factor == 0.25
    assert place["encoder.embeddings.word.weight"].lr_factor == 0.125


def targets(values: list) -> list[Encoded]:
    """Windows of which only the targets matter, each of a text of its own."""
    none = np.zeros(0, np.int32)
    return [Encoded(none, none, none, none, none, number, 0, target=value) for number, value in enumerate(values)]


@pytest.mark.parametrize("absent", [None, 0, 2, 4])
def test_balanced_weights_equal_scikit_learns_for_the_classes_that_occur(absent):
    from sklearn.utils.class_weight import compute_class_weight

    values = np.array([value for value in [0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4] if value != absent])
    expected = np.ones(5)
    classes = np.unique(values)
    expected[classes] = compute_class_weight("balanced", classes=classes, y=values)
    np.testing.assert_allclose(class_weights(targets(values.tolist()), "single", 5), expected, rtol=1e-6)
    words = targets([values[:3], values[3:]])
    np.testing.assert_allclose(class_weights(words, "tokens", 5), expected, rtol=1e-6)


def test_balanced_weights_of_several_labels_are_bounded():
    values = [np.array([number == 0, number % 4 == 0, 1, 0], np.float32) for number in range(4000)]
    found = class_weights(targets(values), "multi", 4)
    assert found.tolist() == pytest.approx([100.0, 3.0, 0.01, 1.0])


def test_a_new_multi_label_head_starts_at_the_frequency_of_each_label(base, tmp_path):
    rows = [{"text": row["text"], "labels": ["film"] + ["good"] * (number == 3)} for number, row in enumerate(ROWS)]
    examples = Classify.read(rows, loop_columns())
    task = Classify.learn(examples, max_length=16, stride=4)
    windows = task.encode(examples, Tokenizer.from_directory(base))
    model, _ = load_model(base, task.head, task.outputs, torch.Generator().manual_seed(0))
    job = FineTuningJob(windows, task.loss, dict, "micro_f1", RECIPE, tmp_path, {})
    for change, expected in (
        ({}, [12.5 / 13, 1.5 / 13]),
        ({"head_is_new": False}, [0.5, 0.5]),
        ({"recipe": replace(RECIPE, class_weights="balanced")}, [0.5, 0.5]),
    ):
        torch.nn.init.zeros_(model.head.output.bias)
        FineTuning(model, replace(job, **change)).used.restore()
        assert model.head.output.bias.sigmoid().tolist() == pytest.approx(expected)


def test_balanced_tags_are_learned_if_the_last_tag_never_occurs(base, tmp_path):
    rows = [
        {"words": ["Ann", "Lee", "in", "Bonn"], "tags": ["B-PER", "I-PER", "O", "B-ZZZ"]},
        {"words": ["Kim", "saw", "Rome"], "tags": ["B-PER", "O", "B-ZZZ"]},
    ]
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = replace(RECIPE, epochs=1, class_weights="balanced", max_length=16, stride=4)
    run = finetune("tag", path, path, base=base, out=tmp_path / "run", recipe=recipe, export=False)
    assert np.isfinite([line["loss"] for line in run.history if "loss" in line]).all()


def test_a_long_text_weighs_as_much_as_a_short_one(base, tmp_path):
    rows = [*ROWS, {"text": "film " * 60, "label": "good"}]
    _, job = setup(base, tmp_path / "run", RECIPE, rows=rows)
    per_text = np.zeros(len(rows))
    np.add.at(per_text, [window.example for window in job.windows], window_weights(job.windows, job.loss))
    assert len(job.windows) > len(rows)
    np.testing.assert_allclose(per_text, 1.0, rtol=1e-6)


@pytest.mark.parametrize("kind", ["single", "multi", "regression", "pairs"])
def test_each_kind_memorizes_a_dozen_texts_and_predicts_them_from_disk(base, tmp_path, kind):
    task = "classify"
    rows: list[dict] = [dict(row) for row in ROWS]
    if kind == "multi":
        rows = [{"text": row["text"], "labels": [row["label"], *(["film"] * ("film" in row["text"]))]} for row in rows]
    if kind == "regression":
        rows = [{"text": row["text"], "score": 4.0 if row["label"] == "good" else 1.0} for row in rows]
    if kind == "pairs":
        task = "pairs"
        rows = [{"premise": "it was", "hypothesis": row["text"], "label": row["label"]} for row in rows]
    recipe = Recipe(epochs=40, batch_size=6, learning_rate=3e-3, dropout=0.0, precision="fp32", eval_steps=40)
    run = finetune(task, rows, rows, out=tmp_path / "run", base=base, recipe=recipe)
    metric = run.comparison.rows[-1].scores.metrics[run.comparison.task.headline].value
    assert metric > (0.8 if kind == "regression" else 0.95)

    model = load(tmp_path / "run", precision="fp32")
    texts = [row["text"] if task == "classify" else (row["premise"], row["hypothesis"]) for row in rows]
    answers = model(texts)
    if kind == "regression":
        assert answers[0].score == pytest.approx(4.0, abs=0.8)
    else:
        assert answers[0].label == "good"
    if kind == "multi":
        assert answers[0].labels == ("film", "good")
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in saved.values())
    assert not (tmp_path / "run" / CHECKPOINT).exists()


def test_state_survives_json():
    import json
    from dataclasses import asdict

    state = State(step=3, best=0.5)
    assert State(**json.loads(json.dumps(asdict(state)))) == state


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_a_second_one_obeyed_and_the_handlers_are_as_they_were(sent):
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with loop._interruptible() as stop:
        assert not stop()
        os.kill(os.getpid(), sent)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), sent)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_between_equal_accuracies_the_better_macro_f1_is_kept(base, tmp_path):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, epochs=4))
    pairs = [(0.7, 0.4), (0.7, 0.6), (0.7, 0.5), (0.6, 0.9)]
    figures = iter([{"accuracy": accuracy, "macro_f1": f1} for accuracy, f1 in pairs])
    state = fit(model, replace(job, evaluate=lambda: next(figures)), QUIET)
    assert (state.best, state.best_tie, state.best_step) == (0.7, 0.6, 6)


@pytest.mark.parametrize("loss", [float("nan"), float("-inf")])
def test_a_metric_that_is_not_a_number_is_never_the_best(base, tmp_path, loss):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, epochs=3))
    values = iter([loss, 0.2, loss])
    state = fit(model, replace(job, evaluate=lambda: {"accuracy": next(values)}), QUIET)
    assert (state.best, state.best_step) == (0.2, 6)


def test_a_run_resumed_on_another_system_is_told(base, tmp_path, monkeypatch, caplog):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, eval_steps=5), stop_at=1)
    with pytest.raises(InterruptedRunError):
        fit(model, job, QUIET)
    monkeypatch.setattr(loop, "_machine", lambda _: {"processor": "another", "threads": 99, "torch": torch.__version__})
    model, job = setup(base, tmp_path / "run", replace(RECIPE, eval_steps=5))
    fit(model, job, QUIET, resume=True)
    assert "the last bits can differ" in caplog.text
    assert "now 99" in caplog.text


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_the_dropout_of_a_run_holds_within_it_only(family):
    config = TINY.replace(family=family, type_vocab_size=0 if family == "distilbert" else 2, max_position_embeddings=34)
    for head, given, before in (("tokens", 0.5, 0.1), ("spans", 0.5 if family == "distilbert" else 0.0, None)):
        model = TaskModel(config, head, 2)
        rate = model.head.rate
        with dropout_rate(model, 0.5):
            assert (
                model.config.hidden_dropout_prob == model.encoder.layers[0].config.attention_probs_dropout_prob == 0.5
            )
            assert model.head.rate == given
        assert model.config == model.encoder.layers[0].config == config
        assert model.head.rate == rate
        assert before in (None, rate)


def test_the_first_step_of_a_time_budget_learns(base, tmp_path):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, precision="fp32"), time_budget=0.3)
    state = fit(model, job, QUIET)
    assert state.history[0]["learning_rate"] > 0


def test_masters_begin_with_the_fp32_weights_not_with_their_bf16_rounding(base, tmp_path):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, learning_rate=0.0, weight_decay=0.0, epochs=1))
    before = weights(model)
    fit(model, job, QUIET)
    for name, value in weights(model).items():
        assert torch.equal(value, before[name]), name


def test_tensorboard_files_are_written_on_request(base, tmp_path):
    model, job = setup(base, tmp_path / "run", replace(RECIPE, epochs=1), tensorboard=True)
    fit(model, job, QUIET)
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))
