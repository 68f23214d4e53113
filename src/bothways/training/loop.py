"""The training loop: schedule, clip, accumulate, evaluate, keep the best, stop and resume, on one or more devices.

A `Work` provides the batches and losses: fine-tuning (finetune.py) or pretraining (pretrain.py).
"""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import Tensor

from bothways.errors import BothwaysError, CheckpointError, InterruptedRunError
from bothways.hardware import model_name
from bothways.inference.model_directory import CHECKPOINT, EVENTS
from bothways.model.checkpoint import read_safetensors, write_safetensors
from bothways.model.forward import Precision
from bothways.progress import Bar, Reporter, clock
from bothways.storage import write_text
from bothways.training.devices import SINGLE_PROCESS, Devices
from bothways.training.memory import keeping_freed_memory
from bothways.training.optimizer import MasterAdamW
from bothways.training.recipe import TrainingOptions, schedule

SAVE_SECONDS = 300.0  # between checkpoints, besides those at evaluations
LOG_LINES = 200  # approximate number of loss lines per run
EVALUATIONS = 10
METRICS = "metrics.jsonl"

Part = tuple[Tensor, dict[str, float | Tensor]]
"""A loss to differentiate, and figures to sum over parts, devices and steps: "loss", "tokens" and others.

Figures computed on the device are tensors, so that nothing waits for them before the step is done.
"""


class Work(Protocol):
    """What a run trains. The losses of a step's parts add up to the loss of the step."""

    model: Any  # an `nn.Module` with an `encoder`
    precision: Precision
    devices: Devices
    state: dict[str, Any]  # saved to resume, besides the step

    @property
    def recipe(self) -> TrainingOptions:
        """The options of the run."""
        ...

    def training(self) -> AbstractContextManager[None]:
        """Prepare the model for training and undo it at the end."""
        ...

    def parts(self, step: int, share: float) -> Iterator[Part]:
        """Yield the parts of one update, computed one at a time; `share` is the completed fraction of the run."""
        ...

    def figures(self, sums: dict[str, float], steps: int) -> dict[str, float]:
        """Return the metrics to log, from sums over some steps."""
        ...

    def evaluate(self) -> dict[str, float]:
        """Return the dev metrics of the current model."""
        ...

    def epoch(self, step: int) -> float:
        """Return the number of passes over the data."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """The length, learning rate, evaluation and output directory of a run.

    `identity` holds everything the weights depend on, by name (settings, hashes of data), so that only checkpoints of
    the same run are resumed. `metric` selects the best weights, and `tie_metric` breaks ties; without `metric` the
    last weights are kept.
    """

    title: str
    directory: Path
    identity: Mapping[str, Any]
    batch: str  # description of a batch, for error messages
    total: int  # steps, without a time budget
    time_budget: float | None  # seconds
    eval_steps: int  # steps; 0: `EVALUATIONS` evaluations per run
    learning_rate: float
    layer_decay: float = 1.0
    metric: str | None = None
    tie_metric: str | None = None
    patience: int = 0
    evaluate_first: bool = False  # also evaluate before the first step
    tensorboard: bool = False


@dataclass(slots=True)
class State:
    """The state of a run; everything in a checkpoint besides tensors."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    best: float = -math.inf
    best_tie: float = -math.inf
    best_step: int = 0
    stale: int = 0  # evaluations since the best
    sums: dict[str, float] = field(default_factory=dict)  # since the last log line
    work: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)


def run(
    optimizer: MasterAdamW,
    work: Work,
    plan: RunPlan,
    reporter: Reporter,
    *,
    resume: bool = False,
    devices: Devices = SINGLE_PROCESS,
) -> tuple[State, dict[str, Tensor]]:
    """Train the parameters of `optimizer`; returns the final state and the weights to keep, in fp32.

    Raises `InterruptedRunError` after Ctrl-C or SIGTERM, with everything saved.
    """
    with keeping_freed_memory() as tidy, _interruptible() as stop, _tensorboard(plan, devices) as writer:
        return _Run(optimizer, work, plan, reporter, devices, writer).go(stop, tidy, resume=resume)


class _Run:
    def __init__(
        self, optimizer: MasterAdamW, work: Work, plan: RunPlan, reporter: Reporter, devices: Devices, writer: Any
    ) -> None:
        self.optimizer, self.work, self.plan, self.reporter = optimizer, work, plan, reporter
        self.devices, self.writer = devices, writer
        self.best_weights: dict[str, Tensor] = {}
        self.state = State()

    def go(
        self, stop: Callable[[], bool], tidy: Callable[[], None], *, resume: bool
    ) -> tuple[State, dict[str, Tensor]]:
        plan = self.plan
        if resume:
            self.load()
        state = self.state
        began = time.monotonic() - state.seconds
        saved = logged = time.monotonic()
        with self.reporter.bar(plan.title, 1.0, self.share(state.step)) as bar:
            if plan.evaluate_first and not resume:
                self.evaluate()
            while not self.finished():
                share, done = self.share(state.step), self.done()
                lr = plan.learning_rate * schedule(share, self.work.recipe.warmup_ratio)
                sums, norm = self.step(share, lr, lambda: time.monotonic() - began, stop)
                state.step += 1
                state.tokens += int(sums["tokens"])
                state.seconds = sums.pop("seconds")
                asked = sums.pop("stop") > 0
                state.sums = _added(state.sums, sums | {"steps": 1})
                if self.passed(done, LOG_LINES):
                    steps = int(state.sums.pop("steps"))
                    speed = state.sums["tokens"] / max(time.monotonic() - logged, 1e-9)
                    figures = self.work.figures(state.sums, steps)
                    self.log(figures | {"learning_rate": lr, "grad_norm": norm, "tokens_per_second": round(speed, 1)})
                    state.sums, logged = {}, time.monotonic()
                self.show(bar, sums)
                tidy()
                due = state.step % plan.eval_steps == 0 if plan.eval_steps else self.passed(done, EVALUATIONS)
                if due or self.finished():
                    self.evaluate()
                    state.seconds = self.devices.told(time.monotonic() - began)
                    self.save()
                    saved = time.monotonic()
                if asked or time.monotonic() - saved > SAVE_SECONDS:
                    self.save()
                    saved = time.monotonic()
                if asked and not self.finished():
                    raise InterruptedRunError(
                        f"stopped after step {state.step}; the checkpoint is saved in {plan.directory}: "
                        "repeat the command with --resume to continue"
                    )
        if plan.patience and state.stale >= plan.patience:
            self.reporter.say(f"stopped early: no improvement of dev {plan.metric} in {state.stale} evaluations")
        return state, self.best_weights or self.optimizer.master

    def finished(self) -> bool:
        """Whether the steps, the time budget or the patience are used up."""
        if self.plan.patience and self.state.stale >= self.plan.patience:
            return True
        if self.plan.time_budget is not None:
            return self.state.seconds >= self.plan.time_budget
        return self.state.step >= self.plan.total

    def share(self, step: int) -> float:
        """Return the completed fraction of the run in the middle of `step`; a time budget uses the mean step time.

        The first step counts as a thousandth of the time budget, so that its learning rate is not 0.
        """
        if self.plan.time_budget is not None:
            mean = self.state.seconds / step if step else self.plan.time_budget / 1000
            return min(1.0, (self.state.seconds + mean / 2) / self.plan.time_budget)
        return (step + 0.5) / self.plan.total

    def done(self) -> float:
        """Return the completed fraction of the run."""
        if self.plan.time_budget is not None:
            return min(1.0, self.state.seconds / self.plan.time_budget)
        return self.state.step / self.plan.total

    def passed(self, before: float, times: int) -> bool:
        """Whether one of `times` equal intervals of the run has ended since the fraction `before`."""
        return math.floor(self.done() * times + 1e-9) > math.floor(before * times + 1e-9)

    def step(
        self, share: float, lr: float, seconds: Callable[[], float], stop: Callable[[], bool]
    ) -> tuple[dict[str, float], float]:
        """Make one update; returns the sums of the parts' figures over all devices, and the gradient norm."""
        figures: list[dict[str, float | Tensor]] = [{"loss": 0.0, "tokens": 0.0}]
        for loss, found in self.work.parts(self.state.step, share):
            if len(figures) > 1:
                self.optimizer.collect()
            loss.backward()  # type: ignore[no-untyped-call]
            figures.append(found)
        if len(figures) > 2:
            self.optimizer.collect()
        self.optimizer.add_up(self.devices)
        norm = float(self.optimizer.step(lr, max_norm=self.work.recipe.max_grad_norm))
        sums = {"seconds": seconds() if self.devices.rank == 0 else 0.0, "stop": float(stop())}
        for part in figures:
            sums = _added(sums, {name: float(value) for name, value in part.items()})
        sums = self.devices.total(sums)
        if not (math.isfinite(sums["loss"]) and math.isfinite(norm)):
            at = f"at step {self.state.step + 1}"
            raise BothwaysError(
                f"the loss became {sums['loss']} and the gradient {norm} {at}; try a lower --learning-rate"
            )
        return sums, norm

    def evaluate(self) -> None:
        """Evaluate the model; keep its weights if it is the best so far."""
        state, metric = self.state, self.plan.metric
        values = self.devices.told(self.work.evaluate() if self.devices.rank == 0 else {})
        self.log({"dev": values})
        said = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        if metric is not None:
            rank = (values[metric], values.get(self.plan.tie_metric or "", -math.inf))
            if rank > (state.best, state.best_tie):
                (state.best, state.best_tie), state.best_step, state.stale = rank, state.step, 0
                self.best_weights = {name: master.clone() for name, master in self.optimizer.master.items()}
            else:
                state.stale += 1
            mark = "best so far" if state.stale == 0 else f"best was {state.best:.4f} at step {state.best_step}"
            mark = mark if state.best > -math.inf else "not a number yet"
            shown = {name: values[name] for name in (metric, self.plan.tie_metric) if name in values}
            said = ", ".join(f"{name} {value:.4f}" for name, value in shown.items()) + f" ({mark})"
        epoch = self.work.epoch(state.step)
        self.reporter.say(f"epoch {epoch:.2f}, step {state.step}, {clock(state.seconds)}: dev {said}")

    def show(self, bar: Bar, sums: dict[str, float]) -> None:
        """Update the progress bar."""
        dev = f", dev {self.plan.metric} {self.state.best:.4f}" if self.state.best > -math.inf else ""
        share = self.share(self.state.step - 1)
        bar.update(share, f"step {self.state.step}, loss {sums['loss']:.3f}{dev}")

    def log(self, values: dict[str, Any]) -> None:
        """Write one line to metrics.jsonl, and to TensorBoard if enabled."""
        line = {
            "step": self.state.step,
            "epoch": round(self.work.epoch(self.state.step), 4),
            "seconds": round(self.state.seconds, 2),
            **values,
        }
        self.state.history.append(line)
        if self.devices.rank:
            return
        with (self.plan.directory / METRICS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.writer is not None:
            for name, value in (values | values.get("dev", {})).items():
                if isinstance(value, float):
                    self.writer.add_scalar(name, value, self.state.step)

    def save(self) -> None:
        """Save everything needed to resume in one file."""
        if self.devices.rank:
            return
        self.state.work = self.work.state
        tensors = dict(self.optimizer.tensors())
        tensors |= {f"best/{name}": tensor for name, tensor in self.best_weights.items()}
        metadata = {"identity": json.dumps(dict(self.plan.identity)), "state": json.dumps(asdict(self.state))}
        metadata["machine"] = json.dumps(_machine(self.devices))
        write_safetensors(self.plan.directory / CHECKPOINT, tensors, metadata)

    def load(self) -> None:
        """Resume from the checkpoint of the same run."""
        path = self.plan.directory / CHECKPOINT
        if not path.is_file():
            raise CheckpointError(f"{path}: not there, so there is nothing to resume; leave out --resume")
        tensors, metadata = read_safetensors(path)
        try:
            known, machine, state = (dict(json.loads(metadata[name])) for name in ("identity", "machine", "state"))
            self.state = State(**state)
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{path}: of another version of bothways ({error!r}); --overwrite starts again"
            ) from error
        other = _differences(known, json.loads(json.dumps(dict(self.plan.identity))))
        if other:
            raise CheckpointError(
                f"{path}: belongs to a run with other data, base or settings ({'; '.join(other)}); "
                "repeat the first command exactly, or choose another output directory"
            )
        other = _differences(machine, _machine(self.devices))
        if other:
            self.reporter.note(f"resumed on another system, so the last bits can differ: {'; '.join(other)}")
        self.work.state = self.state.work
        self.optimizer.restore(tensors)
        self.best_weights = {
            name.removeprefix("best/"): tensor for name, tensor in tensors.items() if name.startswith("best/")
        }
        if self.devices.rank == 0:
            lines = "".join(json.dumps(line) + "\n" for line in self.state.history)
            write_text(self.plan.directory / METRICS, lines)
        self.reporter.say(f"resumed at step {self.state.step}")


def _machine(devices: Devices) -> dict[str, Any]:
    """Return the system properties that can change the last bits of a result."""
    return {
        "processor": model_name(),
        "device": devices.device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe each difference briefly; for long values, such as hashes, only the name.

    >>> _differences({"epochs": 3, "base": "0" * 64}, {"epochs": 4, "base": "1" * 64})
    ['epochs was 3, now 4', 'other base']
    """
    found = []
    for name in {**before, **now}:
        values = [str(each.get(name)) for each in (before, now)]
        if values[0] != values[1]:
            short = max(map(len, values)) <= 40
            found.append(f"{name} was {values[0]}, now {values[1]}" if short else f"other {name}")
    return found


def _added(sums: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    return sums | {name: sums.get(name, 0.0) + value for name, value in more.items()}


@contextmanager
def _tensorboard(plan: RunPlan, devices: Devices) -> Iterator[Any]:
    if not plan.tensorboard or devices.rank:
        yield None
        return
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(plan.directory / "tensorboard"), filename_suffix=EVENTS) as writer:
        yield writer


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Record the first Ctrl-C or SIGTERM, so that the step is finished and saved; a second raises KeyboardInterrupt.

    `docker stop`, Slurm and preempted machines send SIGTERM.
    """
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    before: dict[signal.Signals, Any] = {}
    try:
        for each in (signal.SIGINT, signal.SIGTERM):
            before[each] = signal.signal(each, note)
    except ValueError:  # not in the main thread: leave signals to the application
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for each, handler in before.items():
            signal.signal(each, signal.SIG_DFL if handler is None else handler)  # None: not installed from Python
