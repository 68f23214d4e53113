"""How good are the answers, and how sure can we be: scores of lists, each with its bootstrap interval.

Every interval is the 2.5 to 97.5 % range of the score over resamples of the EXAMPLES (Efron and Tibshirani,
*An Introduction to the Bootstrap*, chapter 13). A score depends only on how often each row occurs in a
resample, so resamples are drawn as counts (R, P): R resamples, P distinct rows.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bothways.errors import DataError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]
Score = Callable[[Floats], Floats]  # (R, P) counts -> (R, number of metrics)
CALIBRATION_BINS = 15
CELLS_AT_ONCE = 1_000_000  # 8 MB of float64 a step, whatever the number of examples
ROUNDING = 1e-24  # a product of two spreads below this is a constant's rounding error


@dataclass(frozen=True, slots=True)
class Interval:
    """A score and the ends of its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """The three numbers as one JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ClassScore:
    """How one label fared; `support` is how many examples have it as gold."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Scores:
    """What a model scored; `confusion` counts (gold, predicted) in the order of `labels`, for single labels only."""

    metrics: dict[str, Interval]
    per_class: tuple[ClassScore, ...] = ()
    confusion: NDArray[np.int64] | None = None
    labels: tuple[str, ...] = ()


def single_label(
    golds: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    *,
    confidences: Sequence[float] | None,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Scores:
    """Score one label an example: accuracy, macro_f1, micro_f1, matthews and, with confidences, calibration_error.

    Macro-F1 is the mean over the labels that occur in gold or predictions, as in scikit-learn; a label that
    does not occur has an F1 of 0. A label outside `labels` ("" for no answer) becomes a class of its own, behind
    them. `matthews` is the correlation of Gorodkin (2004), 0 when all golds or all predictions are one label.
    `calibration_error` is that of Guo et al. (2017) over 15 bins of equal width, for the confidence in [0, 1]
    that the predicted label had. Raises DataError when there are no examples.
    """
    _check(golds, predicted)
    labels = _all_labels(labels, golds, predicted)
    position = {label: index for index, label in enumerate(labels)}
    K = len(labels)
    cells = np.array([position[g] * K + position[p] for g, p in zip(golds, predicted, strict=True)])
    confusion = np.bincount(cells, minlength=K * K)
    occupied = np.flatnonzero(confusion)
    marks = np.eye(K)[[occupied // K, occupied % K]]  # (2, P, K)
    metrics, per_class = _label_scores(labels, marks, confusion[occupied], rng, resamples)
    if confidences is not None:
        _check(golds, confidences)
        right = cells // K == cells % K
        metrics["calibration_error"] = _calibration_error(right, confidences, rng, resamples)
    return Scores(metrics, per_class, confusion.reshape(K, K), labels)


def multi_label(
    golds: Sequence[Collection[str]],
    predicted: Sequence[Collection[str]],
    labels: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Scores:
    """Score sets of labels: accuracy (the whole set is right), macro_f1 (as in `single_label`) and micro_f1.

    Raises DataError when there are no examples.
    """
    _check(golds, predicted)
    labels = _all_labels(labels, *golds, *predicted)
    rows = [[[label in row for label in labels] for row in pair] for pair in zip(golds, predicted, strict=True)]
    patterns, counts = np.unique(np.array(rows, dtype=np.float64), axis=0, return_counts=True)  # (P, 2, K)
    metrics, per_class = _label_scores(labels, patterns.transpose(1, 0, 2), counts, rng, resamples)
    del metrics["matthews"]
    return Scores(metrics, per_class, labels=labels)


def regression(
    golds: Sequence[float], predicted: Sequence[float], *, rng: np.random.Generator, resamples: int = 2000
) -> Scores:
    """Score numbers: pearson, spearman (ties share their average rank) and mean_absolute_error.

    A correlation with a constant is 0: it shows no relation. Raises DataError when there are no examples or
    a number is not finite.
    """
    _check(golds, predicted)
    gold, guess = np.asarray(golds, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if not (np.isfinite(gold).all() and np.isfinite(guess).all()):
        raise DataError("found a gold or predicted number that is not finite; correct the row or the model")

    def score(counts: Floats) -> Floats:  # (R, N) -> (R, 3)
        pearson = _correlation(_centred(gold), _centred(guess), counts)
        spearman = _correlation(_ranks(gold, counts), _ranks(guess, counts), counts)
        return np.stack([pearson, spearman, counts @ np.abs(gold - guess) / len(gold)], axis=1)

    intervals = _intervals(score, np.ones(len(gold), dtype=np.int64), rng, resamples)
    return Scores(dict(zip(("pearson", "spearman", "mean_absolute_error"), intervals, strict=True)))


def entity_spans(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of one sentence of BIO tags: type, first word, one past the last.

    Strict: an I- that continues no entity of its type begins none.

    >>> entity_spans(["B-PER", "I-PER", "O", "I-LOC", "B-LOC"])
    [('PER', 0, 2), ('LOC', 4, 5)]
    """
    found: list[tuple[str, int, int]] = []
    open_kind = ""
    for place, tag in enumerate(tags):
        prefix, kind = tag[:2], tag[2:]
        if prefix == "I-" and kind == open_kind != "":
            found[-1] = (kind, found[-1][1], place + 1)
            continue
        open_kind = kind if prefix == "B-" else ""
        if open_kind:
            found.append((kind, place, place + 1))
    return found


def tagging(
    golds: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> Scores:
    """Score BIO tags, one a word: entity_f1, entity_precision, entity_recall (type and both ends), token_accuracy.

    Over all entities together, and in `per_class` for each type; the bootstrap draws sentences.
    """
    _check(golds, predicted)
    pairs = [(set(entity_spans(gold)), set(entity_spans(guess))) for gold, guess in zip(golds, predicted, strict=True)]
    types = sorted({kind for pair in pairs for spans in pair for kind, _, _ in spans})
    column = {kind: place for place, kind in enumerate(types)}
    counts = np.zeros((len(pairs), 3, len(types)))  # right, gold, predicted
    words = np.zeros((len(pairs), 2))
    for row, (gold, guess) in enumerate(pairs):
        for layer, spans in enumerate((gold & guess, gold, guess)):
            for kind, _, _ in spans:
                counts[row, layer, column[kind]] += 1
        words[row] = sum(a == b for a, b in zip(golds[row], predicted[row], strict=True)), len(golds[row])
    together = np.concatenate([counts.sum(2), words], axis=1)  # (N, 5)

    def score(drawn: Floats) -> Floats:  # (R, N) -> (R, 4)
        right, gold, guessed, same, total = (drawn @ together).T
        ratios = (_ratio(2 * right, gold + guessed), _ratio(right, guessed), _ratio(right, gold), _ratio(same, total))
        return np.stack(ratios, axis=1)

    intervals = _intervals(score, np.ones(len(pairs), dtype=np.int64), rng, resamples)
    right, gold, guessed = counts.sum(0)
    columns = (_ratio(right, guessed), _ratio(right, gold), _ratio(2 * right, gold + guessed), gold.astype(int))
    per_class = zip(types, *(column.tolist() for column in columns), strict=True)
    names = ("entity_f1", "entity_precision", "entity_recall", "token_accuracy")
    return Scores(dict(zip(names, intervals, strict=True)), tuple(ClassScore(*row) for row in per_class))


def answer_scores(predicted: str, golds: Sequence[str]) -> tuple[float, float]:
    """Exact match and F1 of an answer against the best of the humans', by SQuAD's rules; no golds: no answer.

    Compared are words: lower case, without ASCII punctuation and articles (Rajpurkar et al. 2016, 6.1; 2018, 4).

    >>> answer_scores("The U.S. army", ["US Army", "the US"])
    (1.0, 1.0)
    """
    guess = _answer_words(predicted)
    exact, best = 0.0, 0.0
    # Golds that are nothing but articles and punctuation cannot be met, unless all are.
    for gold in [words for words in map(_answer_words, golds) if words] or [[]]:
        common = sum((Counter(guess) & Counter(gold)).values())
        f1 = 2 * common / (len(guess) + len(gold)) if guess and gold else float(guess == gold)
        exact, best = max(exact, float(guess == gold)), max(best, f1)
    return exact, best


def answering(
    predicted: Sequence[str], golds: Sequence[Sequence[str]], *, rng: np.random.Generator, resamples: int = 2000
) -> Scores:
    """Score answers: exact_match and f1 (as `answer_scores`), the mean over questions.

    Where some questions have no answer: has_answer_exact_match, has_answer_f1 and no_answer_accuracy too.
    """
    _check(golds, predicted)
    values = np.array([answer_scores(guess, gold) for guess, gold in zip(predicted, golds, strict=True)])  # (N, 2)
    has = np.array([[float(len(gold) > 0)] for gold in golds])
    parts = np.concatenate([values, values * has, values[:, :1] * (1 - has), has, 1 - has], axis=1)

    def score(drawn: Floats) -> Floats:  # (R, N) -> (R, 5)
        exact, f1, has_exact, has_f1, silent, answerable, rest = (drawn @ parts).T
        N = answerable + rest
        return np.stack(
            [exact / N, f1 / N, _ratio(has_exact, answerable), _ratio(has_f1, answerable), _ratio(silent, rest)], axis=1
        )

    intervals = _intervals(score, np.ones(len(values), dtype=np.int64), rng, resamples)
    names = ("exact_match", "f1", "has_answer_exact_match", "has_answer_f1", "no_answer_accuracy")
    return Scores(dict(list(zip(names, intervals, strict=True))[: 2 if has.all() else 5]))


def _answer_words(text: str) -> list[str]:
    plain = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


def mcnemar(first_right: Sequence[bool], second_right: Sequence[bool]) -> float:
    """The exact two-sided p of McNemar's test: may two systems on the same examples be equally accurate?

    Only examples that one system alone got right count; each is a fair coin if the systems are equal.
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
    first_right: Sequence[bool], second_right: Sequence[bool], *, rng: np.random.Generator, resamples: int = 2000
) -> Interval:
    """The accuracy of the first system minus that of the second on the same examples.

    Raises DataError when there are no examples.
    """
    _check(first_right, second_right)
    gains = np.asarray(first_right, dtype=np.int64) - np.asarray(second_right, dtype=np.int64)
    values, counts = np.unique(gains, return_counts=True)
    return _intervals(lambda drawn: drawn @ values[:, None] / len(gains), counts, rng, resamples)[0]


def _check(first: Sequence[Any], second: Sequence[Any]) -> None:
    if len(first) != len(second):
        raise ValueError(f"found {len(first)} and {len(second)} answers; both lists must be of the same examples")
    if len(first) == 0:
        raise DataError("found no examples to score; at least one with a gold answer is needed")


def _all_labels(labels: Sequence[str], *seen: Collection[str]) -> tuple[str, ...]:
    return (*labels, *sorted(set().union(*seen).difference(labels)))


def _intervals(score: Score, counts: Counts, rng: np.random.Generator, resamples: int) -> list[Interval]:
    """One interval a metric, from the P rows as counted and as drawn again."""
    values = score(counts[None].astype(np.float64))[0]
    drawn = np.concatenate([score(chunk) for chunk in _resamples(counts, rng, resamples)])
    ends = np.percentile(drawn, (2.5, 97.5), axis=0)
    return [Interval(*row) for row in np.stack([values, *ends], axis=1).tolist()]


def _resamples(counts: Counts, rng: np.random.Generator, resamples: int) -> Iterator[Floats]:
    """Yield (R, P) counts of N rows drawn with replacement, a few resamples at a time."""
    N, P = int(counts.sum()), len(counts)
    at_once = max(1, CELLS_AT_ONCE // P)
    for start in range(0, resamples, at_once):
        R = min(at_once, resamples - start)
        if P < N:
            yield rng.multinomial(N, counts / N, size=R).astype(np.float64)
        else:  # the same law, several times faster where every row is its own
            drawn = rng.integers(N, size=(R, N)) + N * np.arange(R)[:, None]
            yield np.bincount(drawn.ravel(), minlength=R * N).reshape(R, N).astype(np.float64)


def _label_scores(
    labels: tuple[str, ...], marks: Floats, counts: Counts, rng: np.random.Generator, resamples: int
) -> tuple[dict[str, Interval], tuple[ClassScore, ...]]:
    """Headline figures and classes from marks (2, P, K): 1 where the gold, the prediction of a row has the label."""
    gold_marks, predicted_marks = marks
    hits = gold_marks * predicted_marks
    exact = (gold_marks == predicted_marks).all(axis=1)

    def score(drawn: Floats) -> Floats:  # (R, P) -> (R, 4)
        right, gold, guessed = drawn @ hits, drawn @ gold_marks, drawn @ predicted_marks  # (R, K)
        N, occurs = drawn.sum(axis=1), gold + guessed > 0
        macro = _ratio(_ratio(2 * right, gold + guessed).sum(axis=1), occurs.sum(axis=1))
        micro = _ratio(2 * right.sum(axis=1), (gold + guessed).sum(axis=1))
        together = N * right.sum(axis=1) - (gold * guessed).sum(axis=1)
        apart = (N**2 - (gold**2).sum(axis=1)) * (N**2 - (guessed**2).sum(axis=1))
        matthews = _ratio(together, np.sqrt(np.maximum(apart, 0)))
        return np.stack([drawn @ exact / N, macro, micro, matthews], axis=1)

    intervals = _intervals(score, counts, rng, resamples)
    right, gold, guessed = counts @ hits, counts @ gold_marks, counts @ predicted_marks
    columns = (_ratio(right, guessed), _ratio(right, gold), _ratio(2 * right, gold + guessed), gold.astype(int))
    per_class = zip(labels, *(column.tolist() for column in columns), strict=True)
    names = ("accuracy", "macro_f1", "micro_f1", "matthews")
    return dict(zip(names, intervals, strict=True)), tuple(ClassScore(*row) for row in per_class)


def _calibration_error(
    right: NDArray[np.bool_], confidences: Sequence[float], rng: np.random.Generator, resamples: int
) -> Interval:
    confidence = np.asarray(confidences, dtype=np.float64)
    if not ((confidence >= 0) & (confidence <= 1 + 1e-6)).all():
        raise ValueError("found a confidence that is no probability; a number in [0, 1] is expected")
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = np.eye(CALIBRATION_BINS)[bins] * (right - confidence)[:, None]  # (N, bins)
    once_each = np.ones(len(gaps), dtype=np.int64)
    drawn = _intervals(
        lambda counts: np.abs(counts @ gaps).sum(axis=1, keepdims=True) / len(gaps), once_each, rng, resamples
    )[0]
    # Resampling adds noise, which can only widen gaps, so the draws lie too high by about as much as the value
    # does; reflected at the value they correct it (Davison and Hinkley, 1997, section 5.2: the basic interval).
    low, high = 2 * drawn.value - drawn.high, 2 * drawn.value - drawn.low
    return Interval(drawn.value, max(0.0, low), max(drawn.value, high))


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part, dtype=np.float64), where=whole > 0)


def _centred(values: Floats) -> Floats:
    """Shifted and scaled into [-1, 1], so that a constant is exactly 0 whatever its size."""
    shifted = values - values[0]
    centred: Floats = shifted / max(np.abs(shifted).max(), np.finfo(np.float64).tiny)
    return centred


def _ranks(values: Floats, counts: Floats) -> Floats:
    """The average ranks of (N,) values within each resample: (R, N) counts -> (R, N)."""
    _, level, sizes = np.unique(values, return_inverse=True, return_counts=True)
    per_level = np.add.reduceat(counts[:, np.argsort(level)], np.cumsum(sizes) - sizes, axis=1)
    ranks: Floats = (per_level.cumsum(axis=1) - (per_level - 1) / 2)[:, level]
    return ranks


def _correlation(first: Floats, second: Floats, counts: Floats) -> Floats:
    """Pearson's r of (N,) or (R, N) values weighted by (R, N) counts -> (R,)."""
    N = counts.shape[1]
    first = first - (counts * first).sum(axis=1, keepdims=True) / N
    second = second - (counts * second).sum(axis=1, keepdims=True) / N
    spread = (counts * first**2).sum(axis=1) * (counts * second**2).sum(axis=1)
    together = (counts * first * second).sum(axis=1)
    return _ratio(np.where(spread > ROUNDING, together, 0.0), np.sqrt(spread))
