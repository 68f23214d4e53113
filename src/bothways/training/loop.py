"""The one training loop: order, schedule, clip, accumulate, evaluate, keep the best, stop, resume.

All randomness follows from (seed, epoch) and (seed, step), so that a resumed run is the uninterrupted run.
B windows a batch, K pieces read, L outputs.
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bothways.batch import Batch, make_batch
from bothways.errors import BothwaysError, CheckpointError, InterruptedRunError
from bothways.model.checkpoint import read_safetensors, write_safetensors
from bothways.model.dropout import Dropout
from bothways.model.engine import Precision, forward, set_precision
from bothways.model.heads import LOSSES, TaskModel
from bothways.runtime.artifact import CHECKPOINT
from bothways.storage import write_text
from bothways.terminal import Bar, Reporter, clock
from bothways.text.tokenizer import Encoded
from bothways.training.memory import keeping_freed_memory
from bothways.training.optimizer import Group, MasterAdamW
from bothways.training.recipe import Recipe, schedule
from bothways.training.vocabulary import UsedRows

SAVE_SECONDS = 300.0  # between two checkpoints, besides those at evaluations
LOG_LINES = 200  # about so many lines of loss in a run
METRICS = "metrics.jsonl"


@dataclass(slots=True)
class State:
    """Where a run is; all that a checkpoint holds besides tensors."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    best: float = -math.inf
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    history: list[dict[str, Any]] = field(default_factory=list)


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


def fit(model: TaskModel, job: Job, reporter: Reporter, *, resume: bool = False) -> State:
    """Train `model`, given in fp32, in place; it ends with the weights of the best evaluation, in fp32.

    Raises `InterruptedRunError` after Ctrl-C, with everything saved.
    """
    with keeping_freed_memory() as tidy, _interruptible() as stop, _tensorboard(job) as writer:
        return _Run(model, job, reporter, writer).go(stop, tidy, resume=resume)


class _Run:
    def __init__(self, model: TaskModel, job: Job, reporter: Reporter, writer: Any = None) -> None:
        self.model, self.job, self.reporter, self.writer = model, job, reporter, writer
        recipe = job.recipe
        if recipe.freeze_encoder:
            model.encoder.requires_grad_(False)
        if recipe.dropout is not None:
            _set_dropout(model, recipe.dropout)
        self.used = UsedRows(model.encoder.embeddings.word, job.windows)
        self.optimizer = MasterAdamW(model, parameter_groups(model, recipe))
        self.frozen = {name: value.detach() for name, value in model.named_parameters() if not value.requires_grad}
        set_precision(model.encoder, job.precision)  # after the masters and the frozen took the weights as they are
        self.lr = recipe.peak_lr(model.config)
        self.best_weights: dict[str, Tensor] = {}
        self.state = State()
        self.order: np.ndarray | None = None  # of the windows in this epoch
        self.weights = window_weights(job.windows, job.loss)
        self.class_weights = class_weights(job.windows, job.loss) if recipe.class_weights == "balanced" else None
        self.steps_an_epoch = -(-len(job.windows) // (recipe.batch_size * recipe.accumulate))
        self.total = max(1, round(recipe.epochs * self.steps_an_epoch))
        self.log_every = max(1, self.total // LOG_LINES)
        self.spread = _variance(job.windows) if job.loss == "regression" else 1.0

    def go(self, stop: Callable[[], bool], tidy: Callable[[], None], *, resume: bool) -> State:
        job, recipe, state = self.job, self.job.recipe, self.state
        if resume:
            self.load()
            state = self.state
        elif job.loss == "regression":
            with torch.no_grad():
                self.model.get_parameter("head.output.bias").fill_(_mean(job.windows))  # fp32, so its own master
        began = time.monotonic() - state.seconds
        saved = time.monotonic()
        speed = _Speed()
        with self.reporter.bar("fine-tuning", 1.0, self.share(state.step)) as bar:
            while not self.finished():
                epoch, place = divmod(state.step, self.steps_an_epoch)
                share = self.share(state.step)
                lr = self.lr * schedule(share, recipe.warmup)
                loss, norm, tokens = self.step(epoch, place, lr)
                state.step += 1
                state.tokens += tokens
                state.seconds = time.monotonic() - began
                speed.add(tokens, loss)
                if state.step % self.log_every == 0:
                    self.log({"loss": loss, "lr": lr, "grad_norm": norm, **speed.since()})
                self.show(bar, speed)
                tidy()
                at_epoch_end = state.step % self.steps_an_epoch == 0
                due = state.step % recipe.eval_every == 0 if recipe.eval_every else at_epoch_end
                if due or self.finished():
                    self.evaluate()
                    state.seconds = time.monotonic() - began
                    self.save()
                    saved = time.monotonic()
                if stop() or time.monotonic() - saved > SAVE_SECONDS:
                    self.save()
                    saved = time.monotonic()
                if stop() and not self.finished():
                    self.used.restore()
                    raise InterruptedRunError(
                        f"stopped after step {state.step}; all is saved in {job.directory}: "
                        "the same command with --resume goes on from here"
                    )
        if recipe.patience and state.stale >= recipe.patience:
            self.reporter.note(f"stopped early: no better dev {job.metric} in {state.stale} evaluations")
        self.take_best()
        return state

    def finished(self) -> bool:
        """Whether the steps, the time or the patience are used up."""
        patience = self.job.recipe.patience
        if patience and self.state.stale >= patience:
            return True
        if self.job.time_budget is not None:
            return self.state.seconds >= self.job.time_budget
        return self.state.step >= self.total

    def share(self, step: int) -> float:
        """How much of the run is over in the middle of `step`: in time where there is a budget."""
        if self.job.time_budget is not None:
            return min(1.0, self.state.seconds / self.job.time_budget)
        return (step + 0.5) / self.total

    def step(self, epoch: int, place: int, lr: float) -> tuple[float, float, int]:
        """One update from the windows at `place` of the epoch's order; returns loss, gradient norm and tokens."""
        recipe, windows = self.job.recipe, self.job.windows
        if place == 0 or self.order is None:
            self.order = np.random.default_rng((recipe.seed, epoch)).permutation(len(windows))
        order = self.order
        size = recipe.batch_size
        chosen = order[place * size * recipe.accumulate :][: size * recipe.accumulate]
        whole = float(self.weights[chosen].sum())
        total, tokens = 0.0, 0
        for micro, start in enumerate(range(0, len(chosen), size)):
            members = chosen[start : start + size]
            batch = make_batch([windows[member] for member in members])
            batch = replace(batch, ids=self.used.ids(batch.ids))
            rng = np.random.Generator(np.random.SFC64((recipe.seed, self.state.step, micro)))
            losses = self.losses(batch, members[batch.members], Dropout(rng))
            loss = losses.sum() / whole
            loss.backward()  # type: ignore[no-untyped-call]
            if recipe.accumulate > 1:
                self.optimizer.collect()
            total += float(loss.detach())
            tokens += len(batch.ids)
        norm = self.optimizer.step(lr, max_norm=recipe.max_grad_norm)
        if not (math.isfinite(total) and math.isfinite(norm)):
            at = f"at step {self.state.step + 1}"
            raise BothwaysError(f"the loss became {total} and the gradient {norm} {at}; try a lower --lr")
        return total, norm, tokens

    def losses(self, batch: Batch, members: np.ndarray, dropout: Dropout) -> Tensor:
        """(B,) losses of a batch, each window weighed so that every text counts once."""
        targets = np.concatenate([np.atleast_1d(self.job.windows[member].target) for member in members])
        logits = forward(self.model, batch, dropout)
        counts = torch.from_numpy(batch.counts)
        losses = LOSSES[self.job.loss](logits, torch.from_numpy(targets), counts, self.class_weights)
        return losses * torch.from_numpy(self.weights[members]) / self.spread

    def evaluate(self) -> None:
        """Judge the model on dev; keep its weights if it is the best so far."""
        state, metric = self.state, self.job.metric
        with self.used.restored():
            values = self.job.evaluate()
        if values[metric] > state.best:
            state.best, state.best_step, state.stale = values[metric], state.step, 0
            self.best_weights = {name: master.clone() for name, master in self.optimizer.master.items()}
        else:
            state.stale += 1
        self.log({"dev": values})
        epoch = state.step / self.steps_an_epoch
        mark = "best so far" if state.stale == 0 else f"best was {state.best:.4f} at step {state.best_step}"
        self.reporter.note(
            f"epoch {epoch:.2f}, step {state.step}, {clock(state.seconds)}: dev {metric} {values[metric]:.4f} ({mark})"
        )

    def show(self, bar: Bar, speed: _Speed) -> None:
        """Move the bar."""
        dev = f", dev {self.job.metric} {self.state.best:.4f}" if self.state.best > -math.inf else ""
        share = self.share(self.state.step - 1)
        bar.update(share, f"step {self.state.step}, loss {speed.loss:.3f}{dev}")

    def log(self, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl, and TensorBoard if asked for."""
        line = {
            "step": self.state.step,
            "epoch": round(self.state.step / self.steps_an_epoch, 4),
            "seconds": round(self.state.seconds, 2),
            **values,
        }
        self.state.history.append(line)
        with (self.job.directory / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for name, value in (values | values.get("dev", {})).items():
                if isinstance(value, float):
                    self.writer.add_scalar(name, value, self.state.step)

    def save(self) -> None:
        """Everything needed to go on, as one file."""
        tensors = dict(self.optimizer.tensors())
        tensors |= {f"best/{name}": tensor for name, tensor in self.best_weights.items()}
        metadata = {"identity": self.job.identity, "state": json.dumps(asdict(self.state))}
        write_safetensors(self.job.directory / CHECKPOINT, tensors, metadata)

    def load(self) -> None:
        """Go on from the checkpoint of the same run."""
        path = self.job.directory / CHECKPOINT
        if not path.is_file():
            raise CheckpointError(f"{path}: not there, so there is nothing to resume; leave out --resume")
        tensors, metadata = read_safetensors(path)
        if metadata.get("identity") != self.job.identity:
            raise CheckpointError(
                f"{path}: belongs to a run with other data, base or settings; "
                "repeat the first command exactly, or choose another output directory"
            )
        self.state = State(**json.loads(metadata["state"]))
        self.optimizer.restore(tensors)
        self.best_weights = {
            name.removeprefix("best/"): tensor for name, tensor in tensors.items() if name.startswith("best/")
        }
        lines = "".join(json.dumps(line) + "\n" for line in self.state.history)
        write_text(self.job.directory / METRICS, lines)
        self.reporter.note(f"resumed at step {self.state.step}")

    def take_best(self) -> None:
        """Give the model the weights of the best evaluation, fp32, and its whole vocabulary back."""
        self.model.float()
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, weights in (self.frozen | self.best_weights).items():
                parameters[name].copy_(weights)
        self.used.restore()


class _Speed:
    """Tokens a second and a running mean of the loss."""

    def __init__(self) -> None:
        self.loss, self._tokens, self._time = math.nan, 0, time.monotonic()

    def add(self, tokens: int, loss: float) -> None:
        self.loss = loss if math.isnan(self.loss) else 0.9 * self.loss + 0.1 * loss
        self._tokens += tokens

    def since(self) -> dict[str, float]:
        now = time.monotonic()
        speed = self._tokens / max(now - self._time, 1e-9)
        self._tokens, self._time = 0, now
        return {"tokens_per_second": round(speed, 1)}


def parameter_groups(model: TaskModel, recipe: Recipe) -> list[Group]:
    """Parameters by weight decay (none on biases and norms) and by layer-wise learning rate."""
    depth = len(model.encoder.layers)
    groups: dict[tuple[float, float], list[str]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        below = 0
        if name.startswith("encoder.embeddings."):
            below = depth + 1
        elif name.startswith("encoder.layers."):
            below = depth - int(name.split(".")[2])
        plain = name.endswith(".bias") or "norm" in name
        key = (recipe.layer_decay**below, 0.0 if plain else recipe.weight_decay)
        groups.setdefault(key, []).append(name)
    return [Group(tuple(names), factor, decay) for (factor, decay), names in groups.items()]


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


def _set_dropout(model: TaskModel, rate: float) -> None:
    config = model.config.replace(hidden_dropout_prob=rate, attention_probs_dropout_prob=rate, classifier_dropout=rate)
    for module in model.modules():
        if hasattr(module, "config"):
            module.config = config  # type: ignore[assignment]
        if hasattr(module, "rate"):
            module.rate = rate  # type: ignore[assignment]


def _mean(windows: Sequence[Encoded]) -> float:
    return float(np.mean([window.target for window in windows]))


def _variance(windows: Sequence[Encoded]) -> float:
    return max(float(np.var([window.target for window in windows])), 1e-12)


@contextmanager
def _tensorboard(job: Job) -> Iterator[Any]:
    if not job.tensorboard:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(job.directory / "tensorboard")) as writer:
        yield writer


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Within, Ctrl-C is noted instead of raised, so that a step is finished and saved; a second one is raised."""
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: whoever owns it decides
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
