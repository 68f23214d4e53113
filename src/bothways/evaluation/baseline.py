"""The baseline: TF-IDF and a linear model, fitted in seconds; a BERT that does not beat it is not worth running."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bothways.data.examples import Example, labels_of
from bothways.errors import DataError, MissingDependencyError
from bothways.tasks.classify import Classify, Kind, LabelPrediction, probabilities

# Chosen on held-out parts of training files: Banking77, TREC, IMDB, GoEmotions; for pairs NLI and STS-B, where
# single words did better than word pairs and a stronger penalty was needed.
NGRAM_RANGE = {1: (1, 2), 2: (1, 1)}  # texts an example -> shortest and longest phrase, in words
INVERSE_PENALTY = {1: 30.0, 2: 0.3}  # texts an example -> scikit-learn's C
RIDGE_PENALTY = 3.0
MANY_EXAMPLES = 20_000
THRESHOLD = 0.5
MAX_WEIGHTS = 50_000_000  # 200 MB
MAX_FEATURES, FEWEST_FEATURES = 1_000_000, 20_000
MAX_WORK = 200_000_000  # labels times words in the texts; of more, labels are means: minutes of logistic regression
SHARPNESS = 20.0  # by which the cosine to a label's mean is multiplied
MAX_SCORES = 1000  # labels; of more, a prediction holds the scores of the best ones
BEST_SCORES = 20
CELLS_AT_ONCE = 5_000_000
# Thai, Lao, Burmese, Khmer, Chinese, Japanese: written without spaces, so characters take the place of words.
WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
CHARACTERS = {"analyzer": "char", "ngram_range": (1, 3), "lowercase": True}
MAX_WITHOUT_WORDS = 0.2  # of the texts (only emoji, only punctuation); of more, characters are read


@dataclass(frozen=True, slots=True)
class Baseline:
    """A fitted TF-IDF vectorizer and D linear decisions over F features: weights (D, F), bias (D,).

    `means` says that a row of the weights (sparse, then) is the mean of a label's texts.
    """

    kind: Kind
    labels: tuple[str, ...]
    texts_each: int
    vectoriser: Any
    weights: Any
    bias: NDArray[np.float32]
    means: bool = False

    @property
    def parameters(self) -> int:
        """How many numbers were learned, the inverse document frequencies included."""
        learned = self.weights.nnz if self.means else self.weights.size
        return int(learned + self.bias.size + self.vectoriser.idf_.size)

    @property
    def size_bytes(self) -> int:
        """What the arrays and the vocabulary's UTF-8 text take, in bytes; no file is written."""
        words = sum(len(word.encode()) for word in self.vectoriser.vocabulary_)
        learned = 2 * self.weights.data.nbytes if self.means else self.weights.nbytes  # a place for each number
        return int(learned + self.bias.nbytes + self.vectoriser.idf_.nbytes + words)

    def predict(self, examples: Sequence[Example]) -> list[LabelPrediction]:
        """Answer with the records that an encoder gives: label, score, scores and, for multi-label, labels.

        Raises DataError if an example has another number of texts than those it was fitted on.
        """
        if not examples:
            return []
        features = _features(self.vectoriser.transform(_texts(examples, self.texts_each)), len(examples))
        at_once = max(1, CELLS_AT_ONCE // max(1, len(self.labels)))
        return [
            self._prediction(row)
            for start in range(0, len(examples), at_once)
            for row in self._probabilities(features[start : start + at_once])
        ]

    def _probabilities(self, features: Any) -> NDArray[np.float64]:
        """(N, F) features -> (N, L) probabilities (one against the rest, normalized as in scikit-learn), or numbers."""
        if self.means:
            decisions = SHARPNESS * np.asarray((features @ self.weights.T).todense(), dtype=np.float64)
            return probabilities(decisions - SHARPNESS / 2 if self.kind == "multi" else decisions, self.kind)
        decisions = features @ self.weights.T + self.bias  # (N, D)
        if self.kind == "regression":
            return probabilities(decisions, self.kind)
        each = probabilities(decisions, "multi")
        if self.kind == "single" and len(self.labels) == 2:  # the one decision speaks for the second label
            return np.concatenate([1 - each, each], axis=1)
        return each if self.kind == "multi" else each / np.maximum(each.sum(axis=1, keepdims=True), 1e-300)

    def _prediction(self, values: NDArray[np.float64]) -> LabelPrediction:
        best = int(values.argmax())
        places = range(len(values))
        if len(values) > MAX_SCORES:
            places = np.argsort(-values, kind="stable")[:BEST_SCORES].tolist()
        scores = {self.labels[place]: float(values[place]) for place in places}
        chosen = tuple(self.labels[place] for place in np.flatnonzero(values >= THRESHOLD))
        return LabelPrediction(self.labels[best], float(values[best]), scores, chosen if self.kind == "multi" else None)


def fit_baseline(
    examples: Sequence[Example], *, kind: Kind, labels: Sequence[str], seed: int, balanced: bool = False
) -> Baseline:
    """Fit TF-IDF with logistic regression, each label against the rest, or with ridge regression.

    One text: words and word pairs. Two texts: the words of both, u and v, as [u, v, |u - v|, u * v] (Conneau et
    al., 2017) and their cosine. Texts in scripts without spaces, and texts without words, are read by characters. A
    label that no example has, or every example, gets its smoothed frequency and no weights. With thousands of labels,
    each is the mean of its texts instead (Rocchio), compared by the cosine: time and memory are those of the texts.
    `balanced` gives rare labels more weight, as scikit-learn's "balanced" does. `labels` is as in `Classify`. Raises
    DataError for references that are missing or not in `labels` and without examples, MissingDependencyError without
    scikit-learn.
    """
    try:
        from sklearn.linear_model import LogisticRegression, Ridge
    except ImportError as error:
        raise MissingDependencyError(
            "the baseline needs scikit-learn, which is not installed: pip install 'bothways[train]'"
        ) from error
    if not examples:
        raise DataError("found no examples to fit the baseline to; expected the training texts")
    Classify(tuple(labels), kind).check(examples)
    texts_each = len(examples[0].texts)
    decisions = 1 if kind == "regression" or (kind == "single" and len(labels) == 2) else len(labels)
    vectoriser, features = _vectors(examples, texts_each, decisions)
    made = (kind, tuple(labels), texts_each, vectoriser)
    if kind == "regression":
        numbers = np.array([example.reference for example in examples], dtype=np.float64)
        ridge = Ridge(alpha=RIDGE_PENALTY, random_state=seed).fit(features, numbers)
        return Baseline(*made, np.array([ridge.coef_], np.float32), np.array([ridge.intercept_], np.float32))
    members = _members(examples, labels)
    if decisions * features.nnz > MAX_WORK or MAX_WEIGHTS // decisions < FEWEST_FEATURES:
        return Baseline(*made, _means(features, members), np.zeros(len(labels), np.float32), means=True)
    weights, bias = np.zeros((decisions, features.shape[1]), np.float32), np.zeros(decisions, np.float32)
    for row, own in enumerate(members[-decisions:]):
        has_it = np.zeros(len(examples), dtype=bool)
        has_it[own] = True
        if has_it.all() or not has_it.any():
            bias[row] = np.log((has_it.sum() + 0.5) / ((~has_it).sum() + 0.5))
            continue
        # Each label against the rest by liblinear: 77 labels in a quarter of the time of softmax by lbfgs.
        model = LogisticRegression(
            C=INVERSE_PENALTY[texts_each],
            solver="liblinear",
            max_iter=1000,
            random_state=seed,
            class_weight="balanced" if balanced else None,
        ).fit(features, has_it)
        weights[row], bias[row] = model.coef_[0], model.intercept_[0]
    return Baseline(*made, weights, bias)


def _vectors(examples: Sequence[Example], texts_each: int, decisions: int) -> tuple[Any, Any]:
    """A fitted vectorizer, and the features of the examples; no more of them than there may be weights for."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = _texts(examples, texts_each)
    # In many examples a phrase seen once costs memory and, measured on IMDB, helps nothing.
    rare = 2 if len(examples) >= MANY_EXAMPLES else 1
    most = MAX_FEATURES
    if MAX_WEIGHTS // decisions >= FEWEST_FEATURES:  # of more labels there is no matrix, as they are means
        most = min(most, MAX_WEIGHTS // decisions // (1 if texts_each == 1 else 4))
    reading: dict[str, Any] = {"ngram_range": NGRAM_RANGE[texts_each], "token_pattern": r"\w+"}
    letters, unspaced = sum(map(len, texts)), sum(len(WITHOUT_SPACES.findall(text)) for text in texts)
    wordless = sum(re.search(r"\w", text) is None for text in texts)
    if unspaced > 0.3 * letters or wordless > MAX_WITHOUT_WORDS * len(texts):
        reading = CHARACTERS
    for least in sorted({rare, 1}, reverse=True):
        vectoriser = TfidfVectorizer(sublinear_tf=True, min_df=least, max_features=most, **reading)
        try:
            vectors = vectoriser.fit_transform(texts)
        except ValueError:  # no phrase occurs as often
            continue
        return vectoriser, _features(vectors, len(examples))
    raise DataError(f"found no words in {len(examples)} examples; texts with words are needed")


def _members(examples: Sequence[Example], labels: Sequence[str]) -> list[list[int]]:
    """The examples of each label."""
    members: dict[str, list[int]] = {label: [] for label in labels}
    for number, example in enumerate(examples):
        for label in labels_of(example.reference):
            members[label].append(number)
    return [members[label] for label in labels]


def _means(features: Any, members: Sequence[Sequence[int]]) -> Any:
    """The sum of the vectors of each label's examples, scaled to length 1: a sparse (L, F) matrix."""
    from scipy.sparse import csr_matrix
    from sklearn.preprocessing import normalize

    ends = np.cumsum([0, *map(len, members)])
    places = np.concatenate([np.asarray(own, dtype=np.int64) for own in members])
    belongs = csr_matrix((np.ones(len(places), np.float32), places, ends), shape=(len(members), features.shape[0]))
    return normalize((belongs @ features).astype(np.float32))


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
