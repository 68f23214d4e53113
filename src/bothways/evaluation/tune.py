"""Which engine, precision, workers and batch size are fastest here, measured on the user's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from bothways.data.examples import Example
from bothways.errors import BothwaysError, OptionError
from bothways.evaluation.accuracy_check import MAX_DROP, check_accuracy
from bothways.evaluation.measure import in_process
from bothways.hardware import cores
from bothways.inference.choice import tuned_key, tuned_with
from bothways.inference.engines.engine import ABLE, MAX_TOKENS, TORCH_TOKENS
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.onnx.record import ONNX_PRECISIONS, ExportRecord, OnnxModelRecord
from bothways.inference.plan import Plan, write_tuned
from bothways.progress import Reporter

BUDGETS = (256, 512, 1024)  # besides MAX_TOKENS
MARGIN, SAVED = 0.05, 0.2  # of the speed, that may be lost to save at least so much of the memory
FINALISTS = 2  # engines whose workers and batch sizes are varied
PASSES = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """One way to run a model: how fast, how much memory, and whether its answers hold; or why it did not run."""

    plan: Plan
    texts_per_second: float = 0.0
    memory: int = 0
    onnx_model: OnnxModelRecord | None = None
    problem: str | None = None

    @property
    def stands(self) -> bool:
        """Whether it may be used."""
        return self.problem is None and (self.onnx_model is None or self.onnx_model.rejected is None)

    def as_json(self) -> dict[str, Any]:
        """The trial as one JSON object."""
        facts = {name: getattr(self.plan, name) for name in ("engine", "precision", "workers", "max_tokens")}
        if self.problem is not None:
            return facts | {"problem": self.problem}
        checked = (
            {}
            if self.onnx_model is None
            else {"agreement": self.onnx_model.agreement, "rejected": self.onnx_model.rejected}
        )
        return facts | {"texts_per_second": self.texts_per_second, "memory": self.memory} | checked


def tune_on(
    model_directory: ModelDirectory, examples: Sequence[Example], reporter: Reporter, *, max_drop: float = MAX_DROP
) -> list[Trial]:
    """Measure what can run this model, and remember the winner in its directory for this processor.

    The winner comes first: the fastest, or one within `MARGIN` of it that saves `SAVED` of its memory; then the
    others, fastest first.

    First every engine and precision, each in a separate process; then the workers and the batch sizes of the fastest
    two. What falls below the accuracy check, against fp32 on the same examples, never wins.

    Raises `OptionError` if nothing runs.
    """
    export = ExportRecord.read(model_directory.path)
    onnx_models = (
        {}
        if export is None
        else {onnx_precision for onnx_precision, onnx_model in export.models.items() if onnx_model.rejected is None}
    )
    plans = [
        Plan(engine, precision, 1 if engine == "torch" else cores(), TORCH_TOKENS if engine == "torch" else MAX_TOKENS)
        for engine, able in ABLE.items()
        for precision in able
        if engine == "torch" or ("fp32" if precision == "bf16" else precision) in onnx_models
    ]
    left = [
        onnx_precision
        for onnx_precision in ONNX_PRECISIONS
        if onnx_precision not in (export.models if export is not None else ())
    ]
    if left:
        reporter.note(
            f"not exported, so not measured: {', '.join(left)}; bothways export {model_directory.path} --precision P "
            "(with --calibrate FILE for int8) writes them, and tune again"
        )
    run = _Trials(model_directory, examples, reporter, max_drop)
    for plan in sorted(plans, key=lambda plan: plan.precision != "fp32"):  # fp32 first: the others are compared with it
        run.measure(plan)
    for best in [trial.plan for trial in run.fastest() if trial.plan.engine != "torch"][:FINALISTS]:
        for budget in BUDGETS:
            run.measure(replace(best, max_tokens=budget))
        fast = next(trial.plan for trial in run.fastest() if trial.plan.engine == best.engine)
        if cores() > 1:
            run.measure(replace(fast, workers=1))
    ranked = run.fastest()
    if not ranked:
        raise OptionError(f"{model_directory.path}: nothing could run it; {run.trials[-1].problem}")
    least = min(
        (trial for trial in ranked if trial.texts_per_second >= (1 - MARGIN) * ranked[0].texts_per_second),
        key=lambda trial: trial.memory,
    )
    winner = least if least.memory <= (1 - SAVED) * ranked[0].memory else ranked[0]
    ranked = [winner, *(trial for trial in ranked if trial is not winner)]
    facts = {"texts_per_second": winner.texts_per_second, "examples": len(examples)}
    facts |= tuned_with(export, winner.plan)
    try:
        write_tuned(model_directory.path, tuned_key(model_directory.task), winner.plan, facts)
    except BothwaysError as error:
        reporter.note(f"the winner could not be remembered: {error}")
    rest = [trial for trial in run.trials if not trial.stands]
    return ranked + sorted(rest, key=lambda trial: -trial.texts_per_second)


class _Trials:
    def __init__(
        self, model_directory: ModelDirectory, examples: Sequence[Example], reporter: Reporter, max_drop: float
    ) -> None:
        self.model_directory, self.examples, self.reporter, self.max_drop = (
            model_directory,
            examples,
            reporter,
            max_drop,
        )
        self.trials: list[Trial] = []
        self.reference: Sequence[Any] | None = None

    def fastest(self) -> list[Trial]:
        """Those that may be used, fastest first."""
        return sorted((trial for trial in self.trials if trial.stands), key=lambda trial: -trial.texts_per_second)

    def measure(self, plan: Plan) -> None:
        self.reporter.say(f"measuring {plan}")
        task = self.model_directory.task
        request = {"model": str(self.model_directory.path), "task": task.name, "plan": plan, "passes": PASSES}
        try:
            found = in_process(request, self.examples)
        except (BothwaysError, RuntimeError) as error:  # an engine that is missing, failed or died
            self.trials.append(Trial(plan, problem=str(error).strip().splitlines()[-1]))
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
        self.trials.append(Trial(plan, found["texts_per_second"], found["memory"], onnx_model))
