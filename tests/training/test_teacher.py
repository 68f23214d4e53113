"""Losses against a teacher's logits: what they are, when they are zero, and what reaches which windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bothways.errors import CheckpointError
from bothways.model.heads import LOSSES, SOFT_LOSSES
from bothways.text.tokenizer import Tokenizer
from bothways.training.finetune import FineTuning
from bothways.training.teacher import TeacherLogits, edges, placeholder
from bothways.training.train import train
from tests.tiny import write_base
from tests.training.test_loop import QUIET, RECIPE, setup, weights

COUNTS = torch.tensor([3, 1, 4])
SHAPES = {"single": (3, 5), "multi": (3, 5), "regression": (3, 1), "tokens": (8, 5), "spans": (8, 2)}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("base"))


def trained(model, job, reporter):
    work = FineTuning(model, job)
    return train(work, work.plan(), reporter)


def random(loss: str, seed: int) -> torch.Tensor:
    return torch.randn(SHAPES[loss], generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@pytest.mark.parametrize("loss", LOSSES)
def test_a_student_that_says_the_same_has_no_loss_and_no_gradient(loss):
    teacher = random(loss, 1)
    student = (teacher + (0.0 if loss in ("multi", "regression") else 2.0)).requires_grad_()  # softmax takes 2 out
    found = SOFT_LOSSES[loss](student, teacher, COUNTS, 3.0)
    assert found.shape == (3,)
    torch.testing.assert_close(found, torch.zeros(3, dtype=torch.float64))
    found.sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher))
    others = SOFT_LOSSES[loss](random(loss, 2), teacher, COUNTS, 3.0)
    assert (others[[0, 2]] > 0).all()
    assert (others[1] > 0) == (loss != "spans")  # of one token, it is the start


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_the_cross_entropy_with_the_teachers_probabilities(loss):
    """The teacher's entropy is a constant; at temperature 1 and with one-hot teachers it is the loss of labels."""
    student, teacher = random(loss, 1).requires_grad_(), random(loss, 2)
    soft = SOFT_LOSSES[loss](student, teacher, COUNTS, 1.0).sum()
    if loss == "single":
        expected = F.cross_entropy(student, teacher.softmax(-1), reduction="sum")
    elif loss == "multi":
        expected = F.binary_cross_entropy_with_logits(student, teacher.sigmoid(), reduction="none").mean(-1).sum()
    elif loss == "regression":
        expected = F.mse_loss(student, teacher, reduction="sum")
    elif loss == "tokens":
        rows = F.cross_entropy(student, teacher.softmax(-1), reduction="none")
        expected = sum(part.mean() for part in rows.split(COUNTS.tolist()))
    else:
        parts = zip(student.split(COUNTS.tolist()), teacher.split(COUNTS.tolist()), strict=True)
        expected = sum(F.cross_entropy(own.t(), theirs.t().softmax(-1)) for own, theirs in parts)
    (found,) = torch.autograd.grad(soft, student)
    (wanted,) = torch.autograd.grad(expected, student)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("loss", ["single", "multi", "tokens", "spans"])
def test_a_temperature_softens_both_and_keeps_the_size_of_gradients(loss):
    student, teacher = random(loss, 1) * 1e-3, random(loss, 2) * 1e-3  # so that softmax is nearly linear
    one, four = (SOFT_LOSSES[loss](student, teacher, COUNTS, temperature) for temperature in (1.0, 4.0))
    torch.testing.assert_close(one, four, rtol=1e-2, atol=0.0)
    one, four = (SOFT_LOSSES[loss](student * 1e4, teacher * 1e4, COUNTS, temperature) for temperature in (1.0, 4.0))
    assert not torch.allclose(one, four, rtol=0.05)


def taught(base, directory, recipe, *, labels: int, soft_weight: float = 0.5, seed: int = 0, **more):
    """A job whose first `labels` windows have labels, with the logits of a teacher for all."""
    model, job = setup(base, directory, recipe, **more)
    windows = [replace(one, target=one.target if place < labels else None) for place, one in enumerate(job.windows)]
    rows = np.random.default_rng(seed).normal(0, 2, (len(windows), 2)).astype(np.float16)
    return model, replace(job, windows=windows, teacher=TeacherLogits(rows, edges(windows), 2.0, soft_weight))


def test_windows_without_labels_learn_from_the_teacher_alone(base, tmp_path):
    recipe, runs = replace(RECIPE, precision="fp32", epochs=1, eval_steps=100), {}
    for name, labels, weight, seed in (
        ("soft", 12, 1.0, 0),
        ("none", 0, 0.3, 0),
        ("other", 0, 0.3, 1),
        ("hard", 12, 0.0, 0),
        ("plain", 12, 0.0, 0),
    ):
        model, job = taught(base, tmp_path / name, recipe, labels=labels, soft_weight=weight, seed=seed)
        trained(model, replace(job, teacher=None) if name == "plain" else job, QUIET)
        runs[name] = weights(model)["head.output.weight"]
    assert torch.equal(runs["soft"], runs["none"])  # labels that count nothing, or no labels
    assert torch.equal(runs["hard"], runs["plain"])  # a teacher that counts nothing, or none
    assert not torch.equal(runs["soft"], runs["hard"])
    assert not torch.equal(runs["none"], runs["other"])  # another teacher


@pytest.mark.parametrize("options", [{}, {"class_weights": "balanced"}], ids=str)
def test_a_student_learns_what_its_teacher_says(base, tmp_path, options):
    recipe = replace(RECIPE, precision="fp32", epochs=60, learning_rate=5e-3, dropout=0.0, **options)
    model, job = taught(base, tmp_path / "run", replace(recipe, eval_steps=180), labels=6, soft_weight=1.0)
    state = trained(model, job, QUIET)
    losses = [line["loss"] for line in state.history if "loss" in line]
    assert losses[-1] < 0.02 < 0.1 < losses[0]


def test_the_rows_of_windows_are_found_by_their_number(tmp_path):
    tokenizer = Tokenizer.packaged("bert-base-uncased")
    windows = [replace(tokenizer.encode("a b c"), head_positions=np.arange(count)) for count in (2, 0, 3, 1)]
    rows = np.arange(12, dtype=np.float16).reshape(6, 2)
    np.save(tmp_path / "rows.npy", rows)
    found = TeacherLogits.read(tmp_path / "rows.npy", windows, temperature=2.0, soft_weight=0.5)
    assert isinstance(found.rows, np.memmap)
    assert found.of_windows(np.array([3, 0])).tolist() == [[10, 11], [0, 1], [2, 3]]
    assert found.of_windows(np.array([2])).dtype == np.float32
    with pytest.raises(CheckpointError, match="has logits of 6 tokens, the training texts have 5; repeat the first"):
        TeacherLogits.read(tmp_path / "rows.npy", windows[:3], temperature=2.0, soft_weight=0.5)
    (tmp_path / "rows.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(CheckpointError, match=r"rows.npy: damaged or cut short"):
        TeacherLogits.read(tmp_path / "rows.npy", windows, temperature=2.0, soft_weight=0.5)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_placeholder_is_a_target_of_its_loss(loss):
    window = replace(Tokenizer.packaged("bert-base-uncased").encode("a b c"), head_positions=np.arange(3))
    outputs = SHAPES[loss][1]
    rows = 3 if loss in ("tokens", "spans") else 1
    target = torch.from_numpy(np.atleast_1d(placeholder(window, loss, outputs)))
    found = LOSSES[loss](torch.randn(rows, outputs), target, torch.tensor([rows]), None)
    assert found.shape == (1,)
    assert found.isfinite()
