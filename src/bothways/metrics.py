"""Metrics of predictions against references, each with a 95 % confidence interval.

Proportions (accuracy, exact match) have a Wilson interval. The other metrics except the calibration error use a
bootstrap over EXAMPLES (Efron and Tibshirani, *An Introduction to the Bootstrap*, chapter 13), and the difference of
two systems a paired bootstrap. A bootstrap interval has zero width if the sample has no errors or no successes. Except
for regression, resamples therefore include four pseudo-examples, two right and two wrong (the bootstrap form of Agresti
and Coull, 1998), and intervals are extended to Wilson's interval for the effective number of trials.

Resamples are counts (R, P): R resamples, P distinct rows.
"""

from __future__ import annotations

import math
import re
import string
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bothways.data.schemes import entity_spans
from bothways.errors import DataError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
FEW = 30  # examples; reports warn below this number
CALIBRATION_BINS = 15
MAX_IN_MATRIX = 200  # labels; above it, only the confused pairs are kept
MAX_PAIRS = 1000
CELLS_AT_ONCE = 1_000_000  # 8 MB of float64 per step, for any number of examples
MAX_CELLS, FEWEST_RESAMPLES = 20_000_000, 400  # many examples or labels get fewer resamples
ROUNDING = 1e-24  # below this, a product of two sums of squares is rounding error


@dataclass(frozen=True, slots=True)
class Interval:
    """A score and its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Return the three numbers as a JSON object."""
        return asdict(self)


def without_repeats(metrics: Mapping[str, Interval]) -> list[str]:
    """Return the metric names without micro_f1 if it equals accuracy, as it does for single labels."""
    repeated = metrics.get("micro_f1") == metrics.get("accuracy")
    return [name for name in metrics if not (repeated and name == "micro_f1")]


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The scores of one label; `support` is the number of examples with this reference label."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Scores:
    """The metrics of a model.

    For single labels, `confusion` counts (reference, predicted) in the order of `labels` (None for more than
    `MAX_IN_MATRIX` labels), `confused` has the most frequent errors as (reference, predicted, examples), and
    `reliability` has the non-empty bins of the calibration error as (mean confidence, accuracy, examples).
    """

    metrics: dict[str, Interval]
    per_class: tuple[ClassScore, ...] = ()
    confusion: Counts | None = None
    labels: tuple[str, ...] = ()
    confused: tuple[tuple[str, str, int], ...] = ()
    reliability: tuple[tuple[float, float, int], ...] = ()
    rows: Rows | None = field(default=None, compare=False, repr=False)

    def __repr__(self) -> str:
        figures = (f"{name} {one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for name, one in self.metrics.items())
        return f"<Scores: {', '.join(figures)}>"


def single_label(
    references: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    *,
    confidences: Sequence[float] | None,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Scores:
    """Score one label per example: accuracy, macro_f1, micro_f1, matthews and, with confidences, calibration_error.

    Macro-F1 is the mean over the labels that occur in references or predictions, as in scikit-learn. A label outside
    `labels` ("" for no answer) is added as a class after them. `matthews` is the correlation of Gorodkin (2004); it is
    0 if all references or all predictions are one label. `calibration_error` follows Guo et al. (2017), with 15 bins of
    equal width over the confidence of the predicted label, in [0, 1]; it skips examples with a NaN confidence (no
    answer). Raises DataError if there are no examples.
    """
    _check(references, predicted)
    labels = _all_labels(labels, references, predicted)
    K, position = len(labels), {label: index for index, label in enumerate(labels)}
    reference = np.array([position[label] for label in references])
    guess = np.array([position[label] for label in predicted])
    cells, pattern, counts = np.unique(reference * K + guess, return_inverse=True, return_counts=True)
    places = np.arange(len(cells))
    rows = LabelRows.of(pattern, K, (places, cells // K), (places, cells % K))
    metrics = _intervals(rows, rng, resamples)
    right = int((reference == guess).sum())
    metrics["accuracy"] = metrics["micro_f1"] = wilson(right, len(reference))
    wrong = [(-int(n), int(cell)) for cell, n in zip(cells, counts, strict=True) if cell // K != cell % K]
    confused = tuple((labels[cell // K], labels[cell % K], -n) for n, cell in sorted(wrong)[:MAX_PAIRS])
    matrix = None
    if K <= MAX_IN_MATRIX:
        matrix = np.zeros((K, K), dtype=np.int64)
        matrix.flat[cells] = counts
    reliability: tuple[tuple[float, float, int], ...] = ()
    if confidences is not None:
        _check(references, confidences)
        confidence = np.asarray(confidences, dtype=np.float64)
        answered = ~np.isnan(confidence)
        if answered.any():
            interval, reliability = _calibration((reference == guess)[answered], confidence[answered], rng, resamples)
            metrics["calibration_error"] = interval
    return Scores(metrics, rows.per_class(labels), matrix, labels, confused, reliability, rows)


def multi_label(
    references: Sequence[Collection[str]],
    predicted: Sequence[Collection[str]],
    labels: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Scores:
    """Score sets of labels: accuracy (of whole sets), macro_f1 and micro_f1.

    Macro-F1 is the mean over the labels that occur in references or predictions (scikit-learn also counts the other
    labels, with an F1 of 0). Raises DataError if there are no examples.
    """
    _check(references, predicted)
    labels = _all_labels(labels, *references, *predicted)
    position = {label: index for index, label in enumerate(labels)}
    kinds: dict[tuple[frozenset[str], frozenset[str]], int] = {}
    pairs = [(frozenset(reference), frozenset(guess)) for reference, guess in zip(references, predicted, strict=True)]
    pattern = np.array([kinds.setdefault(pair, len(kinds)) for pair in pairs])

    def entries(side: int) -> tuple[Counts, Counts]:
        cells = [(place, position[label]) for pair, place in kinds.items() for label in pair[side]]
        found = np.array(cells, dtype=np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]

    rows = LabelRows.of(pattern, len(labels), entries(0), entries(1))
    metrics = _intervals(rows, rng, resamples)
    metrics["accuracy"] = wilson(sum(reference == guess for reference, guess in pairs), len(pairs))
    del metrics["matthews"]
    return Scores(metrics, rows.per_class(labels), labels=labels, rows=rows)


def regression(
    references: Sequence[float], predicted: Sequence[float], *, rng: np.random.Generator, resamples: int = 2000
) -> Scores:
    """Score numbers: pearson, spearman (ties share their average rank), mean_absolute_error,
    root_mean_squared_error and r2.

    A correlation with a constant is 0. Raises DataError if there are no examples or a number is not finite.
    """
    _check(references, predicted)
    reference, guess = np.asarray(references, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if not (np.isfinite(reference).all() and np.isfinite(guess).all()):
        raise DataError("found a reference or predicted number that is not finite; correct the row or the model")
    rows = NumberRows(np.arange(len(reference)), reference, guess)
    metrics = _intervals(rows, rng, resamples)
    for name, spread in (("pearson", 1.0), ("spearman", None)):
        metrics[name] = _joined(metrics[name], _fisher(metrics[name].value, len(reference), spread))
    errors = np.abs(reference - guess)
    if len(reference) > 1:
        half = _student(len(reference) - 1) * float(errors.std(ddof=1)) / math.sqrt(len(reference))
        middle = metrics["mean_absolute_error"]
        around = Interval(middle.value, max(0.0, middle.value - half), middle.value + half)
        metrics["mean_absolute_error"] = _joined(middle, around)
    return Scores(metrics, rows=rows)


def tagging(
    references: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Scores:
    """Score BIO tags, one per word: entity_f1, entity_precision, entity_recall, token_accuracy.

    An entity is correct if its type, start and end match. `per_class` has the scores of each entity type. The bootstrap
    resamples sentences.
    """
    _check(references, predicted)
    pairs = [
        (set(entity_spans(reference)), set(entity_spans(guess)))
        for reference, guess in zip(references, predicted, strict=True)
    ]
    types = sorted({kind for pair in pairs for spans in pair for kind, _, _ in spans})
    column = {kind: place for place, kind in enumerate(types)}
    totals = np.zeros((3, len(types)))  # right, reference, predicted
    found = np.zeros((len(pairs), 5))  # the same per sentence, then words with the right tag, words
    for row, (reference, guess) in enumerate(pairs):
        for layer, spans in enumerate((reference & guess, reference, guess)):
            found[row, layer] = len(spans)
            for kind, _, _ in spans:
                totals[layer, column[kind]] += 1
        found[row, 3:] = sum(a == b for a, b in zip(references[row], predicted[row], strict=True)), len(references[row])
    right, wanted, guessed, same, words = found.T
    rows = RatioRows.of(
        ("entity_f1", "entity_precision", "entity_recall", "token_accuracy"),
        (2 * right, right, right, same),
        (wanted + guessed, guessed, wanted, words),
    )
    metrics = _intervals(rows, rng, resamples)
    return Scores(metrics, _class_scores(types, *totals), rows=rows)


def answer_scores(predicted: str, references: Sequence[str]) -> tuple[float, float]:
    """Return exact match and F1 against the best reference, as in SQuAD; without references, the answer is empty.

    Words are compared in lower case, without ASCII punctuation and articles (Rajpurkar et al. 2016, 6.1; 2018, 4).

    >>> answer_scores("The U.S. army", ["US Army", "the US"])
    (1.0, 1.0)
    """
    guess = _answer_words(predicted)
    exact, best = 0.0, 0.0
    # References of only articles and punctuation are skipped, unless all are.
    for reference in [words for words in map(_answer_words, references) if words] or [[]]:
        common = sum((Counter(guess) & Counter(reference)).values())
        f1 = 2 * common / (len(guess) + len(reference)) if guess and reference else float(guess == reference)
        exact, best = max(exact, float(guess == reference)), max(best, f1)
    return exact, best


def answering(
    predicted: Sequence[str], references: Sequence[Sequence[str]], *, rng: np.random.Generator, resamples: int = 2000
) -> Scores:
    """Score answers: exact_match and f1 (see `answer_scores`), averaged over the questions.

    If some questions have no answer, add no_answer_accuracy, and has_answer_exact_match and has_answer_f1 for the rest.
    """
    _check(references, predicted)
    exact, f1 = np.array(
        [answer_scores(guess, reference) for guess, reference in zip(predicted, references, strict=True)]
    ).T
    has = np.array([float(len(reference) > 0) for reference in references])
    names = ["exact_match", "f1"]
    parts, wholes = [exact, f1], [np.ones(len(has)), np.ones(len(has))]
    if not has.all():
        if has.any():
            names += ["has_answer_exact_match", "has_answer_f1"]
            parts, wholes = [*parts, exact * has, f1 * has], [*wholes, has, has]
        names.append("no_answer_accuracy")
        parts, wholes = [*parts, exact * (1 - has)], [*wholes, 1 - has]
    rows = RatioRows.of(names, parts, wholes)
    metrics = _intervals(rows, rng, resamples)
    for name, part, whole in zip(names, parts, wholes, strict=True):
        if not name.endswith("f1"):
            metrics[name] = wilson(float(part.sum()), float(whole.sum()))
    return Scores(metrics, rows=rows)


def _answer_words(text: str) -> list[str]:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def mcnemar(first_right: Sequence[bool], second_right: Sequence[bool]) -> float:
    """Return the exact two-sided p-value of McNemar's test that two systems are equally accurate.

    Only examples that exactly one system got right count; under the null hypothesis each is a fair coin toss.
    """
    _check(first_right, second_right)
    first, second = np.asarray(first_right, dtype=bool), np.asarray(second_right, dtype=bool)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    tosses, ways, tail = only_first + only_second, 1, 0
    for heads in range(min(only_first, only_second) + 1):
        tail += ways
        ways = ways * (tosses - heads) // (heads + 1)
    both_tails: float = 2 * tail / 2**tosses
    return min(1.0, both_tails)


def paired_difference(
    first: Scores, second: Scores, metric: str, *, rng: np.random.Generator, resamples: int = 2000
) -> Interval:
    """Return the metric of the first system minus that of the second, from a paired bootstrap.

    There are four pseudo-examples: both systems right, both wrong, only the first right, only the second right
    (Agresti and Min, 2005). Raises ValueError for scores of different numbers of examples.
    """
    if first.rows is None or second.rows is None or len(first.rows.pattern) != len(second.rows.pattern):
        raise ValueError("the two systems were not scored on the same examples")
    size, place = len(second.rows.weights()), first.rows.names.index(metric)
    other = second.rows.names.index(metric)
    joint, counts = np.unique(first.rows.pattern * size + second.rows.pattern, return_counts=True)
    own = _Entries.of(np.arange(len(joint)), joint // size, len(first.rows.weights()))
    theirs = _Entries.of(np.arange(len(joint)), joint % size, size)
    half = first.rows.imaginary // 2

    def differences(drawn: Floats, imaginary: Floats) -> Floats:
        both = imaginary.reshape(len(imaginary), 4, half).sum(axis=2)  # both right, both wrong, first only, second only
        ours = np.stack([both[:, 0] + both[:, 2], both[:, 1] + both[:, 3]], axis=1)
        others = np.stack([both[:, 0] + both[:, 3], both[:, 1] + both[:, 2]], axis=1)
        assert first.rows is not None
        assert second.rows is not None
        ahead = first.rows.score(own.sums(drawn), ours)[:, place]
        return ahead - second.rows.score(theirs.sums(drawn), others)[:, other]

    value = float(differences(counts[None].astype(np.float64), np.zeros((1, 4 * half)))[0])
    width = max(len(joint), first.rows.width, second.rows.width)
    drawn = np.concatenate([differences(*chunk) for chunk in _resamples(counts, rng, resamples, 4 * half, width)])
    low, high = np.percentile(drawn, (2.5, 97.5)).tolist()
    return Interval(value, min(low, value), max(high, value))


def wilson(right: float, total: float) -> Interval:
    """Return a proportion with its Wilson (1927) interval; without trials, 0 with the interval [0, 1]."""
    if total <= 0:
        return Interval(0.0, 0.0, 1.0)
    share = min(max(right / total, 0.0), 1.0)
    middle = (share + Z * Z / (2 * total)) / (1 + Z * Z / total)
    half = Z * math.sqrt(share * (1 - share) / total + Z * Z / (4 * total * total)) / (1 + Z * Z / total)
    return Interval(share, max(0.0, min(middle - half, share)), min(1.0, max(middle + half, share)))


class Rows(ABC):
    """The contribution of each example to some metrics, for resampling.

    `pattern` (N,) has the row, of P distinct ones, of each example.
    """

    imaginary: ClassVar[int] = 2  # right pseudo-examples, and as many wrong ones
    pattern: Counts
    names: tuple[str, ...]

    @property
    def width(self) -> int:
        """The size of a resample in numbers."""
        return len(self.weights())

    def weights(self) -> Counts:
        """Return the number of examples of each row (P,)."""
        return np.bincount(self.pattern)

    @abstractmethod
    def score(self, drawn: Floats, imaginary: Floats) -> Floats:
        """(R, P) counts of rows and (R, 2) of right and wrong pseudo-examples -> (R, number of names)."""

    def trials(self) -> dict[str, tuple[float, float]]:
        """Return the effective number of binary trials of each metric, and its value if all are wrong."""
        return {}


@dataclass(frozen=True, slots=True, eq=False)
class RatioRows(Rows):
    """Metrics that are ratios: sums of `parts` (P, M) over sums of `wholes` (P, M)."""

    pattern: Counts
    names: tuple[str, ...]
    parts: Floats
    wholes: Floats
    sizes: Floats  # (M,) units of a pseudo-example

    @classmethod
    def of(cls, names: Sequence[str], parts: Sequence[Floats], wholes: Sequence[Floats]) -> RatioRows:
        """Make rows from M columns of N numbers."""
        once = np.ones(len(parts[0]))
        sizes = [_imaginary_size(part, whole, once) for part, whole in zip(parts, wholes, strict=True)]
        columns = (np.stack(parts, axis=1), np.stack(wholes, axis=1), np.array(sizes))
        return cls(np.arange(len(once)), tuple(names), *columns)

    def score(self, drawn: Floats, imaginary: Floats) -> Floats:
        """(R, P) counts -> (R, M)."""
        part = drawn @ self.parts + imaginary[:, :1] * self.sizes
        return _ratio(part, drawn @ self.wholes + imaginary.sum(axis=1, keepdims=True) * self.sizes)

    def trials(self) -> dict[str, tuple[float, float]]:
        """Return the number of units over the units of a pseudo-example."""
        trials = (self.wholes.sum(axis=0) / self.sizes).tolist()
        return {name: (number, 0.0) for name, number in zip(self.names, trials, strict=True)}


@dataclass(frozen=True, slots=True, eq=False)
class _Entries:
    """The labels of rows, as a sparse matrix sorted by label."""

    rows: Counts
    labels: Counts
    starts: Counts
    width: int

    @classmethod
    def of(cls, rows: Counts, labels: Counts, width: int) -> _Entries:
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        return cls(rows[order], present, starts, width)

    def sums(self, drawn: Floats) -> Floats:
        """(R, P) counts of rows -> (R, K) counts of labels."""
        sums = np.zeros((len(drawn), self.width))
        if len(self.rows):
            sums[:, self.labels] = np.add.reduceat(drawn[:, self.rows], self.starts, axis=1)
        return sums


@dataclass(frozen=True, slots=True, eq=False)
class LabelRows(Rows):
    """Rows of reference and predicted labels: K labels with indices `occurring`, out of `among`."""

    names = ("accuracy", "macro_f1", "micro_f1", "matthews")
    pattern: Counts
    occurring: Counts
    among: int
    reference: _Entries
    guess: _Entries
    right: _Entries
    exact: Floats  # (P,) 1 if all labels are right
    share: Floats  # (K,) units of a pseudo-example in each label

    @classmethod
    def of(
        cls, pattern: Counts, among: int, reference: tuple[Counts, Counts], guess: tuple[Counts, Counts]
    ) -> LabelRows:
        """Make rows from the distinct (row, label) entries of references and predictions."""
        occurring = np.unique(np.concatenate([reference[1], guess[1], [0]]))
        P, K = int(pattern.max()) + 1, len(occurring)
        references, guesses = (rows * K + np.searchsorted(occurring, labels) for rows, labels in (reference, guess))
        cells = (references, guesses, np.intersect1d(references, guesses))
        wanted, guessed, right = (_Entries.of(each // K, each % K, K) for each in cells)
        sizes = [np.bincount(each // K, minlength=P) for each in cells]
        counts = np.bincount(pattern)[None].astype(np.float64)
        frequency = wanted.sums(counts)[0] + guessed.sums(counts)[0]
        share = frequency / frequency.sum() if frequency.any() else np.full(K, 1 / K)
        doubled = (2 * sizes[2]).astype(np.float64), (sizes[0] + sizes[1]).astype(np.float64)
        share = share * _imaginary_size(*doubled, counts[0]) / 2
        exact = ((sizes[0] == sizes[2]) & (sizes[1] == sizes[2])).astype(np.float64)
        return cls(pattern, occurring, among, wanted, guessed, right, exact, share)

    @property
    def width(self) -> int:
        """The size of a resample in numbers."""
        return max(len(self.exact), len(self.share), len(self.reference.rows), len(self.guess.rows))

    def score(self, drawn: Floats, imaginary: Floats) -> Floats:
        """(R, P) counts -> (R, 4)."""
        right, reference, guessed = (
            entries.sums(drawn) for entries in (self.right, self.reference, self.guess)
        )  # (R, K)
        all_imaginary = imaginary.sum(axis=1, keepdims=True)
        right += imaginary[:, :1] * self.share
        reference += all_imaginary * self.share
        guessed += all_imaginary * self.share
        N, occurs = drawn.sum(axis=1) + all_imaginary[:, 0], reference + guessed > 0
        macro = _ratio(_ratio(2 * right, reference + guessed).sum(axis=1), occurs.sum(axis=1))
        micro = _ratio(2 * right.sum(axis=1), (reference + guessed).sum(axis=1))
        together = N * right.sum(axis=1) - (reference * guessed).sum(axis=1)
        apart = (N**2 - (reference**2).sum(axis=1)) * (N**2 - (guessed**2).sum(axis=1))
        matthews = _ratio(np.where(apart > 1e-9 * N**4, together, 0.0), np.sqrt(np.maximum(apart, 0)))
        return np.stack([(drawn @ self.exact + imaginary[:, 0]) / N, macro, micro, matthews], axis=1)

    def trials(self) -> dict[str, tuple[float, float]]:
        """Return the number of reference and predicted labels over that of a pseudo-example."""
        counts = self.weights()[None].astype(np.float64)
        units = float(self.reference.sums(counts).sum() + self.guess.sums(counts).sum()) / 2
        trials, worst = units / float(self.share.sum()), -1 / max(1, len(self.share) - 1)
        return {"macro_f1": (trials, 0.0), "micro_f1": (trials, 0.0), "matthews": (trials, worst)}

    def per_class(self, labels: Sequence[str]) -> tuple[ClassScore, ...]:
        """Return the scores of all labels."""
        counts = self.weights()[None].astype(np.float64)
        totals = np.zeros((3, self.among))
        for total, entries in zip(totals, (self.right, self.reference, self.guess), strict=True):
            total[self.occurring] = entries.sums(counts)[0]
        return _class_scores(labels, *totals)


@dataclass(frozen=True, slots=True, eq=False)
class NumberRows(Rows):
    """A reference and a predicted number per example."""

    imaginary = 0
    names = ("pearson", "spearman", "mean_absolute_error", "root_mean_squared_error", "r2")
    pattern: Counts
    reference: Floats
    guess: Floats

    def score(self, drawn: Floats, imaginary: Floats) -> Floats:  # noqa: ARG002 - there are none
        """(R, P) counts -> (R, 5)."""
        N = drawn.sum(axis=1)
        pearson = _correlation(_centered(self.reference), _centered(self.guess), drawn)
        spearman = _correlation(_ranks(self.reference, drawn), _ranks(self.guess, drawn), drawn)
        errors = self.reference - self.guess
        squared = drawn @ errors**2 / N
        shifted = self.reference - self.reference.mean()
        variance = drawn @ shifted**2 / N - (drawn @ shifted / N) ** 2
        constant = variance <= 1e-12 * max(float(np.square(shifted).max()), np.finfo(np.float64).tiny)
        unexplained = np.where(constant, squared > 0, _ratio(squared, np.where(constant, 0.0, variance)))
        figures = (pearson, spearman, drawn @ np.abs(errors) / N, np.sqrt(squared), 1 - unexplained)
        return np.stack(figures, axis=1)


def _check(first: Sequence[Any], second: Sequence[Any]) -> None:
    if len(first) != len(second):
        raise ValueError(f"found {len(first)} and {len(second)} answers; both lists must be of the same examples")
    if len(first) == 0:
        raise DataError("found no examples to score; at least one with a reference answer is needed")


def _all_labels(labels: Sequence[str], *seen: Collection[str]) -> tuple[str, ...]:
    return (*labels, *sorted(set().union(*seen).difference(labels)))


def _class_scores(labels: Sequence[str], right: Floats, reference: Floats, guessed: Floats) -> tuple[ClassScore, ...]:
    columns = (
        _ratio(right, guessed),
        _ratio(right, reference),
        _ratio(2 * right, reference + guessed),
        reference.astype(int),
    )
    return tuple(ClassScore(*row) for row in zip(labels, *(column.tolist() for column in columns), strict=True))


def _imaginary_size(part: Floats, whole: Floats, counts: NDArray[Any]) -> float:
    """Return the number of units in a pseudo-example: the design effect, clipped to between 1 and the mean.

    The design effect is the variance relative to that of independent units. It is averaged with the mean (weight 1);
    its weight is the number of examples with a right unit or with a wrong one, whichever is smaller.
    """
    total = float(counts @ whole)
    if total <= 0:
        return 1.0
    share, mean = float(counts @ part) / total, total / float(counts @ (whole > 0))
    seen = min(float(counts @ (part < whole)), float(counts @ (part > 0)))
    spread = share * (1 - share) * total
    effect = float(counts @ (part - share * whole) ** 2) / spread if seen and spread > 0 else mean
    return float(np.clip((effect * seen + mean) / (seen + 1), min(1.0, mean), max(1.0, mean)))


def _intervals(rows: Rows, rng: np.random.Generator, resamples: int) -> dict[str, Interval]:
    """Return the bootstrap interval of each metric."""
    weights, once = rows.weights(), np.ones((1, 2))
    counts = weights[None].astype(np.float64)
    values = rows.score(counts, 0 * once)[0]
    added = 2 * rows.imaginary

    def score_chunk(drawn: Floats, imaginary: Floats) -> Floats:
        return rows.score(drawn, imaginary.reshape(len(imaginary), 2, rows.imaginary).sum(axis=2))

    drawn = np.concatenate([score_chunk(*chunk) for chunk in _resamples(weights, rng, resamples, added, rows.width)])
    if added:  # bias correction: a mean over rare labels is lower in resamples than in the sample
        drawn -= 2 * (drawn.mean(axis=0) - rows.score(counts, rows.imaginary * once)[0])
    low, high = np.percentile(drawn, (2.5, 97.5), axis=0)
    ends = np.stack([values, np.minimum(low, values), np.maximum(high, values)], axis=1)
    found = {name: Interval(*row) for name, row in zip(rows.names, ends.tolist(), strict=True)}
    for name, (trials, least) in rows.trials().items():
        share = wilson((found[name].value - least) / (1 - least) * trials, trials)
        low, high = (least + (1 - least) * end for end in (share.low, share.high))
        one = _joined(found[name], Interval(found[name].value, low, high))
        found[name] = Interval(one.value, max(least, one.low), min(1.0, one.high))
    return found


def _resamples(
    counts: Counts, rng: np.random.Generator, resamples: int, imaginary: int = 0, width: int = 0
) -> Iterator[tuple[Floats, Floats]]:
    """Yield chunks of resamples: (R, P) counts of rows and (R, `imaginary`) of pseudo-examples."""
    N, P = int(counts.sum()) + imaginary, len(counts) + imaginary
    at_once = max(1, CELLS_AT_ONCE // max(P, width))
    resamples = min(resamples, max(FEWEST_RESAMPLES, MAX_CELLS // max(P, width)))
    weights = np.concatenate([counts, np.ones(imaginary, dtype=np.int64)])
    owners = np.repeat(np.arange(P), weights)
    for start in range(0, resamples, at_once):
        R = min(at_once, resamples - start)
        if 4 * P < N:
            drawn = rng.multinomial(N, weights / N, size=R).astype(np.float64)
        else:  # the same distribution, several times faster if most rows are one example
            places = owners[rng.integers(N, size=(R, N))] + P * np.arange(R)[:, None]
            drawn = np.bincount(places.ravel(), minlength=R * P).reshape(R, P).astype(np.float64)
        yield drawn[:, : len(counts)], drawn[:, len(counts) :]


def _calibration(
    right: NDArray[np.bool_], confidence: Floats, rng: np.random.Generator, resamples: int
) -> tuple[Interval, tuple[tuple[float, float, int], ...]]:
    """Return the calibration error and its bins.

    Sampling noise widens the gaps between confidence and accuracy, so the estimate is biased upwards: by 3 points for
    1,000 examples and a perfectly calibrated model. The interval therefore inverts a test: it contains each true error
    that can give the observed value with the noise of each bin, if the true gaps are proportional to the observed gaps
    or all of one size.
    """
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError("found a confidence that is not a probability; a number in [0, 1] is expected")
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    sizes = np.bincount(bins, minlength=CALIBRATION_BINS).astype(np.float64)
    hits, sums = (np.bincount(bins, x, CALIBRATION_BINS) for x in (right.astype(np.float64), confidence))
    full = sizes > 0
    sizes, hits, sums = sizes[full], hits[full], sums[full]
    shares, gaps = sizes / sizes.sum(), (hits - sums) / sizes
    value = float(shares @ np.abs(gaps))
    likely = (hits + 2 * sums / sizes) / (sizes + 2)  # two pseudo-examples, as accurate as the bin is confident
    noise = np.sqrt(likely * (1 - likely) / sizes) * rng.standard_normal((resamples, len(sizes)))  # (R, bins)
    low, high = np.percentile(np.abs(noise) @ shares, (25, 95))
    held = [value, 0.0, float(high)] if value < low else [value]  # less than the noise of a calibrated model
    for true in np.linspace(0, min(1.0, 2 * value + 0.1), 81):
        for shape in (gaps / max(value, 1e-9), np.sign(gaps)):
            low, high = np.percentile(np.abs(true * shape + noise) @ shares, (2.5, 97.5))
            held += [float(true)] if low <= value <= high else []
    reliability = zip((sums / sizes).tolist(), (hits / sizes).tolist(), sizes.astype(int).tolist(), strict=True)
    return Interval(value, min(held), max(held)), tuple(reliability)


def _joined(first: Interval, second: Interval) -> Interval:
    return Interval(first.value, min(first.low, second.low), max(first.high, second.high))


def _fisher(r: float, n: int, spread: float | None) -> Interval:
    """Return a correlation with Fisher's interval; ranks (`spread` None) use the variance of Bonett and Wright (2000).

    A perfect correlation is reduced by half of what a swap of two adjacent ranks costs.
    """
    if n < 4:
        return Interval(r, -1.0, 1.0)
    least = 6 / (n * (n * n - 1))
    z = math.atanh(min(max(r, least - 1), 1 - least))
    half = Z * math.sqrt((1 + r * r / 2 if spread is None else spread) / (n - 3))
    return Interval(r, min(r, math.tanh(z - half)), max(r, math.tanh(z + half)))


def _student(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t (Cornish-Fisher expansion; from a table for 1 and 2 degrees)."""
    if degrees < 3:
        return (12.7062, 4.3027)[degrees - 1]
    terms = ((Z**3 + Z) / 4, (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96, (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384)
    return Z + sum(term / degrees**power for power, term in enumerate(terms, start=1))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def _centered(values: Floats) -> Floats:
    """Shift and scale values into [-1, 1]; a constant becomes exactly 0."""
    shifted = values - values[0]
    centered: Floats = shifted / max(np.abs(shifted).max(), np.finfo(np.float64).tiny)
    return centered


def _ranks(values: Floats, counts: Floats) -> Floats:
    """Return the average ranks of (N,) values within each resample: (R, N) counts -> (R, N)."""
    _, level, sizes = np.unique(values, return_inverse=True, return_counts=True)
    per_level = np.add.reduceat(counts[:, np.argsort(level)], np.cumsum(sizes) - sizes, axis=1)
    ranks: Floats = (per_level.cumsum(axis=1) - (per_level - 1) / 2)[:, level]
    return ranks


def _correlation(first: Floats, second: Floats, counts: Floats) -> Floats:
    """Return Pearson's r of (N,) or (R, N) values weighted by (R, N) counts -> (R,)."""
    N = counts.shape[1]
    first = first - (counts * first).sum(axis=1, keepdims=True) / N
    second = second - (counts * second).sum(axis=1, keepdims=True) / N
    spread = (counts * first**2).sum(axis=1) * (counts * second**2).sum(axis=1)
    together = (counts * first * second).sum(axis=1)
    return _ratio(np.where(spread > ROUNDING, together, 0.0), np.sqrt(spread))
