"""Fine-tuning for the training loop: windows with targets in shuffled order, with equal weight for every text.

All randomness depends on (seed, epoch) and (seed, step), so a resumed run equals an uninterrupted run.
B windows per batch, K tokens read, L outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bothways.batch import Batch, make_batch
from bothways.model.dropout import Dropout
from bothways.model.forward import Precision, forward
from bothways.model.heads import LOSSES, SOFT_LOSSES, TaskModel
from bothways.model.layout import on_device
from bothways.text.tokenizer import Encoded
from bothways.training.devices import SINGLE_PROCESS, Devices
from bothways.training.embedding_rows import UsedRows
from bothways.training.loop import EVALUATIONS, Part, RunPlan
from bothways.training.recipe import Recipe
from bothways.training.teacher import TeacherLogits, placeholder

MAX_WEIGHT = 100.0  # of a rare label in multi-label training, so that a single text does not dominate


@dataclass(frozen=True, slots=True)
class FineTuningJob:
    """The inputs of a run besides the model: windows with targets, evaluation, recipe and output directory.

    `loss` is a name in `LOSSES`. `evaluate` returns the dev metrics of the current model; `metric` selects the best
    weights. `identity` holds everything the weights depend on, so that only checkpoints of the same run are resumed.
    `head_is_new` is false if the head was trained before, on unscaled targets. A new pooler is trained even if the
    encoder is frozen. Windows without a target are trained only on the logits of the `teacher`.
    """

    windows: Sequence[Encoded]
    loss: str
    evaluate: Callable[[], dict[str, float]]
    metric: str
    recipe: Recipe
    directory: Path
    identity: Mapping[str, Any]
    precision: Precision = "fp32"
    time_budget: float | None = None  # seconds
    tensorboard: bool = False
    head_is_new: bool = True
    pooler_is_new: bool = False
    teacher: TeacherLogits | None = None


class FineTuning:
    """The windows of a job, shuffled in each epoch."""

    def __init__(self, model: TaskModel, job: FineTuningJob, devices: Devices = SINGLE_PROCESS) -> None:
        self.model, self.job, self.devices = model, job, devices
        self.recipe, self.precision = job.recipe, job.precision
        self.state: dict[str, Any] = {}
        if job.recipe.freeze_embeddings:
            model.encoder.embeddings.word.requires_grad_(False)
        if job.recipe.freeze_encoder:
            model.encoder.requires_grad_(False)
            if job.pooler_is_new and model.encoder.pooler is not None:
                model.encoder.pooler.requires_grad_(True)
        model.to(devices.device)
        self.used = UsedRows(model.encoder.embeddings.word, job.windows)
        self.order: tuple[int, np.ndarray] | None = None  # epoch, order of its windows
        self.ahead: tuple[int, list[tuple[Batch, np.ndarray]]] = (-1, [])  # next step, its batches
        self.weights = window_weights(job.windows, job.loss)
        self.labeled = np.array([window.target is not None for window in job.windows])
        known = [window for window in job.windows if window.target is not None]
        balanced = job.recipe.class_weights == "balanced"
        self.outputs = int(model.get_parameter("head.output.bias").numel())
        self.class_weights = class_weights(known, job.loss, self.outputs) if balanced else None
        if job.loss == "multi" and job.head_is_new and not balanced:
            start_at_frequencies(model.get_submodule("head.output"), known)
        self.steps_an_epoch = -(-len(job.windows) // (job.recipe.batch_size * job.recipe.gradient_accumulation_steps))
        self.scale = Scale.of(known, self.weights[self.labeled]) if job.loss == "regression" else None

    def plan(self) -> RunPlan:
        """Return the plan of the run."""
        job, recipe = self.job, self.recipe
        chosen = recipe.hyperparameters(
            hidden_size=self.model.config.hidden_size, loss=job.loss, outputs=self.outputs, windows=len(job.windows)
        )
        longest = max(len(window.ids) for window in job.windows)
        return RunPlan(
            title="fine-tuning",
            directory=job.directory,
            identity=job.identity,
            batch=f"a batch of {recipe.batch_size} windows of up to {longest} tokens",
            total=max(1, round(chosen.epochs * self.steps_an_epoch)),
            time_budget=job.time_budget,
            eval_steps=recipe.eval_steps or (self.steps_an_epoch if chosen.epochs <= EVALUATIONS else 0),
            learning_rate=chosen.learning_rate,
            layer_decay=chosen.layer_decay,
            metric=job.metric,
            tie_metric="macro_f1" if job.loss == "single" else None,
            patience=chosen.patience,
            tensorboard=job.tensorboard,
        )

    @contextmanager
    def training(self) -> Iterator[None]:
        """Train with the used embedding rows and standardized targets; restore both at the end."""
        head = self.model.get_submodule("head.output") if self.scale is not None else None
        try:
            if self.scale is not None and head is not None and not self.job.head_is_new:
                self.scale.unfold(head)
            yield
            if self.scale is not None and head is not None:
                self.scale.fold(head)
        finally:
            self.used.restore()

    def epoch(self, step: int) -> float:
        """Return the number of passes over the windows."""
        return step / self.steps_an_epoch

    def parts(self, step: int, share: float) -> Iterator[Part]:
        """Yield this device's parts of the batches of one update."""
        recipe, devices = self.job.recipe, self.devices
        whole = float(self.weights[self.chosen(step)].sum())
        for micro, (batch, members) in enumerate(self.ahead[1] if self.ahead[0] == step else self.batches(step)):
            seed = (recipe.seed, step, micro) if devices.size == 1 else (recipe.seed, step, micro, devices.rank)
            rng = np.random.Generator(np.random.SFC64(seed))
            loss = self.losses(batch, members, Dropout(rng)).sum() / whole
            yield loss, {"loss": loss.detach(), "tokens": len(batch.ids)}
        if devices.device.type != "cpu":  # prepare the next batches while the GPU computes
            self.ahead = step + 1, list(self.batches(step + 1))

    def chosen(self, step: int) -> np.ndarray:
        """Return the indices of the windows of one update."""
        epoch, place = divmod(step, self.steps_an_epoch)
        if self.order is None or self.order[0] != epoch:
            self.order = epoch, np.random.default_rng((self.recipe.seed, epoch)).permutation(len(self.job.windows))
        size = self.recipe.batch_size * self.recipe.gradient_accumulation_steps
        return self.order[1][place * size : (place + 1) * size]

    def batches(self, step: int) -> Iterator[tuple[Batch, np.ndarray]]:
        """Yield this device's part of each batch of one update, with the indices of its windows."""
        chosen, size = self.chosen(step), self.recipe.batch_size
        for start in range(0, len(chosen), size):
            members = chosen[start : start + size][self.devices.rank :: self.devices.size]
            if len(members):
                batch = make_batch([self.job.windows[member] for member in members])
                yield replace(batch, ids=self.used.ids(batch.ids)), members[batch.members]

    def losses(self, batch: Batch, members: np.ndarray, dropout: Dropout) -> Tensor:
        """Return the (B,) losses of a batch, weighted by `window_weights`."""
        targets = np.concatenate([np.atleast_1d(self.target(self.job.windows[member])) for member in members])
        if self.scale is not None:
            targets = self.scale.standardized(targets)
        logits = forward(self.model, batch, dropout)
        given = (on_device(part, logits.device) for part in (targets, batch.counts, self.weights[members]))
        reference, counts, weights = given
        balance = None if self.class_weights is None else self.class_weights.to(logits.device)
        hard = LOSSES[self.job.loss](logits, reference, counts, balance)
        if self.job.teacher is None:
            return hard * weights
        soft = SOFT_LOSSES[self.job.loss](logits, self.teacher(members, logits), counts, self.job.teacher.temperature)
        share = np.where(self.labeled[members], self.job.teacher.soft_weight, 1.0).astype(np.float32)
        return torch.lerp(hard, soft, on_device(share, logits.device)) * weights

    def target(self, window: Encoded) -> Any:
        """Return the target of a window, or a placeholder."""
        return placeholder(window, self.job.loss, self.outputs) if window.target is None else window.target

    def teacher(self, members: np.ndarray, logits: Tensor) -> Tensor:
        """Return the teacher's logits for some windows, standardized for regression."""
        assert self.job.teacher is not None
        rows = self.job.teacher.of_windows(members)
        rows = rows if self.scale is None else self.scale.standardized(rows).astype(np.float32)
        return on_device(rows, logits.device)

    def figures(self, sums: dict[str, float], steps: int) -> dict[str, float]:
        """Return the mean loss of some steps."""
        return {"loss": sums["loss"] / steps}

    def evaluate(self) -> dict[str, float]:
        """Return the dev metrics of the model with its whole vocabulary and unscaled predictions."""
        with self.used.restored():
            if self.scale is None:
                return self.job.evaluate()
            with self.scale.folded(self.model.get_submodule("head.output")):
                return self.job.evaluate()


@dataclass(frozen=True, slots=True)
class Scale:
    """Mean and standard deviation of regression targets; the model is trained on (target - mean) / deviation.

    AdamW changes a weight by about the learning rate per step, so outputs in the thousands would never be reached.
    """

    mean: float
    deviation: float

    @classmethod
    def of(cls, windows: Sequence[Encoded], weights: np.ndarray) -> Scale:
        """Return the scale of the windows' targets; the deviation is 1 if all targets are equal."""
        targets = np.array([window.target for window in windows], np.float64)
        mean = float(np.average(targets, weights=weights))
        deviation = float(np.sqrt(np.average(np.square(targets - mean), weights=weights)))
        return cls(mean, deviation if deviation > 1e-12 * max(abs(mean), 1e-300) else 1.0)

    def standardized(self, targets: np.ndarray) -> np.ndarray:
        """Return standardized targets."""
        return (targets - self.mean) / self.deviation

    @torch.no_grad()
    def fold(self, output: nn.Module) -> None:
        """Fold the scale into a linear layer, so that it predicts unscaled values."""
        output.get_parameter("weight").mul_(self.deviation)
        output.get_parameter("bias").mul_(self.deviation).add_(self.mean)

    @torch.no_grad()
    def unfold(self, output: nn.Module) -> None:
        """The reverse of `fold`."""
        output.get_parameter("weight").div_(self.deviation)
        output.get_parameter("bias").sub_(self.mean).div_(self.deviation)

    @contextmanager
    def folded(self, output: nn.Module) -> Iterator[None]:
        """Fold the layer while the block runs, then restore its exact weights."""
        before = {name: parameter.detach().clone() for name, parameter in output.named_parameters()}
        self.fold(output)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in before.items():
                    output.get_parameter(name).copy_(value)


def window_weights(windows: Sequence[Encoded], loss: str) -> np.ndarray:
    """Return (B,) window weights. For tags: the number of words read, so that every word has the same weight.

    Else one over the number of windows of the same text, so that every text has the same weight.
    """
    if loss == "tokens":
        return np.array([len(window.head_positions) for window in windows], dtype=np.float32)
    counts = Counter(window.example for window in windows)
    return np.array([1.0 / counts[window.example] for window in windows], dtype=np.float32)


@torch.no_grad()
def start_at_frequencies(output: nn.Module, windows: Sequence[Encoded]) -> None:
    """Initialize the bias of a new multi-label head so that it predicts the label frequencies (Lin et al. 2017, 3.3).

    Starting from 0.5, a model with rare labels needs hundreds of updates just to learn the frequencies.
    """
    firsts = [window.target for window in windows if not window.window]  # a long text counts once
    targets = np.array(firsts, np.float64)
    frequencies = (targets.sum(0) + 0.5) / (len(targets) + 1.0)
    output.get_parameter("bias").copy_(torch.from_numpy(np.log(frequencies / (1.0 - frequencies))))


def class_weights(windows: Sequence[Encoded], loss: str, outputs: int) -> Tensor | None:
    """Return (L,) class weights that give all classes that occur the same total, like scikit-learn's "balanced".

    single, tokens: n / (number of classes that occur * count). multi: the ratio of texts without the label to texts
    with it, clipped to 1 / `MAX_WEIGHT` and `MAX_WEIGHT`. Absent classes have weight 1. None for regression and spans.
    """
    if loss in ("regression", "spans"):
        return None
    weights, counts, total = np.ones(outputs), np.zeros(outputs), 0
    for window in windows:
        if window.window and loss != "tokens":  # a long text counts once
            continue
        if loss == "multi":
            counts += np.asarray(window.target)
            total += 1
        else:
            classes = np.atleast_1d(window.target)
            np.add.at(counts, classes, 1)
            total += len(classes)
    occur = counts > 0
    if loss == "multi":
        weights[occur] = np.clip((total - counts[occur]) / counts[occur], 1 / MAX_WEIGHT, MAX_WEIGHT)
    else:
        weights[occur] = total / (occur.sum() * counts[occur])
    return torch.from_numpy(weights.astype(np.float32))
