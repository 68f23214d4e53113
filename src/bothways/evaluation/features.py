"""Features of the baselines: TF-IDF of words, or sentence embeddings of a frozen pretrained model.

N examples, F features. The features of two texts u and v are [u, v, |u - v|, u * v] (Conneau et al., 2017).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bothways.data.examples import Example
from bothways.errors import DataError
from bothways.inference.predictor import Predictor, load

# Chosen on held-out parts of the training sets of Banking77, TREC, IMDB and GoEmotions; for pairs, of NLI and STS-B,
# where unigrams were better than bigrams.
NGRAM_RANGE = {1: (1, 2), 2: (1, 1)}  # texts per example -> shortest and longest n-gram, in words
MANY_EXAMPLES = 20_000
MAX_WEIGHTS = 50_000_000  # 200 MB
MAX_FEATURES, FEWEST_FEATURES = 1_000_000, 20_000
# Thai, Lao, Burmese, Khmer, Chinese, Japanese have no spaces between words, so characters replace words.
WITHOUT_SPACES = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
CHARACTERS = {"analyzer": "char", "ngram_range": (1, 3), "lowercase": True}
MAX_WITHOUT_WORDS = 0.2  # of the texts (only emoji, only punctuation); above it, characters replace words
MAX_EMBEDDED = 20_000  # training texts to embed (both texts of a pair count)
MAX_CHARACTERS = 4_000_000  # in these texts: about a million tokens, one to two minutes on two cores
MAX_LENGTH = 256  # tokens of a text to embed
CHARACTERS_A_TOKEN = 4  # approximately
SMALLEST_SCALE = 1e-6  # standard deviation of a column; below it, the column is constant


class Features(Protocol):
    """Interface: converts examples to the rows of a dense or sparse matrix."""

    @property
    def parameters(self) -> int:
        """The number of parameters."""
        ...

    @property
    def size_bytes(self) -> int:
        """The size of its parameters and files in bytes."""
        ...

    @property
    def engine(self) -> str:
        """A short description of the engine."""
        ...

    def transform(self, examples: Sequence[Example]) -> Any:
        """Return (N, F) features; raises `DataError` for a different number of texts from training."""
        ...


@dataclass(frozen=True, slots=True)
class Tfidf:
    """TF-IDF of unigrams and bigrams (for two texts: of unigrams, and the cosine).

    Texts in scripts without spaces, and texts without words, use character n-grams.
    """

    vectorizer: Any
    texts_each: int

    @classmethod
    def fit(cls, examples: Sequence[Example], decisions: int) -> tuple[Tfidf, Any]:
        """Fit to examples and return their features; `decisions` limits the number of features."""
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts_each = len(examples[0].texts)
        texts = _texts(examples, texts_each)
        # With many examples, n-grams that occur once cost memory and, on IMDB, do not help.
        rare = 2 if len(examples) >= MANY_EXAMPLES else 1
        most = MAX_FEATURES
        if MAX_WEIGHTS // decisions >= FEWEST_FEATURES:  # otherwise the weights are sparse label means
            most = min(most, MAX_WEIGHTS // decisions // (1 if texts_each == 1 else 4))
        reading: dict[str, Any] = {"ngram_range": NGRAM_RANGE[texts_each], "token_pattern": r"\w+"}
        letters, unspaced = sum(map(len, texts)), sum(len(WITHOUT_SPACES.findall(text)) for text in texts)
        wordless = sum(re.search(r"\w", text) is None for text in texts)
        if unspaced > 0.3 * letters or wordless > MAX_WITHOUT_WORDS * len(texts):
            reading = CHARACTERS
        for least in sorted({rare, 1}, reverse=True):
            vectorizer = TfidfVectorizer(sublinear_tf=True, min_df=least, max_features=most, **reading)
            try:
                vectors = vectorizer.fit_transform(texts)
            except ValueError:  # no n-gram occurs this often
                continue
            return cls(vectorizer, texts_each), _sparse_features(vectors, len(examples))
        raise DataError(f"found no words in {len(examples)} examples; texts with words are needed")

    @property
    def parameters(self) -> int:
        """The number of inverse document frequencies."""
        return int(self.vectorizer.idf_.size)

    @property
    def size_bytes(self) -> int:
        """The size of the frequencies and the UTF-8 vocabulary; there are no files."""
        words = sum(len(word.encode()) for word in self.vectorizer.vocabulary_)
        return int(self.vectorizer.idf_.nbytes + words)

    @property
    def engine(self) -> str:
        """The library that computes the features."""
        return "scikit-learn"

    def transform(self, examples: Sequence[Example]) -> Any:
        """Return (N, F) sparse features."""
        return _sparse_features(self.vectorizer.transform(_texts(examples, self.texts_each)), len(examples))


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Sentence embeddings: the mean over the tokens, scaled to length 1, with standardized columns.

    Texts are truncated to `MAX_LENGTH` tokens.
    """

    predictor: Predictor
    texts_each: int
    center: NDArray[np.float32]  # (F,)
    scale: NDArray[np.float32]  # (F,)

    @classmethod
    def fit(cls, examples: Sequence[Example], base: Path) -> tuple[Embeddings, NDArray[np.float32]]:
        """Fit column means and deviations, and return the features of the examples.

        Raises `BothwaysError` if `base` cannot be run here.
        """
        predictor = load(base, task="embed", offline=True, pooling="mean", normalize=True, truncation=True)
        predictor.task = predictor.task.changed(max_length=min(MAX_LENGTH, predictor.task.max_length))
        made = cls(predictor, len(examples[0].texts), np.zeros(1, np.float32), np.ones(1, np.float32))
        vectors = made.transform(examples)
        center, scale = vectors.mean(axis=0), vectors.std(axis=0)
        scale[scale < SMALLEST_SCALE] = 1.0
        return cls(predictor, made.texts_each, center, scale), (vectors - center) / scale

    @property
    def parameters(self) -> int:
        """The number of parameters of the encoder and of the standardization."""
        return int(self.predictor.engine.parameters + self.center.size + self.scale.size)

    @property
    def size_bytes(self) -> int:
        """The size of the model's files in bytes."""
        directory, weights = self.predictor.model_directory, self.predictor.engine.weights
        files = [] if directory is None else directory.files()
        return sum(path.stat().st_size for path in [*files, *([] if weights is None else [weights])])

    @property
    def engine(self) -> str:
        """The description of the encoder's engine."""
        return self.predictor.engine.describe()

    def transform(self, examples: Sequence[Example]) -> NDArray[np.float32]:
        """Return (N, F) features; a text with an error, such as an empty one, has a zero vector."""
        texts = [Example((text,)) for text in _texts(examples, self.texts_each)]
        found = [one.vector for one in self.predictor.predict_examples(texts)]
        width = max(map(len, found))
        vectors = np.stack([one if len(one) else np.zeros(width, np.float32) for one in found])
        if self.texts_each == 2:
            u, v = vectors[: len(examples)], vectors[len(examples) :]
            vectors = np.hstack([u, v, np.abs(u - v), u * v])
        standardized: NDArray[np.float32] = (vectors - self.center) / self.scale
        return standardized


def sample(examples: Sequence[Example], seed: int) -> list[Example]:
    """Return the examples to fit an embedding baseline to: all, or a random sample to limit the time.

    The limits are `MAX_EMBEDDED` texts and `MAX_CHARACTERS` characters, counted after truncation.
    """
    order = np.random.default_rng(seed).permutation(len(examples))
    read = [sum(min(len(text), CHARACTERS_A_TOKEN * MAX_LENGTH) for text in examples[place].texts) for place in order]
    most = max(1, int(np.searchsorted(np.cumsum(read), MAX_CHARACTERS, side="right")))
    drawn = order[: min(most, MAX_EMBEDDED // len(examples[0].texts))]
    return [examples[place] for place in np.sort(drawn)]


def _texts(examples: Sequence[Example], texts_each: int) -> list[str]:
    """Return all first texts, then all second texts."""
    for example in examples:
        if len(example.texts) != texts_each:
            raise DataError(f"{example.where}: found {len(example.texts)} text(s); {texts_each} expected, as elsewhere")
    return [example.texts[place] for place in range(texts_each) for example in examples]


def _sparse_features(vectors: Any, n: int) -> Any:
    """Sparse (N, V) or (2N, V) vectors, second texts below the first -> (N, V) or (N, 4V + 1) features."""
    from scipy.sparse import csr_matrix, hstack

    if vectors.shape[0] == n:
        return vectors
    first, second = vectors[:n], vectors[n:]
    product = first.multiply(second)
    cosine = csr_matrix(product.sum(axis=1).reshape(-1, 1))
    return hstack([first, second, abs(first - second), product, cosine], format="csr")
