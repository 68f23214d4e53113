"""Baselines: linear models on TF-IDF or on sentence embeddings of the base model; they are fitted in seconds.

A fine-tuned model should be better than its baselines. N examples, F features, L labels, D decisions (1 for a number or
two labels, otherwise L).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bothways.data.examples import Example, labels_of
from bothways.errors import DataError, MissingDependencyError
from bothways.evaluation.features import FEWEST_FEATURES, MAX_WEIGHTS, Embeddings, Features, Tfidf
from bothways.tasks.classify import THRESHOLD, Classify, Kind, LabelPrediction, best_threshold, probabilities

# scikit-learn's C (for ridge regression, 1 / alpha) for TF-IDF and embeddings: the value for few examples, then the
# cross-validation grid. The n-grams of one text need a weaker penalty than the four feature blocks of two texts.
STRENGTHS: dict[tuple[type, str, int], tuple[float, tuple[float, ...]]] = {
    (Tfidf, "classes", 1): (30.0, (1.0, 10.0, 30.0, 100.0, 300.0)),
    (Tfidf, "classes", 2): (0.3, (0.03, 0.1, 0.3, 1.0, 3.0)),
    (Tfidf, "numbers", 1): (0.3, (0.03, 0.1, 0.3, 1.0, 3.0)),
    (Tfidf, "numbers", 2): (0.3, (0.03, 0.1, 0.3, 1.0, 3.0)),
    (Embeddings, "classes", 1): (0.1, (0.001, 0.01, 0.1, 1.0)),
    (Embeddings, "classes", 2): (0.01, (0.0001, 0.001, 0.01, 0.1)),
    (Embeddings, "numbers", 1): (0.01, (0.0001, 0.001, 0.01, 0.1)),
    (Embeddings, "numbers", 2): (0.001, (0.00001, 0.0001, 0.001, 0.01)),
}
FOLDS = 3
FEW_EXAMPLES = 50  # minimum for cross-validation
MAX_TRIED, MAX_TRIED_DECISIONS = 4000, 100_000  # limits of the cross-validation: examples, examples times decisions
MAX_WORK = 200_000_000  # labels times words; above it, logistic regression takes minutes, so use label means
SHARPNESS = 20.0  # factor for the cosine with a label's mean
MAX_SCORES = 1000  # labels; above it, a prediction has only the best scores
BEST_SCORES = 20
CELLS_AT_ONCE = 5_000_000


@dataclass(frozen=True, slots=True)
class Baseline:
    """Text features and a linear model: weights (D, F), bias (D,).

    With `softmax`, the model is multinomial logistic regression, otherwise one-vs-rest. With `means`, each row of the
    (sparse) weights is the mean of a label's texts. `strength` is scikit-learn's C.
    """

    features: Features
    kind: Kind
    labels: tuple[str, ...]
    weights: Any
    bias: NDArray[np.float32]
    strength: float = 1.0
    threshold: float = THRESHOLD
    softmax: bool = False
    means: bool = False

    @property
    def parameters(self) -> int:
        """The number of learned parameters, including those of the features."""
        learned = self.weights.nnz if self.means else self.weights.size
        return int(learned + self.bias.size + self.features.parameters)

    @property
    def size_bytes(self) -> int:
        """The size of the arrays and the features in bytes."""
        learned = 2 * self.weights.data.nbytes if self.means else self.weights.nbytes  # values and their indices
        return int(learned + self.bias.nbytes + self.features.size_bytes)

    def predict(self, examples: Sequence[Example]) -> list[LabelPrediction]:
        """Return predictions as an encoder does: label, score, scores and, for multi-label, labels.

        Raises DataError if an example has a different number of texts from the training examples.
        """
        if not examples:
            return []
        matrix = self.features.transform(examples)
        at_once = max(1, CELLS_AT_ONCE // max(1, len(self.labels)))
        return [
            self._prediction(row)
            for start in range(0, len(examples), at_once)
            for row in self.probabilities(matrix[start : start + at_once])
        ]

    def probabilities(self, matrix: Any) -> NDArray[np.float64]:
        """(N, F) features -> (N, L) probabilities, as `predict_proba` in scikit-learn, or numbers."""
        if self.means:
            decisions = SHARPNESS * np.asarray((matrix @ self.weights.T).todense(), dtype=np.float64)
            return probabilities(decisions - SHARPNESS / 2 if self.kind == "multi" else decisions, self.kind)
        return _probabilities(matrix @ self.weights.T + self.bias, self.kind, softmax=self.softmax)

    def _prediction(self, values: NDArray[np.float64]) -> LabelPrediction:
        best = int(values.argmax())
        places = range(len(values))
        if len(values) > MAX_SCORES:
            places = np.argsort(-values, kind="stable")[:BEST_SCORES].tolist()
        scores = {self.labels[place]: float(values[place]) for place in places}
        chosen = tuple(self.labels[place] for place in np.flatnonzero(values >= self.threshold))
        return LabelPrediction(self.labels[best], float(values[best]), scores, chosen if self.kind == "multi" else None)


def fit_baseline(
    examples: Sequence[Example],
    *,
    kind: Kind,
    labels: Sequence[str],
    seed: int,
    balanced: bool = False,
    base: Path | None = None,
) -> Baseline:
    """Fit logistic regression, or ridge regression for numbers, to TF-IDF or, with `base`, to embeddings of that model.

    Cross-validation on at most `MAX_TRIED` examples chooses C (by log loss or squared error) and the multi-label
    threshold. TF-IDF models are one-vs-rest; single-label models on embeddings are multinomial. A label that no example
    or every example has gets a bias from its smoothed frequency and no weights. With thousands of labels, a TF-IDF
    model compares texts with the mean of each label by cosine (Rocchio); its time and memory depend only on the texts.
    `balanced` is scikit-learn's class_weight="balanced". `labels` is as in `Classify`. Raises DataError for references
    that are missing or not in `labels` and without examples, MissingDependencyError without scikit-learn, BothwaysError
    if `base` cannot be run.
    """
    try:
        import sklearn.linear_model  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            "the baseline needs scikit-learn, which is not installed: pip install 'bothways[train]'"
        ) from error
    if not examples:
        raise DataError("found no examples to fit the baseline to; expected the training texts")
    Classify(tuple(labels), kind).check(examples)
    decisions = 1 if kind == "regression" or (kind == "single" and len(labels) == 2) else len(labels)
    features: Features
    features, matrix = Tfidf.fit(examples, decisions) if base is None else Embeddings.fit(examples, base)
    targets = _targets(examples, kind, labels)
    if base is None and _is_large(matrix, decisions):
        means = _means(matrix, targets)
        return Baseline(features, kind, tuple(labels), means, np.zeros(len(labels), np.float32), means=True)
    softmax = base is not None and decisions > 1 and kind == "single"
    fitting = _Fitting(kind, decisions, seed, balanced, softmax)
    usual, tried = STRENGTHS[type(features), "numbers" if kind == "regression" else "classes", len(examples[0].texts)]
    strength, threshold = fitting.chosen(matrix, targets, usual, tried)
    weights, bias = fitting.fit(matrix, targets, strength)
    return Baseline(features, kind, tuple(labels), weights, bias, strength, threshold, softmax)


@dataclass(frozen=True, slots=True)
class _Fitting:
    """Fits the linear model to (N, F) features and targets: (N,) numbers, or sparse (N, L) of 0 and 1."""

    kind: Kind
    decisions: int
    seed: int
    balanced: bool
    softmax: bool

    def chosen(self, matrix: Any, targets: Any, usual: float, tried: Sequence[float]) -> tuple[float, float]:
        """Return the C with the smallest cross-validation loss, and its best threshold."""
        n = min(matrix.shape[0], MAX_TRIED, MAX_TRIED_DECISIONS // self.decisions)
        if n < FEW_EXAMPLES:
            return usual, THRESHOLD
        rows = np.random.default_rng(self.seed).permutation(matrix.shape[0])[:n]
        matrix, targets = matrix[rows], targets[rows]
        if hasattr(matrix, "getnnz"):  # drop empty columns, which only cost time
            matrix = matrix[:, np.flatnonzero(matrix.getnnz(axis=0))]
        found = {strength: self._held_out(matrix, targets, strength) for strength in tried}
        best = min(tried, key=lambda strength: _loss(found[strength], targets, self.kind))
        if self.kind != "multi":
            return best, THRESHOLD
        right = targets.toarray() > 0
        return best, best_threshold(found[best].ravel(), right.ravel(), int(targets.nnz), THRESHOLD)

    def _held_out(self, matrix: Any, targets: Any, strength: float) -> NDArray[np.float64]:
        """Return out-of-fold predictions: (N, L) probabilities, or (N, 1) numbers."""
        parts, folds = [], np.arange(matrix.shape[0]) % FOLDS
        for fold in range(FOLDS):
            weights, bias = self.fit(matrix[folds != fold], targets[folds != fold], strength)
            decisions = matrix[folds == fold] @ weights.T + bias
            parts.append(_probabilities(decisions, self.kind, softmax=self.softmax))
        found = np.zeros((len(folds), parts[0].shape[1]))
        for fold, part in enumerate(parts):
            found[folds == fold] = part
        return found

    def fit(self, matrix: Any, targets: Any, strength: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return (D, F) weights and (D,) bias."""
        from sklearn.linear_model import Ridge

        if self.kind == "regression":
            ridge = Ridge(alpha=1 / strength, random_state=self.seed).fit(matrix, targets)
            return np.array([ridge.coef_], np.float32), np.array([ridge.intercept_], np.float32)
        weights, bias = np.zeros((self.decisions, matrix.shape[1]), np.float32), np.zeros(self.decisions, np.float32)
        if self.softmax:
            return self._multinomial(matrix, targets.indices, strength, weights, bias)
        targets = targets.tocsc()
        first = targets.shape[1] - self.decisions  # with two labels, the decision is for the second
        for row in range(self.decisions):
            has_it = targets[:, first + row].toarray().ravel() > 0
            if has_it.all() or not has_it.any():
                bias[row] = np.log((has_it.sum() + 0.5) / ((~has_it).sum() + 0.5))
                continue
            model = self._logistic(matrix, strength).fit(matrix, has_it)
            weights[row], bias[row] = model.coef_[0], model.intercept_[0]
        return weights, bias

    def _multinomial(
        self, matrix: Any, classes: Any, strength: float, weights: NDArray[np.float32], bias: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        bias[:] = -np.log(2 * len(classes) + 1)  # for labels without examples
        seen = np.unique(classes)
        bias[seen] = 0.0
        if len(seen) > 1:
            model = self._logistic(matrix, strength).fit(matrix, classes)
            own = seen[-len(model.coef_) :]  # with two labels, the weights are for the second
            weights[own], bias[own] = model.coef_, model.intercept_
        return weights, bias

    def _logistic(self, matrix: Any, strength: float) -> Any:
        """Use liblinear for sparse features (a quarter of the time of lbfgs), lbfgs for embeddings (a tenth)."""
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(
            C=strength,
            solver="liblinear" if hasattr(matrix, "nnz") else "lbfgs",
            max_iter=1000,
            random_state=self.seed,
            class_weight="balanced" if self.balanced else None,
        )


def _probabilities(decisions: NDArray[Any], kind: Kind, *, softmax: bool) -> NDArray[np.float64]:
    """(N, D) decisions -> (N, L) probabilities; one-vs-rest is normalized as in scikit-learn."""
    if kind == "regression" or softmax:
        return probabilities(decisions, kind)
    each = probabilities(decisions, "multi")
    if kind == "multi":
        return each
    if each.shape[1] == 1:  # the decision is for the second label
        return np.concatenate([1 - each, each], axis=1)
    normalized: NDArray[np.float64] = each / np.maximum(each.sum(axis=1, keepdims=True), 1e-300)
    return normalized


def _loss(found: NDArray[np.float64], targets: Any, kind: Kind) -> float:
    """Return the mean squared error of numbers, or the mean log loss of probabilities."""
    if kind == "regression":
        return float(np.square(found[:, 0] - targets).mean())
    found = np.clip(found, 1e-12, 1 - 1e-12)
    if kind == "single":
        return -float(np.log(found[np.arange(len(found)), targets.indices]).mean())
    return -float(np.log(np.where(targets.toarray() > 0, found, 1 - found)).mean())


def _targets(examples: Sequence[Example], kind: Kind, labels: Sequence[str]) -> Any:
    """Return (N,) numbers, or a sparse (N, L) matrix with 1 for each label of an example."""
    from scipy.sparse import csr_matrix

    if kind == "regression":
        return np.array([example.reference for example in examples], dtype=np.float64)
    places = {label: place for place, label in enumerate(labels)}
    own = [sorted({places[label] for label in labels_of(example.reference)}) for example in examples]
    ends = np.cumsum([0, *map(len, own)])
    columns = np.array([place for each in own for place in each], dtype=np.int64)
    return csr_matrix((np.ones(len(columns), np.float32), columns, ends), shape=(len(examples), len(labels)))


def _is_large(matrix: Any, decisions: int) -> bool:
    """Return whether there are too many labels for one decision each."""
    return decisions > 1 and (decisions * matrix.nnz > MAX_WORK or MAX_WEIGHTS // decisions < FEWEST_FEATURES)


def _means(matrix: Any, targets: Any) -> Any:
    """Return the mean vector of each label's examples, scaled to length 1: a sparse (L, F) matrix."""
    from sklearn.preprocessing import normalize

    return normalize((targets.T.tocsr() @ matrix).astype(np.float32))
