"""Finds the best engine, precision, workers and batch size on this machine, measured on the user's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from bothways.data.examples import Example
from bothways.errors import BothwaysError, OptionError
from bothways.evaluation.accuracy_check import MAX_DROP, check_accuracy
from bothways.evaluation.measure import in_process
from bothways.hardware import cores
from bothways.inference.choice import tuned_key, tuned_with
from bothways.inference.engines.engine import ABLE
from bothways.inference.engines.openvino import why_no_openvino
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import ExportRecord, OnnxModelRecord
from bothways.inference.plan import LONG_FROM, ONE_AT_A_TIME, Plan, default_plan, write_tuned
from bothways.inference.plan_files import export_for, onnx_precision_of, remove_compiled
from bothways.progress import Reporter

Goal = Literal["throughput", "latency"]
BUDGETS = (256, 384, 512, 1024)
MARGIN = 0.03  # two measurements of the same plan differ by this much, so a smaller lead does not justify more memory
SAVED = 0.2  # of memory: a smaller saving does not justify a slower plan
FINALISTS = 2  # plans whose workers and batch sizes are varied
PASSES = 3
WORTH_COMPILING = 0.75  # of the fastest: compiled layers were up to 1.15 times as fast, or more with faster products
MIN_CLASS = 16  # minimum number of texts to time a length class


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed in batches (texts/s) and of single texts (median milliseconds)."""

    texts_per_second: float
    milliseconds: float

    def of(self, goal: Goal) -> float:
        """Return texts/s, in batches or one at a time."""
        return self.texts_per_second if goal == "throughput" else 1000 / self.milliseconds

    def as_json(self) -> dict[str, float]:
        """Return the speed as a JSON object."""
        return {"texts_per_second": self.texts_per_second, "milliseconds": self.milliseconds}


@dataclass(frozen=True, slots=True)
class Trial:
    """The measurements of a plan: speed, memory and the accuracy check; or the reason that it did not run.

    `cold_start` is the time in seconds from the start of a Python process to its first prediction. `by_length` has the
    speed with short and long texts (`LONG_FROM`) if there are enough of both.
    """

    plan: Plan
    texts_per_second: float = 0.0
    memory: int = 0
    onnx_model: OnnxModelRecord | None = None
    problem: str | None = None
    milliseconds: float = 0.0
    cold_start: float = 0.0
    by_length: tuple[Speed, ...] = ()

    @property
    def usable(self) -> bool:
        """Whether the plan ran and passed the accuracy check."""
        return self.problem is None and (self.onnx_model is None or self.onnx_model.rejected is None)

    def speed(self, goal: Goal, length_class: int | None = None) -> float:
        """Return texts/s for a goal, with all texts or one length class (0: short, 1: long)."""
        whole = Speed(self.texts_per_second, self.milliseconds)
        return (whole if length_class is None else self.by_length[length_class]).of(goal)

    def as_json(self) -> dict[str, Any]:
        """Return the trial as a JSON object."""
        facts = self.plan.as_json()
        if self.problem is not None:
            return facts | {"problem": self.problem}
        facts |= Speed(self.texts_per_second, self.milliseconds).as_json()
        facts |= {"memory": self.memory, "cold_start": self.cold_start}
        if self.by_length:
            facts["by_length"] = dict(zip(("short", "long"), (each.as_json() for each in self.by_length), strict=True))
        if self.onnx_model is not None:
            facts |= {"agreement": self.onnx_model.agreement, "rejected": self.onnx_model.rejected}
        return facts


def tune_on(
    model_directory: ModelDirectory,
    examples: Sequence[Example],
    reporter: Reporter,
    *,
    max_drop: float = MAX_DROP,
    goal: Goal = "throughput",
    compiling: bool = True,
) -> list[Trial]:
    """Measure the plans for this model, and save the best for this processor in the model directory.

    Return the winner first, then the others, fastest first. The winner is the fastest plan, or the plan within `MARGIN`
    of it with the least memory, if that saves the fraction `SAVED`. If there are enough short and long texts, and
    another engine or precision is faster for one of these classes by more than `MARGIN`, the winner is a plan with one
    part for each class, if a measurement confirms the gain.

    Each engine and precision is measured in a separate process. Then, for throughput, compiled PyTorch layers (with
    `compiling`, if PyTorch is close to the fastest) and other workers and batch sizes of the two fastest plans; for
    latency, also one worker with all cores. Plans that fail the accuracy check against fp32 on the same examples never
    win.

    Raises `OptionError` if nothing runs.
    """
    export, reason = export_for(model_directory)
    if reason is not None:
        reporter.note(reason)
    run = _Trials(model_directory, examples, reporter, max_drop, goal)
    plans = _plans(export)
    for plan in plans:
        run.measure(plan)
    if compiling and goal == "throughput":  # compiled layers are not faster for one short text
        run.compile(plans, export)
    varied = [plan for plan in plans if (plan.engine, plan.precision) not in ONE_AT_A_TIME]
    if goal == "latency":
        for plan in varied if cores() > 1 else ():
            run.measure(replace(plan, workers=1))
    else:
        for best in run.finalists(varied):
            run.vary(best)
    if not run.ranked():
        raise OptionError(f"{model_directory.path}: nothing could run it; {run.trials[-1].problem}")
    winner = run.winner()
    for plan in run.compiled - {default_plan(part.engine, part.precision) for part in winner.plan.parts()}:
        remove_compiled(model_directory, export, plan)
    facts = {"goal": goal, "texts_per_second": winner.texts_per_second, "milliseconds": winner.milliseconds}
    facts |= {"memory": winner.memory, "cold_start": winner.cold_start, "examples": len(examples)}
    short, *long = (tuned_with(model_directory, export, part) for part in winner.plan.parts())
    try:
        write_tuned(model_directory.path, tuned_key(model_directory.task), winner.plan, facts | short, *long)
    except BothwaysError as error:
        reporter.note(f"the tuned plan could not be saved: {error}")
    rest = [trial for trial in run.trials if not trial.usable]
    others = [trial for trial in run.ranked() if trial is not winner]
    return [winner, *others, *sorted(rest, key=lambda trial: -trial.texts_per_second)]


def _plans(export: ExportRecord | None) -> list[Plan]:
    """Return a plan for each engine and precision with an accepted model; fp32 first, as the reference."""
    accepted = {
        name for name, onnx_model in ({} if export is None else export.models).items() if onnx_model.rejected is None
    }
    plans = [default_plan(engine, precision) for engine, able in ABLE.items() for precision in able]
    plans = [plan for plan in plans if onnx_precision_of(plan) in (None, *accepted)]
    return sorted(plans, key=lambda plan: plan.precision != "fp32")


def length_classes(model_directory: ModelDirectory, examples: Sequence[Example]) -> list[list[int]]:
    """Return the indices of short and of long examples, or of all if one class has too few."""
    longest = [0] * len(examples)
    for window in model_directory.task.encode(examples, model_directory.tokenizer):
        longest[window.example] = max(longest[window.example], len(window.ids))
    classes: list[list[int]] = [[], []]
    for place, tokens in enumerate(longest):
        classes[int(tokens >= LONG_FROM)].append(place)
    return classes if min(map(len, classes)) >= MIN_CLASS else [list(range(len(examples)))]


class _Trials:
    def __init__(
        self,
        model_directory: ModelDirectory,
        examples: Sequence[Example],
        reporter: Reporter,
        max_drop: float,
        goal: Goal,
    ) -> None:
        self.model_directory, self.examples, self.reporter = model_directory, examples, reporter
        self.max_drop, self.goal = max_drop, goal
        self.classes = length_classes(model_directory, examples)
        self.trials: list[Trial] = []
        self.reference: Sequence[Any] | None = None
        self.compiled: set[Plan] = set()
        self.no_openvino = why_no_openvino()  # checked here, because the first check adds seconds to a cold start

    def ranked(self, length_class: int | None = None) -> list[Trial]:
        """Return the usable trials, fastest first."""
        usable = [trial for trial in self.trials if trial.usable]
        return sorted(usable, key=lambda trial: -trial.speed(self.goal, length_class))

    def finalists(self, varied: Sequence[Plan]) -> list[Plan]:
        """Return the fastest plans of each length class."""
        found: list[Plan] = []
        for length_class in self._length_classes():
            fast = [trial.plan for trial in self.ranked(length_class) if trial.plan in varied]
            found += [plan for plan in fast[:FINALISTS] if plan not in found]
        return found

    def compile(self, plans: Sequence[Plan], export: ExportRecord | None) -> None:
        """Compile the layers of PyTorch plans that are close to the fastest; keep them if they are faster."""
        for plan in plans:
            eager = next((trial for trial in self.ranked() if trial.plan == plan), None)
            if plan.engine != "torch" or (plan.engine, plan.precision) in ONE_AT_A_TIME or eager is None:
                continue
            if eager.speed(self.goal) < WORTH_COMPILING * self.ranked()[0].speed(self.goal):
                continue
            self.reporter.say(f"compiling {plan}")
            try:
                in_process(
                    {"model": str(self.model_directory.path), "task": self.model_directory.task.name, "compile": plan},
                    [],
                )
            except (BothwaysError, RuntimeError) as error:
                self.reporter.note(f"{plan} was not compiled: {str(error).strip().splitlines()[-1]}")
                continue
            self.measure(plan)
            compiled = self.trials.pop()
            if compiled.usable and compiled.speed(self.goal) > eager.speed(self.goal):
                self.trials[self.trials.index(eager)] = compiled
                self.compiled.add(plan)
            else:
                remove_compiled(self.model_directory, export, plan)

    def vary(self, plan: Plan) -> None:
        """Measure other batch sizes, then one worker with the best batch size."""
        for budget in BUDGETS:
            if budget == plan.max_tokens:
                continue
            self.measure(replace(plan, max_tokens=budget))
        best = [
            next(
                trial.plan
                for trial in self.ranked(length_class)
                if (trial.plan.engine, trial.plan.precision) == (plan.engine, plan.precision)
            )
            for length_class in self._length_classes()
        ]
        for each in dict.fromkeys(best):
            if each.workers > 1:
                self.measure(replace(each, workers=1))

    def winner(self) -> Trial:
        """Return the best trial for all texts, or of a plan with an engine per length class."""
        whole = self._lightest(None)
        if len(self.classes) == 1:
            return whole
        parts = []
        for length_class in range(len(self.classes)):
            fastest = self.ranked(length_class)[0]
            parts.append(self._lightest(length_class) if self._gains(fastest, whole, length_class) else whole)
        short, long = (trial.plan for trial in parts)
        if (short.engine, short.precision) == (long.engine, long.precision):
            return whole  # a different batch size does not justify a second copy of the model
        self.measure(replace(short, long=long))
        both = self.trials[-1]
        if not both.usable:
            return whole
        gains = [self._gains(both, whole, length_class) for length_class in range(len(self.classes))]
        loses = [self._gains(whole, both, length_class) for length_class in range(len(self.classes))]
        return both if any(gains) and not any(loses) else whole

    def _gains(self, trial: Trial, other: Trial, length_class: int) -> bool:
        """Return whether a trial is faster than another by more than `MARGIN` for a length class."""
        return (1 - MARGIN) * trial.speed(self.goal, length_class) > other.speed(self.goal, length_class)

    def _lightest(self, length_class: int | None) -> Trial:
        """Return the fastest trial, or the one within `MARGIN` with the least memory, if that saves `SAVED`."""
        fastest, *others = self.ranked(length_class)
        enough = (1 - MARGIN) * fastest.speed(self.goal, length_class)
        light = [
            trial
            for trial in others
            if trial.speed(self.goal, length_class) >= enough and trial.memory <= (1 - SAVED) * fastest.memory
        ]
        return min(light, key=lambda trial: trial.memory, default=fastest)

    def _length_classes(self) -> list[int | None]:
        return [None] if len(self.classes) == 1 else [*range(len(self.classes))]

    def measure(self, plan: Plan) -> None:
        self.reporter.say(f"measuring {plan}")
        task = self.model_directory.task
        request = {"model": str(self.model_directory.path), "task": task.name, "plan": plan, "passes": PASSES}
        request["groups"] = self.classes
        if self.no_openvino is not None and "openvino" in [part.engine for part in plan.parts()]:
            self.trials.append(Trial(plan, problem=self.no_openvino))
            return
        try:
            found = in_process(request, self.examples)
        except (BothwaysError, RuntimeError) as error:  # the engine is missing, failed or crashed
            self.trials.append(Trial(plan, problem=str(error).strip().splitlines()[-1]))
            return
        if plan.long is None and f", {plan.precision}, " not in found["engine"]:
            self.trials.append(Trial(plan, problem=f"not supported here: {found['engine']} ran instead"))
            return
        predictions, onnx_model = found["predictions"], None
        if self.reference is None:
            self.reference = predictions
            if plan.precision != "fp32":
                self.reporter.note(f"nothing runs fp32 here, so the others are compared with {plan}")
        else:
            onnx_model = check_accuracy(
                OnnxModelRecord(""), task, self.examples, self.reference, predictions, max_drop=self.max_drop
            )
        self.trials.append(
            Trial(
                plan,
                found["texts_per_second"],
                found["memory"],
                onnx_model,
                milliseconds=found["milliseconds"],
                cold_start=found["cold_start"],
                by_length=tuple(Speed(*each) for each in found["groups"]) if len(self.classes) > 1 else (),
            )
        )
