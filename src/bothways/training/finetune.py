"""Fine-tuning as work for the loop: windows with targets in shuffled order, every text weighed alike.

All randomness follows from (seed, epoch) and (seed, step), so that a resumed run is the uninterrupted run.
B windows a batch, K pieces read, L outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Batch, make_batch
from bothways.model.config import EncoderConfig
from bothways.model.dropout import Dropout
from bothways.model.engine import Precision, forward, set_precision
from bothways.model.heads import LOSSES, TaskModel
from bothways.terminal import Reporter
from bothways.text.tokenizer import Encoded
from bothways.training.devices import ALONE, Devices
from bothways.training.loop import Part, Plan, State, run
from bothways.training.optimizer import MasterAdamW, parameter_groups
from bothways.training.recipe import Recipe
from bothways.training.vocabulary import UsedRows


@dataclass(frozen=True, slots=True)
class Job:
    """What a run needs besides the model: windows with targets, how to judge, how to fit, where to write.

    `loss` is a name in `LOSSES`. `evaluate` gives the dev metrics of the model as it is; `metric` names the one
    that decides. `identity` says what data and settings the run has, so that no other run's checkpoint is taken up.
    """

    windows: Sequence[Encoded]
    loss: str
    evaluate: Callable[[], dict[str, float]]
    metric: str
    recipe: Recipe
    directory: Path
    identity: str
    precision: Precision = "fp32"
    time_budget: float | None = None  # seconds
    tensorboard: bool = False


def fit(model: TaskModel, job: Job, reporter: Reporter, *, resume: bool = False, devices: Devices = ALONE) -> State:
    """Train `model`, given in fp32, in place; it ends with the weights of the best evaluation, in fp32.

    Raises `InterruptedRunError` after Ctrl-C, with everything saved.
    """
    recipe = job.recipe
    if recipe.freeze_encoder:
        model.encoder.requires_grad_(False)
    if recipe.dropout is not None:
        set_dropout(model, recipe.dropout)
    model.to(devices.device)
    if job.loss == "regression" and not resume:
        with torch.no_grad():
            model.get_parameter("head.output.bias").fill_(_mean(job.windows))
    work = _FineTuning(model, job, devices)
    optimizer = MasterAdamW(model, parameter_groups(model, recipe.layer_decay, recipe.weight_decay))
    frozen = {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}
    set_precision(model.encoder, job.precision)  # after the masters and the frozen took the weights as they are
    plan = Plan(
        title="fine-tuning",
        directory=job.directory,
        identity=job.identity,
        total=max(1, round(recipe.epochs * work.steps_an_epoch)),
        time_budget=job.time_budget,
        eval_every=recipe.eval_every or work.steps_an_epoch,
        lr=recipe.peak_lr(model.config),
        warmup=recipe.warmup,
        max_grad_norm=recipe.max_grad_norm,
        metric=job.metric,
        patience=recipe.patience,
        tensorboard=job.tensorboard,
    )
    try:
        state, learned = run(optimizer, work, plan, reporter, resume=resume, devices=devices)
        model.float()
        parameters = dict(model.named_parameters())
        with torch.no_grad():
            for name, weights in (frozen | learned).items():
                parameters[name].copy_(weights)
        return state
    finally:
        work.used.restore()


class _FineTuning:
    """The windows of a job, in another order each epoch."""

    def __init__(self, model: TaskModel, job: Job, devices: Devices) -> None:
        self.model, self.job, self.devices = model, job, devices
        self.state: dict[str, Any] = {}
        self.used = UsedRows(model.encoder.embeddings.word, job.windows)
        self.order: np.ndarray | None = None  # of the windows in this epoch
        self.weights = window_weights(job.windows, job.loss)
        balanced = job.recipe.class_weights == "balanced"
        self.class_weights = class_weights(job.windows, job.loss) if balanced else None
        self.steps_an_epoch = -(-len(job.windows) // (job.recipe.batch_size * job.recipe.accumulate))
        self.spread = _variance(job.windows) if job.loss == "regression" else 1.0

    def epoch(self, step: int) -> float:
        """How often the windows have been seen."""
        return step / self.steps_an_epoch

    def parts(self, step: int, share: float) -> Iterator[Part]:
        """The batches of one update: of each the windows that are this device's."""
        recipe, windows, size = self.job.recipe, self.job.windows, self.job.recipe.batch_size
        epoch, place = divmod(step, self.steps_an_epoch)
        if place == 0 or self.order is None:
            self.order = np.random.default_rng((recipe.seed, epoch)).permutation(len(windows))
        chosen = self.order[place * size * recipe.accumulate :][: size * recipe.accumulate]
        whole = float(self.weights[chosen].sum())
        for micro, start in enumerate(range(0, len(chosen), size)):
            members = chosen[start : start + size][self.devices.rank :: self.devices.size]
            if not len(members):
                continue
            batch = make_batch([windows[member] for member in members])
            batch = replace(batch, ids=self.used.ids(batch.ids))
            seed = (
                (recipe.seed, step, micro) if self.devices.size == 1 else (recipe.seed, step, micro, self.devices.rank)
            )
            rng = np.random.Generator(np.random.SFC64(seed))
            loss = self.losses(batch, members[batch.members], Dropout(rng)).sum() / whole
            yield loss, {"loss": float(loss.detach()), "tokens": len(batch.ids)}

    def losses(self, batch: Batch, members: np.ndarray, dropout: Dropout) -> Tensor:
        """(B,) losses of a batch, each window weighed so that every text counts once."""
        targets = np.concatenate([np.atleast_1d(self.job.windows[member].target) for member in members])
        logits = forward(self.model, batch, dropout)
        given = (torch.from_numpy(part).to(logits.device) for part in (targets, batch.counts, self.weights[members]))
        gold, counts, weights = given
        balance = None if self.class_weights is None else self.class_weights.to(logits.device)
        return LOSSES[self.job.loss](logits, gold, counts, balance) * weights / self.spread

    def figures(self, sums: dict[str, float], steps: int) -> dict[str, float]:
        """The mean loss of so many steps."""
        return {"loss": sums["loss"] / steps}

    def judge(self) -> dict[str, float]:
        """The metrics on dev of the model with its whole vocabulary."""
        with self.used.restored():
            return self.job.evaluate()


def window_weights(windows: Sequence[Encoded], loss: str) -> np.ndarray:
    """(B,) how much each window counts: for tags the words read in it, so that every word counts once.

    Else one over the number of windows of the same text, so that a long text counts no more than a short one.
    """
    if loss == "tokens":
        return np.array([len(window.reads) for window in windows], dtype=np.float32)
    counts = Counter(window.example for window in windows)
    return np.array([1.0 / counts[window.example] for window in windows], dtype=np.float32)


def class_weights(windows: Sequence[Encoded], loss: str) -> Tensor | None:
    """(L,) weights that give every class the same total: n / (L * count), as scikit-learn's "balanced".

    multi: for each label, how many texts lack it for one that has it. Numbers and spans have no classes.
    """
    if loss in ("regression", "spans"):
        return None
    targets = [window.target for window in windows if window.window == 0 or loss == "tokens"]
    if loss == "multi":
        counts = np.sum(targets, axis=0)
        return torch.from_numpy(((len(targets) - counts) / np.maximum(counts, 1.0)).astype(np.float32))
    classes = np.concatenate([np.atleast_1d(target) for target in targets])
    counts = np.bincount(classes)
    return torch.from_numpy((len(classes) / (len(counts) * np.maximum(counts, 1.0))).astype(np.float32))


def set_dropout(model: torch.nn.Module, rate: float) -> None:
    """Give every module of a model the dropout `rate`."""
    for module in model.modules():
        config = getattr(module, "config", None)
        if isinstance(config, EncoderConfig):
            changed = config.replace(
                hidden_dropout_prob=rate, attention_probs_dropout_prob=rate, classifier_dropout=rate
            )
            module.config = changed  # type: ignore[assignment]
        if hasattr(module, "rate"):
            module.rate = rate  # type: ignore[assignment]


def _mean(windows: Sequence[Encoded]) -> float:
    return float(np.mean([window.target for window in windows]))


def _variance(windows: Sequence[Encoded]) -> float:
    return max(float(np.var([window.target for window in windows])), 1e-12)
