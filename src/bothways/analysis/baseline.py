"""The yardstick: TF-IDF and a linear model, fitted in seconds; a BERT that does not beat it is not worth running."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bothways.errors import DataError, MissingDependencyError
from bothways.tasks.task import Example, Gold, Prediction

Kind = Literal["single", "multi", "regression"]

# Chosen on held-out parts of the training files of Banking77, TREC, IMDB, GoEmotions, STS-B and the NLI pairs.
INVERSE_PENALTY = 30.0  # scikit-learn's C
RIDGE_PENALTY = 1.0
MANY_EXAMPLES = 20_000
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted vectoriser and one row of weights per linear decision: (decisions, features) and (decisions,)."""

    kind: Kind
    labels: tuple[str, ...]
    vectoriser: Any
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def parameters(self) -> int:
        """How many numbers were learned, the vocabulary's inverse document frequencies included."""
        return int(self.weights.size + self.bias.size + self.vectoriser.idf_.size)

    @property
    def size_bytes(self) -> int:
        """What the arrays and the vocabulary's UTF-8 text take; no file is written."""
        words = sum(len(word.encode()) for word in self.vectoriser.vocabulary_)
        return int(self.weights.nbytes + self.bias.nbytes + self.vectoriser.idf_.nbytes + words)

    def predict(self, examples: Sequence[Example]) -> list[Prediction]:
        """Answer with the records an encoder gives: label, score, scores and, for multi-label, labels.

        Raises DataError when the examples have another number of texts than those it was fitted on.
        """
        if not examples:
            return []
        features = _features(self.vectoriser, examples)
        if features.shape[1] != self.weights.shape[1]:
            raise DataError(
                f"{examples[0].where}: found {len(examples[0].texts)} text(s) an example; "
                "give as many as the baseline was fitted on"
            )
        decisions = features @ self.weights.T.astype(np.float64) + self.bias  # (N, decisions)
        if self.kind == "regression":
            return [Prediction(label=self.labels[0], score=float(value)) for value in decisions[:, 0]]
        if self.kind == "multi":
            probabilities = 1 / (1 + np.exp(-decisions))
        else:
            if len(self.labels) == 2:  # one decision, for the second label
                decisions = np.concatenate([np.zeros_like(decisions), decisions], axis=1)
            powers = np.exp(decisions - decisions.max(axis=1, keepdims=True))
            probabilities = powers / powers.sum(axis=1, keepdims=True)
        return [self._prediction(row) for row in probabilities.tolist()]

    def _prediction(self, probabilities: list[float]) -> Prediction:
        scores = dict(zip(self.labels, probabilities, strict=True))
        best = max(scores, key=scores.__getitem__)
        chosen = tuple(label for label, score in scores.items() if score > THRESHOLD)
        return Prediction(best, scores[best], scores, chosen if self.kind == "multi" else None)


def fit_baseline(examples: Sequence[Example], *, kind: Kind, labels: Sequence[str], seed: int) -> Baseline:
    """Fit TF-IDF over words and word pairs with logistic regression, one label against the rest, or ridge.

    Two texts share a vocabulary; their vectors stand side by side with their element-wise product. Labels that
    no example has, or every example, get their smoothed frequency and no weights. Raises DataError when the
    texts hold no words, and MissingDependencyError without scikit-learn.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression, Ridge
    except ImportError as error:
        raise MissingDependencyError(
            "the baseline needs scikit-learn, which was not found: pip install 'bothways[train]'"
        ) from error
    # In many examples a phrase seen once costs memory and, measured on IMDB, helps nothing.
    rare = 2 if len(examples) >= MANY_EXAMPLES else 1
    vectoriser = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+", min_df=rare)
    try:
        vectoriser.fit(text for example in examples for text in example.texts)
    except ValueError as error:
        raise DataError(f"found no words in {len(examples)} examples; texts with words are expected") from error
    features = _features(vectoriser, examples)
    golds = [example.gold for example in examples]
    models: list[Any] = []
    if kind == "regression":
        targets = np.array(golds, dtype=np.float64)
        models.append(Ridge(alpha=RIDGE_PENALTY, random_state=seed).fit(features, targets))
    else:
        for label in labels[1:] if kind == "single" and len(labels) == 2 else labels:
            ...
    raise NotImplementedError
