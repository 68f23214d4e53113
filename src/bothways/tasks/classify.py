"""Classification of one text: a single label, several labels (multi-label), or a number (regression).

B windows, L labels.
"""

from __future__ import annotations

import math
import reprlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import islice
from typing import Any, ClassVar, Literal, Self

import numpy as np

from bothways.data.examples import Example, Reference, labels_of
from bothways.data.labels import label_notes, skeleton
from bothways.data.split import contradictions
from bothways.errors import DataError, OptionError
from bothways.metrics import Scores, multi_label, regression, single_label
from bothways.tasks.picture import Picture
from bothways.tasks.task import Prediction, Trainable, labels_of_config, log_softmax, reading_stats, with_most_context
from bothways.text.tokenizer import Encoded, Tokenizer

Kind = Literal["single", "multi", "regression"]
THRESHOLD = 0.5  # of a multi-label model, before tuning
_HEADLINE: dict[Kind, str] = {"single": "accuracy", "multi": "micro_f1", "regression": "spearman"}


_PROBLEMS: dict[str, Kind] = {
    "single_label_classification": "single",
    "multi_label_classification": "multi",
    "regression": "regression",
}


NOT_A_NUMBER = "the model computed NaN or infinity for this text; its weights are damaged"
MAX_TUNED = 100  # best labels per text that threshold tuning considers


class LabelScores(Mapping[str, float]):
    """Scores by label, in label order; 8 bytes per score, because all predictions share the label names.

    >>> LabelScores(("bad", "good"), np.array([0.25, 0.75]))
    {'bad': 0.25, 'good': 0.75}
    """

    __slots__ = ("_places", "_values")

    def __init__(self, labels: tuple[str, ...], values: np.ndarray) -> None:
        self._places, self._values = _places(labels), array("d", values.tolist())

    def __getitem__(self, label: str) -> float:
        return self._values[self._places[label]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __repr__(self) -> str:
        shown = ", ".join(f"{label!r}: {self[label]:.4g}" for label in islice(self, 4))
        return f"{{{shown}, ... {len(self) - 4} more}}" if len(self) > 4 else f"{{{shown}}}"


@lru_cache(maxsize=16)
def _places(labels: tuple[str, ...]) -> dict[str, int]:
    return {label: place for place, label in enumerate(labels)}


@dataclass(frozen=True, slots=True)
class LabelPrediction(Prediction):
    """The predicted class, classes or number of one example.

    `label` is the label with the highest score ("" after an error), `score` its probability; `scores` has all labels.
    `labels` is set by multi-label models only: the labels whose score reaches the threshold, () if there are none;
    `label` is the best label even then, as in `transformers`. With `number` (regression), `score` is the number and
    `label` its name.
    """

    label: str
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)
    labels: tuple[str, ...] | None = None
    number: bool = False

    def answer(self, *, all_scores: bool) -> dict[str, Any]:
        """label and score; labels for multi-label models; scores with `all_scores`; for regression only score."""
        if self.number:
            return {"score": self.score}
        answer: dict[str, Any] = {"label": self.label, "score": self.score}
        if self.labels is not None:
            answer["labels"] = list(self.labels)
        return answer | ({"scores": dict(self.scores)} if all_scores else {})

    def summary(self) -> tuple[str, float]:
        """The label or labels with the best score; "no label" with 1 - the best score; or the number."""
        if self.number:
            return f"{self.score:.6g}", self.score
        if self.labels == ():
            return "no label", 1.0 - self.score
        return self.label if self.labels is None else ", ".join(self.labels), self.score

    def picture(self, example: Example) -> Picture:
        """The text or texts, with a bar per class."""
        captions = ("",) if len(example.texts) == 1 else ("first text", "second text")
        bars = sorted(self.scores.items(), key=lambda item: -item[1])
        notes = [self.note()] if self.note() else []
        if self.number and self.error is None:  # a number has no bar
            notes, bars = [f"{self.label} {self.score:.3f}", *notes], []
        elif self.labels == () and self.error is None:
            notes = ["no label", *notes]
        texts = tuple(zip(captions, example.texts, strict=True))
        return Picture(texts, bars=tuple(bars), note=", ".join(notes), error=self.error)


@dataclass(frozen=True, slots=True)
class Classify(Trainable):
    """Classification of one text; the fields are everything besides the weights that determines predictions.

    `labels` are in output order (for regression a single one, the name of the number). Windows have at most
    `max_length` tokens and overlap by at least `stride`; `truncation` reads only the first window. `threshold` is
    the minimum score of a label in a multi-label model; fine-tuning chooses it on the dev set.
    """

    name = "classify"
    head = "classify"
    limits: ClassVar[dict[str, tuple[float, float]]] = Trainable.limits | {"threshold": (0.0, 1.0)}
    texts: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("text", "sentence", "review", "content", "utterance", "question", "comment", "body"),
    )
    labels: tuple[str, ...]
    kind: Kind = "single"
    max_length: int = 512
    stride: int = 64
    truncation: bool = False
    threshold: float = THRESHOLD

    @classmethod
    def learn(cls, examples: Sequence[Example], **settings: Any) -> Self:
        """Infer kind and labels (in natural order) from training examples.

        Raises `DataError` if there is a single class, or if references are of several kinds.
        """
        kinds = {_kind(example.reference) for example in examples}
        if len(kinds) > 1:
            raise DataError(f"{examples[0].where} and below: some labels are lists, some are not; expected one kind")
        kind = kinds.pop()
        where = f"{examples[0].where} and below"
        if kind == "regression":
            if len({example.reference for example in examples}) < 2:
                raise DataError(
                    f"{where}: every row has the number {examples[0].reference!r}; expected different numbers"
                )
            return cls(labels=("score",), kind=kind, **settings)
        labels = {label for example in examples for label in labels_of(example.reference)}
        if len({labels_of(example.reference) for example in examples}) < 2:
            found = f"the label {', '.join(map(repr, sorted(labels)))}" if labels else "no label"
            raise DataError(f"{where}: every row has {found}; expected at least two classes to tell apart")
        return cls(labels=tuple(sorted(labels, key=_natural)), kind=kind, **settings)

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """Return the task that a `config.json` of `transformers` describes."""
        labels = labels_of_config(config)
        usual: Kind = "multi" if len(labels) == 1 else "single"  # one output: a sigmoid, as in transformers
        return cls(labels=labels, kind=_PROBLEMS.get(str(config.get("problem_type")), usual), **settings)

    def config(self) -> dict[str, Any]:
        """Return labels and problem type, as entries of `config.json`."""
        problem = next(name for name, kind in _PROBLEMS.items() if kind == self.kind)
        return super(Classify, self).config() | {"problem_type": problem}

    def describe(self) -> str:
        """Describe kind, labels, and the threshold if it was tuned."""
        tuned = f", threshold {self.threshold:g}" if self.kind == "multi" and self.threshold != THRESHOLD else ""
        return f"{self.kind}, {len(self.labels)} label(s): {shortened(self.labels, 200)}{tuned}"

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """The number of labels."""
        return len(self.labels)

    @property
    def loss(self) -> str:  # type: ignore[override]
        """The name of the loss, equal to the kind."""
        return self.kind

    @property
    def headline(self) -> str:  # type: ignore[override]
        """The name of the metric that selects the best checkpoint."""
        return _HEADLINE[self.kind]

    def example(self, given: Any) -> Example:
        """Convert a text, or a tuple or list with as many texts as the task reads, to an example."""
        texts = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, tuple | list) else ()
        if len(texts) != len(self.texts) or not all(isinstance(text, str) for text in texts):
            expected = "a text" if len(self.texts) == 1 else "two texts"
            hint = " (the task pairs reads two)" if len(texts) == 2 and len(self.texts) == 1 else ""
            raise DataError(f"found {reprlib.repr(given)}, expected {expected} for the task {self.name}{hint}")
        return Example(texts)

    def failure(self, reason: str) -> LabelPrediction:
        """Return a prediction without a label, with the reason as its error."""
        labels = () if self.kind == "multi" else None
        return LabelPrediction("", math.nan, labels=labels, number=self.kind == "regression", error=reason, windows=0)

    @property
    def tunable(self) -> bool:  # type: ignore[override]
        """True for multi-label models, which have a threshold."""
        return self.kind == "multi"

    def tune_on(self, predictions: Sequence[LabelPrediction], references: Sequence[Reference]) -> Self:
        """Return the task with the threshold that maximizes micro-F1, or the current one if none is better.

        Ties go to the threshold nearest to the current one. Only the `MAX_TUNED` best labels of each text count.
        """
        if not self.tunable or not predictions:
            return self
        known = _places(self.labels)
        few: list[np.ndarray] = []
        right: list[np.ndarray] = []
        for prediction, reference in zip(predictions, references, strict=True):
            scores = np.fromiter(prediction.scores.values(), np.float64)
            marks = np.zeros(len(scores), bool)
            if len(scores):  # not after an error
                marks[[known[label] for label in labels_of(reference) if label in known]] = True
            best = np.argpartition(-scores, MAX_TUNED)[:MAX_TUNED] if len(scores) > MAX_TUNED else slice(None)
            few.append(scores[best])
            right.append(marks[best])
        total = sum(len(set(labels_of(reference))) for reference in references)
        threshold = best_threshold(np.concatenate(few), np.concatenate(right), total, self.threshold)
        return replace(self, threshold=threshold)

    def redecided(self, predictions: Sequence[LabelPrediction]) -> Sequence[LabelPrediction]:
        """Apply this task's threshold to predictions of a multi-label model."""
        if self.kind != "multi":
            return predictions
        return [
            one if one.labels is None else replace(one, labels=self._above_threshold(one.scores)) for one in predictions
        ]

    def _above_threshold(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        return tuple(label for label, score in scores.items() if score >= self.threshold)

    def check(self, examples: Sequence[Example]) -> None:
        """Raise `DataError` for the first reference that this task cannot predict."""
        known = set(self.labels)
        for example in examples:
            if _kind(example.reference) != self.kind:
                raise DataError(
                    f"{example.where}: the label {example.reference!r} does not suit a model of kind {self.kind!r}; "
                    f"give --kind {self.kind} if it should"
                )
            for label in () if self.kind == "regression" else labels_of(example.reference):
                if label not in known:
                    alike = next((one for one in self.labels if skeleton(one) == skeleton(label)), None)
                    hint = "" if alike is None else f" (it looks like {alike!a})"
                    raise DataError(
                        f"{example.where}: label {label!r} is not one of the {len(known)} known: "
                        f"{shortened(self.labels)}{hint}; correct it or add training rows for it"
                    )

    def training_notes(self, examples: Sequence[Example]) -> list[str]:
        """Report suspicious labels (numbers, look-alikes, labels that occur once) and texts with two labels."""
        return [*label_notes([example.reference for example in examples]), *contradictions(examples)]

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Return each example's windows; targets are a class index, an (L,) 0/1 array or a number."""
        windows = self.windows(examples, tokenizer)
        places = {label: place for place, label in enumerate(self.labels)}
        targets = [self._target(example.reference, places) for example in examples]
        return [
            window if targets[window.example] is None else replace(window, target=targets[window.example])
            for window in windows
        ]

    def reduce(self, rows: np.ndarray, window: Encoded) -> np.ndarray:
        """(1, L) logits -> (L,)."""
        return rows[0]

    def decode(
        self, example: Example, parts: Sequence[np.ndarray], windows: Sequence[Encoded], tokenizer: Tokenizer
    ) -> LabelPrediction:
        """(L,) logits of each window of one example -> its prediction.

        The prediction is the average of probabilities (regression: of values), weighted by `window_weights`.
        """
        each = probabilities(np.asarray(parts), self.kind)  # (B, L)
        average = each[0] if len(windows) == 1 else window_weights(windows) @ each  # (L,)
        if not np.isfinite(average).all():
            return replace(self.failure(NOT_A_NUMBER), **reading_stats(windows))
        scores = LabelScores(self.labels, average)
        best = int(average.argmax())
        return LabelPrediction(
            label=self.labels[best],
            score=float(average[best]),
            scores=scores,
            labels=self._above_threshold(scores) if self.kind == "multi" else None,
            number=self.kind == "regression" and len(self.labels) == 1,
            **reading_stats(windows),
        )

    def score(
        self,
        predictions: Sequence[LabelPrediction],
        references: Sequence[Reference],
        *,
        rng: np.random.Generator,
        resamples: int = 2000,
    ) -> Scores:
        """Compute the metrics of predictions against references, with 95 % confidence intervals."""
        if self.kind == "multi":
            chosen = [prediction.labels or () for prediction in predictions]
            return multi_label(
                [labels_of(reference) for reference in references], chosen, self.labels, rng=rng, resamples=resamples
            )
        if self.kind == "regression":
            return regression(
                [float(_number(reference)) for reference in references],
                [x.score for x in predictions],
                rng=rng,
                resamples=resamples,
            )
        return single_label(
            [str(reference) for reference in references],
            [prediction.label for prediction in predictions],
            self.labels,
            confidences=[prediction.score for prediction in predictions],
            rng=rng,
            resamples=resamples,
        )

    def reference_summary(self, example: Example) -> str:
        """Return the label or labels."""
        return ", ".join(example.reference) if isinstance(example.reference, tuple) else str(example.reference)

    def is_correct(self, prediction: LabelPrediction, reference: Reference) -> bool:
        """Whether a prediction is entirely correct; always False for regression."""
        if self.kind == "multi":
            return set(prediction.labels or ()) == set(labels_of(reference))
        return self.kind == "single" and prediction.label == reference

    def _target(self, reference: Reference | None, places: dict[str, int]) -> Any:
        if reference is None:
            return None
        if self.kind == "regression":
            return float(_number(reference))
        if self.kind == "single":
            return places[str(reference)]
        target = np.zeros(len(places), dtype=np.float32)
        target[[places[label] for label in labels_of(reference)]] = 1.0
        return target


def window_weights(windows: Sequence[Encoded]) -> np.ndarray:
    """Return (B,) weights of sum 1 to average over the windows of one example.

    The weight of a window is proportional to the number of tokens that it owns (see `with_most_context`), so each
    token counts once even if the last window repeats most of the previous one. For pairs, only the tokens of the
    sliding text count.
    """
    if len(windows) == 1:
        return np.ones(1)
    before, after = (window.offsets[window.sequence_ids == 0] for window in windows[:2])
    sliding = int(np.array_equal(before, after))  # the other text is the same in all windows
    owns = np.array([len(own) for _, own in with_most_context(windows, sliding)], np.float64)
    return owns / owns.sum()


def probabilities(logits: np.ndarray, kind: Kind) -> np.ndarray:
    """(B, L) logits -> (B, L) softmax (single), sigmoid (multi) or unchanged values (regression)."""
    logits = logits.astype(np.float64)
    if kind == "regression":
        return logits
    with np.errstate(invalid="ignore"):  # an infinite logit becomes NaN, which `decode` reports
        if kind == "multi":
            return sigmoid(logits)
        return np.exp(log_softmax(logits))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without overflow; NaN stays NaN."""
    return np.exp(-np.logaddexp(0.0, -logits))


def best_threshold(scores: np.ndarray, right: np.ndarray, total: int, present: float) -> float:
    """Return the threshold on (M,) scores with the highest micro-F1, or `present` if none is better.

    (M,) `right` marks the scores of correct labels; `total` is the number of reference labels.

    >>> best_threshold(np.array([0.9, 0.3, 0.2, 0.1]), np.array([True, True, False, False]), 2, present=0.5)
    0.25
    """
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    taken = np.flatnonzero(np.diff(scores, append=-1.0) < 0) + 1  # number of scores above each candidate threshold
    f1 = 2 * hits[taken - 1] / (taken + total)
    now = int((scores >= present).sum())
    f1_now = 2 * int(hits[now - 1]) / (now + total) if now else 0.0
    if not len(taken) or f1.max() <= f1_now:
        return present
    highs, lows = scores[taken - 1], np.append(scores, 0.0)[taken]
    best = min(np.flatnonzero(f1 == f1.max()), key=lambda place: abs((highs[place] + lows[place]) / 2 - present))
    low, high = float(lows[best]), float(highs[best])
    short = (round((low + high) / 2, digits) for digits in (2, 3, 4))
    return next((one for one in short if low < one < high), (low + high) / 2)


def shortened(labels: Sequence[str], most: int = 8) -> str:
    """Join the first `most` labels, followed by the number of remaining labels."""
    rest = f", ... ({len(labels) - most} more)" if len(labels) > most else ""
    return ", ".join(labels[:most]) + rest


def _kind(reference: Reference | None) -> Kind:
    if isinstance(reference, str):
        return "single"
    return "multi" if isinstance(reference, tuple) else "regression"


def _number(reference: Reference) -> float:
    if isinstance(reference, float):
        return reference
    raise OptionError(f"a number was expected, found {reference!r}")


def _natural(label: str) -> tuple[float, str]:
    """Sort key: numbers by value, then other labels alphabetically."""
    try:
        value = float(label)
    except ValueError:
        return math.inf, label
    return (value, label) if math.isfinite(value) else (math.inf, label)
