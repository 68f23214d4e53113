"""The yardstick: TF-IDF and a linear model, fitted in seconds; a BERT that does not beat it is not worth running."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bothways.errors import DataError, MissingDependencyError
from bothways.tasks.classify import Classify, Kind, Labelled, probabilities
from bothways.tasks.task import Example

# Chosen on held-out parts of training files: Banking77, TREC, IMDB, GoEmotions; for pairs NLI and STS-B, where
# single words did better than word pairs and a stronger penalty was needed.
NGRAM_RANGE = {1: (1, 2), 2: (1, 1)}  # texts an example -> shortest and longest phrase, in words
INVERSE_PENALTY = {1: 30.0, 2: 0.3}  # texts an example -> scikit-learn's C
RIDGE_PENALTY = 3.0
MANY_EXAMPLES = 20_000
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted TF-IDF vectoriser and D linear decisions over F features: weights (D, F), bias (D,)."""

    kind: Kind
    labels: tuple[str, ...]
    texts_each: int
    vectoriser: Any
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def parameters(self) -> int:
        """How many numbers were learned, the inverse document frequencies included."""
        return int(self.weights.size + self.bias.size + self.vectoriser.idf_.size)

    @property
    def size_bytes(self) -> int:
        """What the arrays and the vocabulary's UTF-8 text take, in bytes; no file is written."""
        words = sum(len(word.encode()) for word in self.vectoriser.vocabulary_)
        return int(self.weights.nbytes + self.bias.nbytes + self.vectoriser.idf_.nbytes + words)

    def predict(self, examples: Sequence[Example]) -> list[Labelled]:
        """Answer with the records that an encoder gives: label, score, scores and, for multi-label, labels.

        Raises DataError where an example has another number of texts than those it was fitted on.
        """
        if not examples:
            return []
        features = _features(self.vectoriser.transform(_texts(examples, self.texts_each)), len(examples))
        decisions = features @ self.weights.T + self.bias  # (N, D)
        if self.kind == "single" and len(self.labels) == 2:  # the one decision speaks for the second label
            decisions = np.concatenate([np.zeros_like(decisions), decisions], axis=1)
        return [self._prediction(row) for row in probabilities(decisions, self.kind).tolist()]

    def _prediction(self, values: list[float]) -> Labelled:
        scores = dict(zip(self.labels, values, strict=True))
        best = max(scores, key=scores.__getitem__)
        chosen = tuple(label for label, score in scores.items() if score >= THRESHOLD)
        return Labelled(best, scores[best], scores, chosen if self.kind == "multi" else None)


def fit_baseline(examples: Sequence[Example], *, kind: Kind, labels: Sequence[str], seed: int) -> Baseline:
    """Fit TF-IDF with logistic regression, each label against the rest, or with ridge regression.

    One text: words and word pairs. Two texts: the words of both, u and v, as [u, v, |u - v|, u * v] (Conneau et
    al., 2017) and their cosine. A label that no example has, or every example, gets its smoothed frequency and
    no weights. `labels` is as in `Classify`. Raises DataError for texts without words and for golds that are
    missing or not in `labels`, MissingDependencyError without scikit-learn.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge
    except ImportError as error:
        raise MissingDependencyError(
            "the baseline needs scikit-learn, which was not found: pip install 'bothways[train]'"
        ) from error
    Classify(tuple(labels), kind).check(examples)
    texts_each = len(examples[0].texts) if examples else 1
    # In many examples a phrase seen once costs memory and, measured on IMDB, helps nothing.
    rare = 2 if len(examples) >= MANY_EXAMPLES else 1
    phrases = NGRAM_RANGE[texts_each]
    vectoriser = TfidfVectorizer(ngram_range=phrases, sublinear_tf=True, token_pattern=r"\w+", min_df=rare)
    try:
        vectors = vectoriser.fit_transform(_texts(examples, texts_each))
    except ValueError as error:
        raise DataError(f"found no words in {len(examples)} examples; texts with words are needed") from error
    features = _features(vectors, len(examples))
    golds: list[Any] = [example.gold for example in examples]
    rows, biases = [], []
    if kind == "regression":
        ridge = Ridge(alpha=RIDGE_PENALTY, random_state=seed).fit(features, np.array(golds, dtype=np.float64))
        rows, biases = [ridge.coef_], [ridge.intercept_]
    else:
        for label in labels[1:] if kind == "single" and len(labels) == 2 else labels:
            has_it = np.array([label == gold if kind == "single" else label in gold for gold in golds])
            if has_it.all() or not has_it.any():
                rows.append(np.zeros(features.shape[1]))
                biases.append(np.log((has_it.sum() + 0.5) / ((~has_it).sum() + 0.5)))
                continue
            # Each label against the rest by liblinear: 77 labels in a quarter of the time of softmax by lbfgs.
            model = LogisticRegression(
                C=INVERSE_PENALTY[texts_each], solver="liblinear", max_iter=1000, random_state=seed
            ).fit(features, has_it)
            rows.append(model.coef_[0])
            biases.append(model.intercept_[0])
    weights, bias = np.array(rows, dtype=np.float32), np.array(biases, dtype=np.float32)
    return Baseline(kind, tuple(labels), texts_each, vectoriser, weights, bias)


def _texts(examples: Sequence[Example], texts_each: int) -> list[str]:
    """All first texts, then all second ones."""
    for example in examples:
        if len(example.texts) != texts_each:
            raise DataError(f"{example.where}: found {len(example.texts)} text(s); {texts_each} expected, as elsewhere")
    return [example.texts[place] for place in range(texts_each) for example in examples]


def _features(vectors: Any, n: int) -> Any:
    """Sparse (N, V) or (2N, V) vectors, second texts below the first -> (N, V) or (N, 4V + 1) features."""
    from scipy.sparse import csr_matrix, hstack

    if vectors.shape[0] == n:
        return vectors
    first, second = vectors[:n], vectors[n:]
    product = first.multiply(second)
    cosine = csr_matrix(product.sum(axis=1).reshape(-1, 1))
    return hstack([first, second, abs(first - second), product, cosine], format="csr")
