"""Named entity recognition: predict a tag per word and merge tagged words into entities with character offsets.

text    Elon  Musk  founded  Tesla .          words of `split_words`, or the words of the file
tags    B-PER I-PER O        B-ORG O          predicted at the first token of each word
        [Elon Musk]          [Tesla]          text[start:end] is the entity

Training always labels the words of `split_words`, even if the words of a file are longer. Entities that a file gives
as spans are scored as spans; a span that does not consist of whole words cannot be predicted.

K head positions, W words, L tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from bothways.data.columns import Sentence
from bothways.data.examples import Example, Reference, Words
from bothways.data.schemes import Scheme, entity_spans, may_follow, split_tag, tag_runs, to_bio
from bothways.data.sentences import of_words, read_tagged, read_untagged, reference_spans, words_of
from bothways.data.spans import plain, tag_words
from bothways.data.tables import Columns, Source
from bothways.data.words import Places, split_words
from bothways.errors import DataError, OptionError
from bothways.metrics import Scores, tagging
from bothways.tasks.picture import Mark, Picture
from bothways.tasks.task import (
    Prediction,
    Trainable,
    grouped,
    labels_of_config,
    log_softmax,
    reading_stats,
    with_most_context,
)
from bothways.text.tokenizer import Encoded, Tokenizer

Strategy = Literal["none", "simple", "first", "average", "max"]


class Entity(NamedTuple):
    """A named entity: its type, the mean probability of its tags, and its offsets; text[start:end] is `word`."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TagPrediction(Prediction):
    """Entities in text order, and one BIO tag per word (with "none": raw tags, one per token, and no entities)."""

    entities: tuple[Entity, ...] = ()
    tags: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    raw: tuple[dict[str, Any], ...] = ()

    def answer(self, *, all_scores: bool) -> dict[str, Any]:
        """entities; with `all_scores` also the tags and scores of all words."""
        raw = [dict(one) for one in self.raw]  # copied: equal texts share a prediction
        answer: dict[str, Any] = {"entities": raw + [entity._asdict() for entity in self.entities]}
        return answer | ({"tags": list(self.tags), "scores": list(self.scores)} if all_scores else {})

    def summary(self) -> tuple[str, float]:
        """The entities with their types, and the lowest word score."""
        return _said(self.entities), min(self.scores, default=1.0)

    def picture(self, example: Example) -> Picture:
        """The text with its entities marked."""
        marks = tuple(Mark(one.start, one.end, one.entity_group, one.score) for one in self.entities)
        return Picture((("", example.texts[0]),), marks, note=self.note(), error=self.error)


@dataclass(frozen=True, slots=True)
class Tag(Trainable):
    """A tag per word. `labels` are in output order and follow `scheme`; IOB1 allows every tag sequence.

    `aggregation_strategy` merges tokens as in `transformers`: "first", "average" and "max" predict tags of words,
    "simple" and "none" tags of tokens.
    """

    name = "tag"
    head = "tokens"
    loss = "tokens"
    headline = "entity_f1"
    labels: tuple[str, ...]
    scheme: Scheme = "BIO"
    aggregation_strategy: Strategy = "first"
    ignore_labels: tuple[str, ...] = ("O",)
    max_length: int = 512
    stride: int = 64
    truncation: bool = False

    @classmethod
    def read(cls, source: Source, columns: Columns, *, labeled: bool = True) -> list[Example]:
        """Read sentences from a column file (word first, tag last), or rows with words and tags or text and spans."""
        return read_tagged(source, columns) if labeled else list(cls.inputs(source, columns))

    @classmethod
    def inputs(cls, source: Source, columns: Columns) -> Iterator[Example]:
        """Iterate over the sentences of a column file, or the texts or word lists of rows, ignoring tags."""
        return read_untagged(source, columns)

    @classmethod
    def learn(cls, examples: Sequence[Example], **settings: Any) -> Self:
        """Infer the entity types from training examples; raises `DataError` if there are no entities."""
        tags = {
            tag for example in examples for tag in (example.reference if isinstance(example.reference, tuple) else ())
        }
        types = sorted({tag[2:] for tag in tags if tag != "O"})
        if not types:
            where = examples[0].where if examples else "the data"
            raise DataError(
                f"{where} and below: every tag is O, there is no entity to learn; expected tags such as B-PER"
            )
        return cls(("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")), **settings)

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """Return the task of a `transformers` model; its config names no scheme, so I- may start an entity."""
        labels = labels_of_config(config)
        prefixes = {split_tag(label)[0] for label in labels}
        scheme: Scheme = "BIOES" if prefixes & {"E", "S"} else "IOB1" if "B" in prefixes else "IO"
        return cls(labels, scheme, **settings)

    def describe(self) -> str:
        """Describe the entity types."""
        return f"entities of {len(self.types)} type(s): {', '.join(self.types)}"

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types, in label order."""
        return tuple(dict.fromkeys(split_tag(label)[1] for label in self.labels if label != "O"))

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """The number of tags."""
        return len(self.labels)

    def example(self, given: Any) -> Example:
        """Convert a text or a list of words to an example."""
        words = plain(given)
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            return replace(of_words(Sentence(tuple(words), (), ("input",))), row=None, number=None)
        # Not super(): slots=True replaces the class, and super() would refer to the original one.
        return super(Tag, self).example(given)

    def failure(self, reason: str) -> TagPrediction:
        """Return a prediction without entities, with the reason as its error."""
        return TagPrediction(error=reason, windows=0)

    def training_notes(self, examples: Sequence[Example]) -> list[str]:
        """Report tag schemes other than BIO, what was inferred, and entities that cannot be predicted."""
        details = [example.details for example in examples if isinstance(example.details, Words)]
        lines = [
            f"the tags are {scheme}, learned as BIO" for scheme in sorted({one.scheme for one in details} - {"", "BIO"})
        ]
        lines += sorted({note for one in details for note in one.notes})
        total = missed = 0
        for example in examples:
            spans = reference_spans(example)
            total += len(spans)
            if isinstance(example.details, Words) and example.details.cut:
                edges = {edge for place in split_words(example.texts[0]) for edge in place}
                missed += sum(not {start, end} <= edges for start, end, _ in spans)
        if missed:
            lines.append(f"{missed:,} of {total:,} entities are a part of a word: they count as missed in every score")
        return lines

    def check(self, examples: Sequence[Example]) -> None:
        """Raise `DataError` for the first entity with an unknown type."""
        known = set(self.types)
        for example in examples:
            for tag in example.reference if isinstance(example.reference, tuple) else ():
                if tag != "O" and split_tag(tag)[1] not in known:
                    raise DataError(
                        f"{example.where}: the type {split_tag(tag)[1]!r} is not one of {', '.join(self.types)}; "
                        "correct it or add training sentences for it"
                    )

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Return each example's windows; each word is predicted in the window with the most context around it."""
        found: list[Encoded] = []
        for number, group in grouped(self.windows(examples, tokenizer)):
            example = examples[number]
            places = split_words(example.texts[0])
            starts, ends = np.array(places, np.int64).reshape(-1, 2).T
            targets = None
            if isinstance(example.reference, tuple) and self.scheme == "BIO":
                numbers = {label: place for place, label in enumerate(self.labels)}
                tags = tag_words(places, reference_spans(example), len(example.texts[0]))
                targets = np.array([numbers[tag] for tag in tags], np.int64)
            done = -1
            for window, own in with_most_context(group, 0):
                begin, end = window.offsets[own].T
                words = np.searchsorted(ends, begin, side="right")  # the first word that ends after the token's start
                inside = (words < len(ends)) & (begin < end)
                inside[inside] &= starts[words[inside]] < end[inside]
                own, words = own[inside], words[inside]
                if self.aggregation_strategy == "first":
                    first = np.diff(words, prepend=done) > 0
                    done = int(words[-1]) if len(words) else done
                    own, words = own[first], words[first]
                whole = np.full(len(window.ids), -1, np.int32)
                whole[own] = words
                target = None if targets is None else targets[words]
                found.append(replace(window, word_ids=whole, head_positions=own, target=target))
        return found

    def reduce(self, rows: np.ndarray, window: Encoded) -> np.ndarray:
        """(K, L) logits -> (K, L) log-probabilities."""
        return log_softmax(rows)

    def decode(
        self, example: Example, parts: Sequence[np.ndarray], windows: Sequence[Encoded], tokenizer: Tokenizer
    ) -> TagPrediction:
        """(K, L) log-probabilities at the head positions of each window of one example -> its entities."""
        text = example.texts[0]
        read = [(window, place) for window in windows for place in window.head_positions.tolist()]
        logs = np.concatenate(parts)  # (K, L)
        more = reading_stats(windows)
        if self.aggregation_strategy in ("none", "simple"):
            spans = [tuple(window.offsets[place].tolist()) for window, place in read]
            best = logs.argmax(-1)
            scores = np.exp(logs.max(-1))
            if self.aggregation_strategy == "none":
                names = tokenizer.convert_ids_to_tokens(window.ids[place] for window, place in read)
                raw = tuple(
                    {
                        "entity": self.labels[best[k]],
                        "score": float(scores[k]),
                        "index": window.skipped + place,
                        "word": names[k],
                        "start": spans[k][0],
                        "end": spans[k][1],
                    }
                    for k, (window, place) in enumerate(read)
                    if self.labels[best[k]] not in self.ignore_labels
                )
                return TagPrediction(
                    raw=raw, tags=tuple(self.labels[k] for k in best), scores=tuple(scores.tolist()), **more
                )
            tags = [self.labels[k] for k in best]
            return TagPrediction(entities=tuple(self._entities(text, spans, tags, scores)), **more)
        owner = np.array([window.word_ids[place] for window, place in read], np.int64)
        places, owner = _spoken(example, owner, windows)
        emissions = np.full((len(places), len(self.labels)), -np.inf)
        emissions[:, self.labels.index("O") if "O" in self.labels else 0] = 0.0  # a word without a token
        for word, few in _runs(owner):
            emissions[word] = self._word(logs[few])
        path = viterbi(emissions, self._transitions())
        tags = [self.labels[k] for k in path]
        scores = np.exp(emissions[np.arange(len(path)), path])
        entities = tuple(self._entities(text, places, tags, scores))
        bio = to_bio(tags)
        if isinstance(example.details, Words) and example.details.cut:
            spans = [(places[first][0], places[last - 1][1], kind) for kind, first, last in entity_spans(bio)]
            ends = np.array([end for _, end in places], np.int64)
            scores = scores[np.searchsorted(ends, [start for start, _ in example.details.places], side="right")]
            bio = tag_words(example.details.places, spans, len(text))
        return TagPrediction(entities=entities, tags=bio, scores=tuple(scores.tolist()), **more)

    def score(
        self,
        predictions: Sequence[TagPrediction],
        references: Sequence[Reference],
        *,
        rng: np.random.Generator,
        resamples: int = 2000,
    ) -> Scores:
        """Compute strict entity precision, recall and F1, and tag accuracy, with 95 % confidence intervals."""
        if self.aggregation_strategy in ("none", "simple"):
            raise OptionError(
                f"the strategy {self.aggregation_strategy} labels tokens, but the references label words; "
                "use first, average or max"
            )
        right = [reference if isinstance(reference, tuple) else () for reference in references]
        found = [
            prediction.tags or ("O",) * len(reference) for prediction, reference in zip(predictions, right, strict=True)
        ]
        return tagging(right, found, rng=rng, resamples=resamples)

    def reference_summary(self, example: Example) -> str:
        """Return the reference entities with their types."""
        tags = example.reference if isinstance(example.reference, tuple) else ()
        return _said(self._entities(example.texts[0], words_of(example), tags, np.zeros(len(tags))))

    def is_correct(self, prediction: TagPrediction, reference: Reference) -> bool:
        """Whether every word has the correct tag."""
        return prediction.tags == reference

    def _word(self, logs: np.ndarray) -> np.ndarray:
        """(K, L) log-probabilities of the tokens of one word -> (L,)."""
        if self.aggregation_strategy == "average":
            return np.log(np.maximum(np.exp(logs).mean(0), 1e-300))
        return logs[logs.max(-1).argmax()] if self.aggregation_strategy == "max" else logs[0]

    def _transitions(self) -> np.ndarray:
        """(L + 1, L + 1) allowed [before, after] tags; the last row is the start, the last column the end."""
        return _legal(self.labels, self.scheme)

    def _entities(
        self, text: str, places: Sequence[tuple[int, ...]], tags: Sequence[str], scores: np.ndarray
    ) -> Iterator[Entity]:
        """Yield the entities of a tag sequence; runs of O become entities of type O unless O is ignored."""
        for kind, first, last in tag_runs(tags):
            members = [number for number in range(first, last) if tags[number] not in self.ignore_labels]
            if members and kind not in self.ignore_labels:
                start, end = places[members[0]][0], places[members[-1]][1]
                yield Entity(kind, float(np.mean(scores[members])), text[start:end], start, end)


@cache
def _legal(labels: tuple[str, ...], scheme: Scheme) -> np.ndarray:
    tags = [*labels, "O"]
    return np.array([[may_follow(before, after, scheme) for after in tags] for before in tags])


def _said(entities: Iterable[Entity]) -> str:
    return ", ".join(f"{one.word} ({one.entity_group})" for one in entities) or "no entity"


def viterbi(emissions: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """Find the best legal path: (W, L) log-probabilities, (L + 1, L + 1) legal transitions -> (W,) tags.

    Viterbi (1967); all legal transitions cost the same. If the argmax path is legal, it is returned.
    """
    best = emissions.argmax(-1)
    if len(best) == 0 or legal[np.append(-1, best), np.append(best, -1)].all():
        return best
    penalty = np.where(legal, 0.0, -np.inf)
    score, back = emissions[0] + penalty[-1, :-1], np.zeros(emissions.shape, np.int64)
    for word in range(1, len(emissions)):
        paths = score[:, None] + penalty[:-1, :-1]  # (before, after)
        back[word] = paths.argmax(0)
        score = paths.max(0) + emissions[word]
    path = [int((score + penalty[:-1, -1]).argmax())]
    for word in range(len(emissions) - 1, 0, -1):
        path.append(int(back[word, path[-1]]))
    return np.array(path[::-1])


def _spoken(example: Example, owner: np.ndarray, windows: Sequence[Encoded]) -> tuple[Places, np.ndarray]:
    """Return the words of a prediction, and the word of each head position; `owner` indexes `split_words` words.

    The words are the file's own if it has any, else those of `split_words`. Adjacent `split_words` words are merged
    if they share a token, such as "-19" in "COVID-19".
    """
    words = split_words(example.texts[0])
    if isinstance(example.details, Words) and not example.details.cut:
        ends = [end for _, end in example.details.places]
        return example.details.places, np.searchsorted(ends, np.array([words[one][0] for one in owner]), side="right")
    own = set(owner.tolist())
    if len(own) == len(words):
        return words, owner
    found: list[tuple[int, int]] = []
    number = np.zeros(len(words), np.int64)
    for word, (start, end) in enumerate(words):
        if word in own or not found or found[-1][1] != start or not _shares(start, windows):
            found.append((start, end))
        else:
            found[-1] = found[-1][0], end
        number[word] = len(found) - 1
    return tuple(found), number[owner]


def _shares(place: int, windows: Sequence[Encoded]) -> bool:
    """Whether a token spans a position in the text."""
    return any(
        bool(((begin < place) & (place < end) & (window.sequence_ids == 0)).any())
        for window in windows
        for begin, end in [window.offsets.T]
    )


def _runs(owner: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Yield each word, and the slice of its tokens among the head positions."""
    edges = np.flatnonzero(np.diff(owner, prepend=-1, append=-1)).tolist()
    for start, stop in pairwise(edges):
        yield int(owner[start]), slice(start, stop)
