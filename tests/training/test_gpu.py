"""What a GPU computes is what the CPU computes: outputs, gradients, updates, whole runs."""

from __future__ import annotations

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from bothways.batch import make_batch
from bothways.errors import BothwaysError, InterruptedRunError
from bothways.inference.predictor import load
from bothways.jobs.finetune import finetune
from bothways.jobs.pretrain import pretrain
from bothways.model.config import EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.encoder import initialize
from bothways.model.families import FAMILIES
from bothways.model.forward import enough_memory, forward, packed_inputs, set_precision
from bothways.model.heads import TaskModel
from bothways.model.layout import Packed, Varlen, has_flash_attention
from bothways.text.tokenizer import Encoded
from bothways.training.optimizer import Group, MasterAdamW
from bothways.training.recipe import Recipe
from tests.model.test_parity import CONFIGS
from tests.tiny import ROWS, TINY, write_base

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no GPU here")
GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


def batch_of(lengths, vocabulary):
    rng = np.random.default_rng(4)
    none = np.zeros(0, np.int32)
    windows = []
    for length in lengths:
        ids = rng.integers(5, vocabulary, length).astype(np.int32)
        windows.append(
            Encoded(ids, np.zeros(length, np.int32), none, none, none, 0, 0, head_positions=np.arange(length))
        )
    return make_batch(windows)


def model_of(family, device, precision):
    config, _ = EncoderConfig.from_json(CONFIGS[family].to_dict())
    model = TaskModel(config, "tokens", 5)
    initialize(model, config.replace(initializer_range=0.1), torch.Generator().manual_seed(2))
    model.to(device)
    set_precision(model.encoder, precision)
    return model


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_outputs_and_gradients_are_those_of_the_cpu(family, precision):
    found = {}
    for device in (CPU, GPU):
        model = model_of(family, device, precision if device == GPU else "fp32")
        batch = batch_of([20, 17, 9, 3, 3], model.config.vocab_size)
        logits = forward(model, batch)
        torch.nn.functional.cross_entropy(logits, torch.arange(len(logits), device=device) % 5).backward()
        found[device] = (
            logits.detach().cpu(),
            {name: part.grad.float().cpu() for name, part in model.named_parameters() if part.grad is not None},
        )
    close = {"rtol": 1e-3, "atol": 1e-4} if precision == "fp32" else {"rtol": 0.1, "atol": 0.05}
    torch.testing.assert_close(found[GPU][0], found[CPU][0], **close)
    assert found[GPU][1].keys() == found[CPU][1].keys()
    for name, grad in found[CPU][1].items():
        scale = float(grad.abs().max()) + 1e-6
        torch.testing.assert_close(
            found[GPU][1][name] / scale, grad / scale, rtol=0, atol=1e-3 if precision == "fp32" else 0.1, msg=name
        )


def test_bf16_uses_flash_attention_where_nothing_is_added_to_scores():
    assert has_flash_attention(GPU, 32)
    assert not has_flash_attention(GPU, 12)
    for family, precision, layout in (("bert", "bf16", Varlen), ("bert", "fp32", Packed), ("mpnet", "bf16", Packed)):
        model = model_of(family, GPU, precision)
        assert isinstance(packed_inputs(batch_of([7, 3], 100), model.encoder)[3], layout)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_dropout_follows_the_seed_and_drops_at_its_rate(precision):
    model = TaskModel(TINY, "tokens", 5)
    initialize(model, TINY, torch.Generator().manual_seed(2))
    model.to(GPU)
    set_precision(model.encoder, precision)
    batch = batch_of([30, 30, 12], model.config.vocab_size)
    runs = [
        forward(model, batch, Dropout(np.random.Generator(np.random.SFC64(seed)))).detach().cpu() for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    ones = torch.ones(1 << 20, device=GPU)
    dropped = Dropout(np.random.default_rng(0))(ones, 0.1)
    assert abs(float((dropped == 0).float().mean()) - 0.1) < 0.002
    assert float(dropped.max()) == pytest.approx(1 / 0.9)


def test_the_optimizer_makes_the_same_steps():
    weights = {}
    for device in (CPU, GPU):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3)).to(device)
        names = [name for name, _ in model.named_parameters()]
        optimizer = MasterAdamW(model, [Group(tuple(names[:2]), 1.0, 0.1), Group(tuple(names[2:]), 0.5, 0.0)])
        model[0].to(torch.bfloat16)
        norms = []
        for step in range(5):
            generator = torch.Generator().manual_seed(step)
            for part in model.parameters():
                part.grad = torch.randn(part.shape, generator=generator).to(device, part.dtype)
            norms.append(float(optimizer.step(0.01, max_norm=1.0)))
        before = {name: master.cpu().clone() for name, master in optimizer.master.items()}
        for part in model.parameters():
            part.grad = torch.full_like(part, float("nan"))
        assert np.isnan(float(optimizer.step(0.01, max_norm=1.0)))
        for name, master in optimizer.master.items():
            assert torch.equal(before[name], master.cpu()), "a norm that is no number must change nothing"
        weights[device] = before, norms
    assert weights[GPU][1] == pytest.approx(weights[CPU][1], rel=1e-2)
    for name, expected in weights[CPU][0].items():
        torch.testing.assert_close(weights[GPU][0][name], expected, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_model_is_trained_and_predicts_there(tmp_path, precision):
    base = write_base(tmp_path / "base")
    recipe = Recipe(epochs=30, batch_size=4, learning_rate=5e-3, precision=precision, dropout=0.0)
    before = torch.cuda.get_rng_state()
    run = finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "run", recipe=recipe, device="cuda")
    assert torch.equal(before, torch.cuda.get_rng_state()), "the caller's randomness must be left alone"
    assert torch.get_float32_matmul_precision() == "highest"
    assert run.history[-1]["dev"]["accuracy"] == 1.0
    texts = [row["text"] for row in ROWS]
    answers = [load(tmp_path / "run", device=device, engine="torch").predict(texts) for device in ("cuda", "cpu")]
    assert list(answers[0]) == list(answers[1]) == [row["label"] for row in ROWS]


@pytest.mark.parametrize(
    ("task", "rows"),
    [
        ("tag", [{"tokens": ["Anna", "lives", "in", "Rome"], "tags": ["B-PER", "O", "O", "B-LOC"]}] * 8),
        (
            "answer",
            [
                {
                    "id": str(number),
                    "question": "who lives here?",
                    "context": "Anna lives in Rome now.",
                    "answers": {"text": ["Anna"], "answer_start": [0]},
                }
                for number in range(8)
            ],
        ),
    ],
)
def test_words_and_answers_are_learned_there(tmp_path, task, rows):
    base = write_base(tmp_path / "base")
    recipe = Recipe(epochs=20, batch_size=4, learning_rate=5e-3, dropout=0.0)
    run = finetune(task, rows, rows, base=base, out=tmp_path / "run", recipe=recipe, device="cuda")
    losses = [line["loss"] for line in run.history if "loss" in line]
    assert losses[-1] < losses[0] / 2


def test_a_run_is_stopped_and_goes_on_there(tmp_path, monkeypatch):
    base = write_base(tmp_path / "base")
    recipe = Recipe(epochs=4, batch_size=4, learning_rate=1e-3, eval_steps=5)
    monkeypatch.setattr("bothways.training.loop._Run.show", stop_once())
    with pytest.raises(InterruptedRunError, match="--resume"):
        finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "run", recipe=recipe, device="cuda")
    run = finetune("classify", ROWS, ROWS, base=base, out=tmp_path / "run", recipe=recipe, device="cuda", resume=True)
    assert run.history[-1]["step"] == 12


def stop_once():
    asked: list[int] = []

    def show(self, bar, sums):
        if not asked and self.state.step == 3:
            asked.append(1)
            os.kill(os.getpid(), signal.SIGINT)

    return show


def test_pretraining_runs_there(tmp_path):
    text = "\n\n".join("\n".join(f"sentence {n} of document {d} here ." for n in range(20)) for d in range(8))
    (tmp_path / "corpus.txt").write_text(text)
    base = write_base(tmp_path / "base", replace(TINY))
    run = pretrain(
        [tmp_path / "corpus.txt"],
        base=base,
        out=tmp_path / "run",
        device="cuda",
        steps=12,
        batch_size=8,
        max_length="32",
        learning_rate=5e-3,
    )
    losses = [line["loss"] for line in run.history if "loss" in line]
    assert losses[-1] < losses[0]


def test_too_little_memory_is_told_in_a_line():
    line = "the GPU has too little memory for a large batch; lower it"
    with pytest.raises(BothwaysError, match=line), enough_memory("a large batch", "lower it"):
        torch.empty(1 << 45, device=GPU)
