"""Models side by side on the same texts, for classes behind the TF-IDF baseline: quality, speed, size, memory.

Each one is measured in a process of its own, so that its memory and its speed are its own too.
"""

from __future__ import annotations

import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bothways.errors import BothwaysError, OptionError
from bothways.metrics import Interval, Scores, mcnemar, paired_difference
from bothways.runtime.artifact import Artifact
from bothways.tasks import Trainable, scored
from bothways.tasks.task import Example, Gold, Prediction
from bothways.terminal import Reporter

BASELINE = "TF-IDF + linear model"
ENOUGH_SECONDS = 6.0  # of passes over the same texts
WARM_TEXTS = 64  # predicted once before the clock starts


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of the table: what a model scored and what it costs.

    `p` is McNemar's against the first row (None there, and for numbers), `memory` the peak in bytes of a
    process that loads the model and predicts (fits and predicts, for the baseline).
    """

    name: str
    scores: Scores
    predictions: tuple[Prediction, ...]
    p: float | None
    texts_per_second: float
    parameters: int
    disk: int
    memory: int

    @property
    def metrics(self) -> dict[str, Interval]:
        """The headline figures."""
        return self.scores.metrics

    def as_json(self) -> dict[str, Any]:
        """The row without its predictions."""
        metrics = {name: interval.as_json() for name, interval in self.metrics.items()}
        costs = ("p", "texts_per_second", "parameters", "disk", "memory")
        return {"name": self.name, "metrics": metrics} | {name: getattr(self, name) for name in costs}


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows, and for each model after the baseline whether it is better, in a sentence."""

    task: Trainable
    rows: tuple[Contender, ...]
    verdicts: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The table and the sentences."""
        n = len(self.rows[0].predictions)
        return {
            "task": self.task.name,
            "n": n,
            "rows": [row.as_json() for row in self.rows],
            "verdicts": list(self.verdicts),
        }


def compare(
    test: Sequence[Example],
    directories: Sequence[Path],
    train: Sequence[Example],
    *,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Comparison:
    """Measure the baseline, fitted on `train` (for classes and numbers), and the models in `directories` on `test`.

    Raises `OptionError` where the models do not answer the same question.
    """
    reporter = reporter or Reporter(quiet=True)
    if not directories:
        raise OptionError("no model to compare; expected at least one directory")
    artifacts = [Artifact.read(directory) for directory in directories]
    task = scored(artifacts[0].task)
    for artifact in artifacts[1:]:
        if _question(scored(artifact.task)) != _question(task):
            raise OptionError(
                f"{artifact.directory} and {artifacts[0].directory} answer different questions "
                "(task, kind or labels differ), so they cannot stand in one table"
            )
    task.check(test)
    task.check(train)
    golds = [example.gold for example in test if example.gold is not None]
    rows: list[Contender] = []
    if task.loss in ("single", "multi", "regression"):
        if not train:
            raise OptionError("the baseline is fitted on the texts that the models were trained on: give --train FILE")
        reporter.note(f"measuring {BASELINE}")
        baseline = {"train": train, "kind": task.loss, "labels": task.labels, "seed": seed}
        rows.append(_row(BASELINE, in_process({"baseline": baseline}, test), task, golds, None, seed))
    for directory in directories:
        reporter.note(f"measuring {directory}")
        measured = in_process({"model": str(directory)}, test)
        rows.append(_row(str(directory), measured, task, golds, rows[0] if rows else None, seed))
    return Comparison(task, tuple(rows), tuple(verdict(task, rows[0], row, golds, seed) for row in rows[1:]))


def _question(task: Trainable) -> tuple[str, str, frozenset[str]]:
    return task.name, task.loss, frozenset(task.labels)


def _row(
    name: str, measured: dict[str, Any], task: Trainable, golds: Sequence[Gold], first: Contender | None, seed: int
) -> Contender:
    predictions = tuple(measured.pop("predictions"))
    p = None
    if first is not None and task.loss != "regression":
        p = mcnemar(_right(task, predictions, golds), _right(task, first.predictions, golds))
    scores = task.score(predictions, golds, rng=np.random.default_rng(seed))
    return Contender(name, scores, predictions, p, **measured)


def verdict(task: Trainable, first: Contender, row: Contender, golds: Sequence[Gold], seed: int) -> str:
    """Whether a model is better than the baseline, in one sentence with the difference and its interval."""
    if task.loss != "single":
        return _interval_verdict(first, row, task.headline)
    rng = np.random.default_rng(seed)
    gain = paired_difference(_right(task, row.predictions, golds), _right(task, first.predictions, golds), rng=rng)
    ours, theirs = row.scores.metrics["accuracy"].value, first.scores.metrics["accuracy"].value
    figures = (
        f"accuracy {_percent(ours)} against {_percent(theirs)} of {first.name}; difference {100 * gain.value:+.1f} "
        f"points, 95 % interval {100 * gain.low:+.1f} to {100 * gain.high:+.1f}; McNemar {_p(row.p)}"
    )
    if row.p is not None and row.p < 0.05 and gain.value > 0:
        return f"{row.name} is better than the baseline: {figures}."
    if row.p is not None and row.p < 0.05:
        return f"{row.name} is WORSE than the baseline: {figures}. Use the baseline."
    return (
        f"{row.name} is not shown to be better than the baseline: {figures}. "
        "The baseline is smaller and faster; more texts, or more labels, would tell."
    )


def _interval_verdict(first: Contender, row: Contender, metric: str) -> str:
    ours, theirs = row.scores.metrics[metric], first.scores.metrics[metric]
    figures = f"{metric} {_spread(ours)} against {_spread(theirs)} of {first.name}"
    if ours.low > theirs.high:
        return f"{row.name} is better than the baseline: {figures}."
    if ours.high < theirs.low:
        return f"{row.name} is WORSE than the baseline: {figures}. Use the baseline."
    return f"{row.name} is not shown to be better than the baseline: {figures}; the intervals overlap."


def _right(task: Trainable, predictions: Sequence[Prediction], golds: Sequence[Gold]) -> list[bool]:
    return [task.right(prediction, gold) for prediction, gold in zip(predictions, golds, strict=True)]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _spread(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _p(p: float | None) -> str:
    return "p < 0.001" if p is not None and p < 0.001 else f"p = {p:.3f}"


def in_process(what: dict[str, Any], test: Sequence[Example]) -> dict[str, Any]:
    """Run `measure` on `what` in a new Python; its answer, or its error as ours."""
    with tempfile.TemporaryDirectory() as folder:
        # Pickles, for nobody else can put anything into the folder between writing and reading.
        request, answer = Path(folder) / "request", Path(folder) / "answer"
        request.write_bytes(pickle.dumps(what | {"test": list(test)}))
        command = [sys.executable, "-P", "-m", "bothways.analysis.compare", str(request), str(answer)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 2:
            raise BothwaysError(done.stderr.strip().splitlines()[-1])
        if done.returncode < 0:
            raise BothwaysError(f"the process that measures was ended by signal {-done.returncode}; was memory short?")
        if done.returncode:
            raise RuntimeError(f"measuring failed:\n{done.stderr}")
        result: dict[str, Any] = pickle.loads(answer.read_bytes())
        return result


def measure(what: dict[str, Any]) -> dict[str, Any]:
    """Predict the texts of a request, timed: predictions, texts a second, parameters, disk, peak memory.

    With "passes" so often, unless that takes long, and the fastest counts: an engine that compiles for each new shape
    is slow the first time.
    """
    test: list[Example] = what["test"]
    if "baseline" in what:
        from bothways.analysis.baseline import fit_baseline

        settings = what["baseline"]
        model = fit_baseline(settings.pop("train"), **settings)
        parameters, disk, predict = model.parameters, model.size_bytes, model.predict
    else:
        from bothways.predictor import load

        predictor = load(what["model"], task=what.get("task"), plan=what.get("plan"))
        artifact, engine = predictor.artifact, predictor.engine
        assert artifact is not None
        files = [*artifact.files(), *([] if engine.weights is None else [engine.weights])]
        parameters, disk = engine.parameters, sum(path.stat().st_size for path in files)
        predict = predictor.predict_examples
    predict(test[:WARM_TEXTS])
    times: list[float] = []
    while not times or (len(times) < what.get("passes", 1) and sum(times) < ENOUGH_SECONDS):
        began = time.perf_counter()
        predictions = predict(test)
        times.append(time.perf_counter() - began)
    seconds = min(times)
    return {
        "predictions": predictions,
        "texts_per_second": len(test) / seconds,
        "parameters": parameters,
        "disk": disk,
        "memory": peak_memory(),
    }


def peak_memory() -> int:
    """The peak memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the parent that this process was forked from
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Answer one request: the path of a request file, the path for the answer."""
    request, answer = (Path(argument) for argument in sys.argv[1:3])
    try:
        result = measure(pickle.loads(request.read_bytes()))
    except BothwaysError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    answer.write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main()
