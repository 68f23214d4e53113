"""Sentences about scores: which of two systems is better, and the limits of the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bothways.data.examples import Reference, labels_of
from bothways.data.schemes import entity_spans
from bothways.metrics import FEW, Interval, Scores, paired_difference
from bothways.tasks import Trainable
from bothways.tasks.classify import shortened
from bothways.tasks.task import Prediction

TOO_FEW = 10  # examples; with fewer, no system is called better
FEW_STEPS = 200  # training steps
CONSTANT = 0.01  # of the references' standard deviation: predictions that vary less are constant
SECOND = {
    "accuracy": ("macro_f1", "matthews"),
    "micro_f1": ("macro_f1",),
    "f1": ("exact_match",),
    "spearman": ("pearson",),
}
NAMES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "matthews": "Matthews correlation",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
    "entity_f1": "entity F1",
    "exact_match": "exact match",
    "f1": "F1",
}
CORRELATIONS = ("matthews", "spearman", "pearson")


@dataclass(frozen=True, slots=True)
class Contender:
    """One row of a comparison: the scores and costs of a model.

    `title` is a short name. `p` is the p-value of McNemar's exact test against the reference row, for accuracy (single
    labels) or exact match (answers), otherwise None. `memory` is the peak in bytes of a process that loads the model
    (or fits the baseline) and predicts. `facts` describe the training.
    """

    name: str
    title: str
    scores: Scores
    predictions: tuple[Prediction, ...]
    p: float | None
    texts_per_second: float
    parameters: int
    disk: int
    memory: int
    engine: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def metrics(self) -> dict[str, Interval]:
        """The metrics with their intervals."""
        return self.scores.metrics

    def as_json(self) -> dict[str, Any]:
        """Return the row as a JSON object, without predictions."""
        metrics = {name: interval.as_json() for name, interval in self.metrics.items()}
        costs = ("p", "texts_per_second", "parameters", "disk", "memory", "engine")
        return {"name": self.name, "metrics": metrics} | {name: getattr(self, name) for name in costs}


def collapsed(task: Trainable, predictions: Sequence[Any], references: Sequence[Reference]) -> str | None:
    """Return the predicate of a sentence about a model with constant predictions; None for other models."""
    answered = [(one, reference) for one, reference in zip(predictions, references, strict=True) if one.error is None]
    if not answered:
        return "answers no example"
    found, wanted = zip(*answered, strict=True)
    if task.loss == "regression":
        numbers, spread = np.array([one.score for one in found]), float(np.std(np.array(wanted, dtype=np.float64)))
        return f"always answers about {numbers.mean():.3g}" if spread and numbers.std() <= CONSTANT * spread else None
    if task.loss == "tokens":
        has = any(entity_spans(reference) for reference in wanted)
        return "finds no entity" if has and not any(entity_spans(one.tags) for one in found) else None
    if task.loss == "spans":
        return "never gives an answer" if any(wanted) and not any(one.best for one in found) else None
    sets = {frozenset(labels_of(reference)) for reference in wanted}
    if task.loss == "multi":
        chosen = {frozenset(one.labels or ()) for one in found}
        if len(chosen) > 1 or len(sets) == 1:
            return None
        always = sorted(chosen.pop())
        none = f"gives no label to any example: none reaches the threshold of {getattr(task, 'threshold', 0.5):g}"
        return f"always answers {shortened(always)!r}" if always else none
    labels = {one.label for one in found}
    return f"always answers {labels.pop()!r}" if len(labels) == 1 and len(sets) > 1 else None


def cautions(task: Trainable, predictions: Sequence[Prediction], references: Sequence[Reference]) -> list[str]:
    """Return sentences about the limits of metrics on these examples."""
    lines = []
    if len(references) < FEW:
        lines.append(
            f"{len(references)} example(s) give wide intervals; label at least {FEW}, preferably a few hundred."
        )
    failed = [one.error for one in predictions if one.error is not None]
    if failed:
        lines.append(
            f"{len(failed)} of {len(references)} examples could not be answered and count as wrong ({failed[0]})."
        )
    if task.loss in ("single", "multi", "tokens"):
        seen = {label for reference in references for label in labels_of(reference)}
        known = {label for label in task.labels if label != "O"}
        if task.loss == "tokens":
            seen, known = ({label[2:] for label in one if label[1:2] == "-"} for one in (seen, known))
        unseen = [label for label in sorted(known) if label not in seen]
        if unseen:
            lines.append(
                f"{len(unseen)} of {len(known)} labels do not occur in these examples, so nothing is known of how well "
                f"they are found: {shortened(unseen)}."
            )
    return lines


def verdict(
    task: Trainable, first: Contender, row: Contender, references: Sequence[Reference], seed: int, *, dev: bool = False
) -> str:
    """Say whether `row` is better than `first`, with the difference of the headline metric and its interval.

    It is better only if the interval of the paired difference is above 0 and, for accuracy, McNemar's test agrees, and
    never with fewer than `TOO_FEW` examples, constant predictions, or a macro F1 that drops more than the metric gains.
    """
    metric = task.headline
    gains = {
        name: paired_difference(row.scores, first.scores, name, rng=np.random.default_rng(seed))
        for name in (metric, "macro_f1")
        if name in row.metrics
    }
    figures = _figures(metric, first, row, gains[metric])
    place = " on the dev set" if dev else ""
    nothing, reference_nothing = (collapsed(task, one.predictions, references) for one in (row, first))
    against = first.title + (f" (which {reference_nothing})" if reference_nothing else "")
    if nothing:
        longer = _advice(row) or "Train it longer, or with another learning rate or base."
        return f"{row.title} {nothing}{place}, so it is not usable; compared with {first.title}: {figures}. {longer}"
    sign = _sign(gains[metric]) if metric != "accuracy" or row.p is None or row.p < 0.05 else 0
    if len(references) < TOO_FEW:
        sign = 0
    macro = gains.get("macro_f1", gains[metric])
    if sign and (_sign(macro) == -sign or sign * macro.value < -abs(gains[metric].value)):
        words = ("higher", "lower", "less") if sign > 0 else ("lower", "higher", "more")
        return (
            f"{row.title} has {words[0]} {NAMES[metric]} but {words[1]} macro F1 than {against}{place}: it finds rare "
            f"labels {words[2]} often; {figures}. Choose by how much the rare labels matter."
        )
    if sign > 0:
        return f"{row.title} is better than {against}{place}: {figures}."
    advice = _advice(row)
    if sign < 0:
        return f"{row.title} is worse than {against}{place}: {figures}. {advice or f'Use {first.title}.'}"
    cheaper = (
        f" Until then {first.title} is the faster choice." if first.texts_per_second > row.texts_per_second else ""
    )
    return (
        f"{row.title} is not shown to be better than {against}{place}: {figures}. "
        f"{advice + ' ' if advice else ''}A larger labeled test set would settle it.{cheaper}"
    )


def caveat(task: Trainable, rows: Sequence[Contender], *, exported: bool) -> str:
    """Return a caveat about the metrics of the last row on the dev set."""
    chosen = ["the checkpoint", *(["the threshold"] if task.tunable else []), *(["the ONNX model"] if exported else [])]
    listed = " and ".join([", ".join(chosen[:-1]), chosen[-1]] if len(chosen) > 1 else chosen)
    return (
        f"The dev set was also used to choose {listed}, so the scores of {rows[-1].title} are slightly too high"
        + (
            ""
            if len(rows) == 1
            else " (those of the baselines are not)"
            if len(rows) > 2
            else f" (those of {rows[0].title} are not)"
        )
        + "; measure the model on a test set."
    )


def _figures(metric: str, first: Contender, row: Contender, gain: Interval) -> str:
    plain = metric in CORRELATIONS
    difference, low, high = (f"{x:+.3f}" if plain else f"{100 * x:+.1f}" for x in (gain.value, gain.low, gain.high))
    test = (
        f"; McNemar's test of {'exact match' if metric == 'f1' else NAMES[metric]}: {_p(row.p)}"
        if row.p is not None
        else ""
    )
    parts = [
        f"{NAMES[metric]} {_figure(row, metric)} against {_figure(first, metric)}, difference {difference}"
        f"{'' if plain else ' points'} (95 % interval {low} to {high}{test})"
    ]
    for name in SECOND.get(metric, ()):
        if name in row.metrics and name in first.metrics:
            parts.append(f"{NAMES[name]} {_figure(row, name)} against {_figure(first, name)}")
    return "; ".join(parts)


def _advice(row: Contender) -> str:
    """Advise to train longer if there are signs that it would help; otherwise ""."""
    steps, best = row.facts.get("steps"), row.facts.get("best_step")
    if not steps or (steps >= FEW_STEPS and best != steps):
        return ""
    state = ", and its last checkpoint was its best" if best == steps else ""
    return f"It was trained for {steps:,} steps only{state}; train it longer (--epochs, --time-budget)."


def _sign(gain: Interval) -> int:
    return 1 if gain.low > 0 else -1 if gain.high < 0 else 0


def _figure(row: Contender, metric: str) -> str:
    value = row.metrics[metric].value
    return f"{value:.3f}" if metric in CORRELATIONS else f"{100 * value:.1f} %"


def _p(p: float) -> str:
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
