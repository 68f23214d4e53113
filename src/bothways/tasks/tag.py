"""Named entities: a tag for each word, words into entities with exact places in the text.

text    Elon  Musk  founded  Tesla .          words by `split_words`, or as a file gives them
tags    B-PER I-PER O        B-ORG O          read at the first piece of each word
        [Elon Musk]          [Tesla]          text[start:end] is the entity

K pieces read, W words, L tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np

from bothways.errors import DataError, OptionError
from bothways.metrics import Scores, tagging
from bothways.tasks.picture import Mark, Picture
from bothways.tasks.task import (
    Example,
    Gold,
    Pieces,
    Prediction,
    Trainable,
    grouped,
    how_read,
    labels_in,
    named,
    owned,
)
from bothways.text.columns import Sentence, detect_scheme, read_sentences
from bothways.text.files import RECORDS, TABLES, UNPACK, Columns, Row, Source, numbered_lines, read_rows
from bothways.text.schemes import Scheme, may_follow, split_tag, to_bio
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.text.words import Places, split_words

Strategy = Literal["none", "simple", "first", "average", "max"]


class Entity(NamedTuple):
    """A named entity: its type, the mean probability of its words' tags, its place; text[start:end] is `word`."""

    entity_group: str
    score: float
    word: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tagged(Prediction):
    """Entities in the order of the text; `tags` one a word, BIO ("none": raw tags, one a piece, and no entities)."""

    entities: tuple[Entity, ...] = ()
    tags: tuple[str, ...] = ()
    scores: tuple[float, ...] = ()
    raw: tuple[dict[str, Any], ...] = ()

    def answer(self, *, every_score: bool) -> dict[str, Any]:
        """entities; tags and scores of all words with `every_score`."""
        answer: dict[str, Any] = {"entities": [*self.raw, *(entity._asdict() for entity in self.entities)]}
        return answer | ({"tags": list(self.tags), "scores": list(self.scores)} if every_score else {})

    def said(self) -> tuple[str, float]:
        """The entities with their types, and the least sure word."""
        return _said(self.entities), min(self.scores, default=1.0)

    def picture(self, example: Example) -> Picture:
        """The text with its entities marked."""
        marks = tuple(Mark(one.start, one.end, one.entity_group, one.score) for one in self.entities)
        return Picture((("", example.texts[0]),), marks, note=self.note(), error=self.error)


@dataclass(frozen=True, slots=True)
class Tag(Trainable):
    """A tag for each word. `labels` in the order of the outputs, of `scheme`; IOB1 allows every sequence.

    `strategy` is how pieces make up words, as in `transformers`: "first", "average" and "max" answer for whole
    words, "simple" and "none" for pieces.
    """

    name = "tag"
    head = "tokens"
    loss = "tokens"
    headline = "entity_f1"
    labels: tuple[str, ...]
    scheme: Scheme = "BIO"
    strategy: Strategy = "first"
    ignored: tuple[str, ...] = ("O",)
    max_pieces: int = 512
    overlap: int = 64
    long: Literal["window", "cut"] = "window"

    @classmethod
    def read(cls, source: Source, columns: Columns, *, gold: bool = True) -> list[Example]:
        """Sentences of a column file (word first, tag last), or rows with words and tags, or text and spans."""
        suffixes = Path(source).suffixes if isinstance(source, str | Path) else [".jsonl"]
        kind = next((suffix for suffix in reversed(suffixes) if suffix.lower() not in UNPACK), "")
        columns_too = {".txt", ".tsv", ".tab"} if gold or _begins_as_columns(source) else set()
        if kind.lower() in {*RECORDS, *TABLES} - columns_too:
            rows = list(read_rows(source, header=columns.header))
            sentences = [_sentence(row, columns, gold=gold) for row in rows]
        else:
            sentences = [_of_words(one) for one in read_sentences(str(source), **_numbers(columns))]
        if not gold:
            return [example for example, _ in sentences]
        known = [sentence for _, sentence in sentences if sentence is not None]
        scheme = detect_scheme(known)
        return [
            replace(example, gold=to_bio(sentence.tags), given=(example.given[0], scheme))
            for (example, _), sentence in zip(sentences, known, strict=True)
        ]

    @classmethod
    def learn(cls, examples: Sequence[Example], **settings: Any) -> Self:
        """The task with the entity types of training examples; raises `DataError` where there is no entity."""
        tags = {tag for example in examples for tag in (example.gold if isinstance(example.gold, tuple) else ())}
        types = sorted({tag[2:] for tag in tags if tag != "O"})
        if not types:
            raise DataError(f"{examples[0].where} and below: every tag is O; expected entities to learn")
        return cls(("O", *(f"{prefix}-{kind}" for kind in types for prefix in "BI")), **settings)

    @classmethod
    def of_checkpoint(cls, config: dict[str, Any], **settings: Any) -> Self:
        """The task of a directory of `transformers`, which does not say whether I- may begin an entity: it may."""
        labels = labels_in(config)
        prefixes = {split_tag(label)[0] for label in labels}
        scheme: Scheme = "BIOES" if prefixes & {"E", "S"} else "IOB1" if "B" in prefixes else "IO"
        return cls(labels, scheme, **settings)

    def describe(self) -> str:
        """The entity types."""
        return f"entities of {len(self.types)} type(s): {', '.join(self.types)}"

    @property
    def types(self) -> tuple[str, ...]:
        """The entity types."""
        return tuple(dict.fromkeys(split_tag(label)[1] for label in self.labels if label != "O"))

    @property
    def outputs(self) -> int:  # type: ignore[override]
        """A number for each tag."""
        return len(self.labels)

    def example(self, given: Any) -> Example:
        """A running text, or a list of words, as an example."""
        if isinstance(given, list | tuple) and all(isinstance(word, str) for word in given):
            return _of_words(Sentence(tuple(given), ("",) * len(given), ("input",) * len(given)))[0]
        return super(Tag, self).example(given)

    def failure(self, reason: str) -> Tagged:
        """No entities, and why."""
        return Tagged(error=reason, windows=0)

    def noticed(self, examples: Sequence[Example]) -> list[str]:
        """Which scheme the tags of training examples are in."""
        schemes = {example.given[1] for example in examples if example.given is not None and len(example.given) > 1}
        return [f"the tags are {scheme}, learnt as BIO" for scheme in sorted(schemes)]

    def check(self, examples: Sequence[Example]) -> None:
        """Raise `DataError` at the first entity of a type that this task does not know."""
        known = set(self.types)
        for example in examples:
            for tag in example.gold if isinstance(example.gold, tuple) else ():
                if tag != "O" and split_tag(tag)[1] not in known:
                    raise DataError(
                        f"{example.where}: the type {split_tag(tag)[1]!r} is not one of {', '.join(self.types)}; "
                        "correct it or add training sentences for it"
                    )

    def encode(self, examples: Sequence[Example], tokenizer: Tokenizer) -> list[Encoded]:
        """Each example's windows; each word is read in the window that shows most around it."""
        found: list[Encoded] = []
        for number, group in grouped(self.windows(examples, tokenizer)):
            places = words_of(examples[number])
            starts, ends = np.array(places, np.int64).reshape(-1, 2).T
            gold = examples[number].gold
            targets = None
            if isinstance(gold, tuple) and self.scheme == "BIO":
                numbers = {label: place for place, label in enumerate(self.labels)}
                targets = np.array([numbers[tag] for tag in gold], np.int64)
            done = -1
            for window, own in owned(group, 0):
                begin, end = window.offsets[own].T
                words = np.searchsorted(ends, begin, side="right")  # the first word that ends behind the piece's start
                inside = (words < len(ends)) & (begin < end)
                inside[inside] &= starts[words[inside]] < end[inside]
                own, words = own[inside], words[inside]
                if self.strategy == "first":
                    first = np.diff(words, prepend=done) > 0
                    done = int(words[-1]) if len(words) else done
                    own, words = own[first], words[first]
                whole = np.full(len(window.ids), -1, np.int32)
                whole[own] = words
                target = None if targets is None else targets[words]
                found.append(replace(window, words=whole, reads=own, target=target))
        return found

    def reduce(self, rows: np.ndarray, window: Encoded) -> np.ndarray:
        """(K, L) logits -> (K, L) log-probabilities."""
        rows = rows.astype(np.float64) - rows.max(-1, keepdims=True)
        return rows - np.log(np.exp(rows).sum(-1, keepdims=True))

    def decode(
        self, example: Example, parts: Sequence[np.ndarray], windows: Sequence[Encoded], pieces: Pieces
    ) -> Tagged:
        """(K, L) log-probabilities of the pieces read in each window of one example -> its entities."""
        text = example.texts[0]
        read = [(window, place) for window in windows for place in window.reads.tolist()]
        logs = np.concatenate(parts)  # (K, L)
        more = how_read(windows)
        if self.strategy in ("none", "simple"):
            spans = [tuple(window.offsets[place].tolist()) for window, place in read]
            best = logs.argmax(-1)
            scores = np.exp(logs.max(-1))
            if self.strategy == "none":
                names = pieces(window.ids[place] for window, place in read)
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
                    if self.labels[best[k]] not in self.ignored
                )
                return Tagged(raw=raw, tags=tuple(self.labels[k] for k in best), scores=tuple(scores.tolist()), **more)
            tags = [self.labels[k] for k in best]
            return Tagged(entities=tuple(self._entities(text, spans, tags, scores)), **more)
        places = words_of(example)
        owner = np.array([window.words[place] for window, place in read], np.int64)
        emissions = np.full((len(places), len(self.labels)), -np.inf)
        emissions[:, self.labels.index("O") if "O" in self.labels else 0] = 0.0  # a word without a piece
        for word, few in _runs(owner):
            emissions[word] = self._word(logs[few])
        path = viterbi(emissions, self._transitions())
        tags = [self.labels[k] for k in path]
        scores = np.exp(emissions[np.arange(len(path)), path])
        entities = tuple(self._entities(text, places, tags, scores))
        return Tagged(entities=entities, tags=to_bio(tags), scores=tuple(scores.tolist()), **more)

    def score(
        self, predictions: Sequence[Tagged], golds: Sequence[Gold], *, rng: np.random.Generator, resamples: int = 2000
    ) -> Scores:
        """Strict entity precision, recall, F1, and the share of right tags, with 95 % intervals."""
        if self.strategy in ("none", "simple"):
            raise OptionError(
                f"the strategy {self.strategy} answers for pieces; gold is for words: first, average, max"
            )
        right = [gold if isinstance(gold, tuple) else () for gold in golds]
        found = [prediction.tags or ("O",) * len(gold) for prediction, gold in zip(predictions, right, strict=True)]
        return tagging(right, found, rng=rng, resamples=resamples)

    def written(self, example: Example) -> str:
        """The entities with their types."""
        tags = example.gold if isinstance(example.gold, tuple) else ()
        return _said(self._entities(example.texts[0], words_of(example), tags, np.zeros(len(tags))))

    def right(self, prediction: Tagged, gold: Gold) -> bool:
        """Whether every word has the right tag."""
        return prediction.tags == gold

    def _word(self, logs: np.ndarray) -> np.ndarray:
        """(K, L) log-probabilities of the pieces of one word -> (L,)."""
        if self.strategy == "average":
            return np.log(np.maximum(np.exp(logs).mean(0), 1e-300))
        return logs[logs.max(-1).argmax()] if self.strategy == "max" else logs[0]

    def _transitions(self) -> np.ndarray:
        """(L + 1, L + 1) whether a tag may follow another; the last row is the beginning, the last column the end."""
        tags = [*self.labels, "O"]
        return np.array([[may_follow(before, after, self.scheme) for after in tags] for before in tags])

    def _entities(
        self, text: str, places: Sequence[tuple[int, ...]], tags: Sequence[str], scores: np.ndarray
    ) -> Iterator[Entity]:
        begun: list[int] = []
        for number, tag in enumerate([*tags, "O"]):
            prefix, kind = split_tag(tag)
            before = split_tag(tags[number - 1]) if number else ("O", "")
            goes_on = begun and kind == before[1] and prefix not in ("B", "S", "O") and before[0] not in ("E", "S")
            if begun and not goes_on:
                start, end = places[begun[0]][0], places[begun[-1]][1]
                yield Entity(before[1], float(np.mean(scores[begun])), text[start:end], start, end)
                begun = []
            if number < len(tags) and tag not in self.ignored and kind not in self.ignored:
                begun.append(number)


def _said(entities: Iterable[Entity]) -> str:
    return ", ".join(f"{one.word} ({one.entity_group})" for one in entities) or "no entity"


def viterbi(emissions: np.ndarray, legal: np.ndarray) -> np.ndarray:
    """The likeliest legal path: (W, L) log-probabilities, (L + 1, L + 1) legal transitions -> (W,) tags.

    Viterbi (1967) with all legal transitions alike. Words whose best tags follow each other legally keep them.
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


def words_of(example: Example) -> Places:
    """Where the words of an example are: as its file gave them, else by `split_words`."""
    if example.given is None:
        return split_words(example.texts[0])
    given: Places = example.given[0]
    return given


def _runs(owner: np.ndarray) -> Iterator[tuple[int, slice]]:
    """Each word, and its pieces among those read."""
    edges = np.flatnonzero(np.diff(owner, prepend=-1, append=-1)).tolist()
    for start, stop in pairwise(edges):
        yield int(owner[start]), slice(start, stop)


def _of_words(sentence: Sentence) -> tuple[Example, Sentence]:
    """Words as a text with a space between, and where they are in it."""
    ends = np.cumsum([len(word) + 1 for word in sentence.words]).tolist()
    places = tuple((end - 1 - len(word), end - 1) for word, end in zip(sentence.words, ends, strict=True))
    where = sentence.where[0] if sentence.where else "input"
    return Example((" ".join(sentence.words),), None, where, (places,)), sentence


def _begins_as_columns(source: Source) -> bool:
    """Whether a file begins with CoNLL-2003's sign of a document, so that its lines are no texts."""
    return isinstance(source, str | Path) and next(numbered_lines(str(source)), (1, ""))[1].startswith("-DOCSTART-")


def _numbers(columns: Columns) -> dict[str, int | None]:
    wanted = {"word_column": columns.text_column, "tag_column": columns.label_column}
    for name in wanted.values():
        if name is not None and not name.isdecimal():
            raise OptionError(f"found the column {name!r}; columns of a file of words are numbered from 0")
    return {key: None if name is None else int(name) for key, name in wanted.items()}


def _sentence(row: Row, columns: Columns, *, gold: bool) -> tuple[Example, Sentence | None]:
    """A row with words and tags, or with a text and spans of its entities."""
    words = row.values.get(columns.text_column or "words", row.values.get("tokens"))
    tags = row.values.get(columns.label_column or "tags", row.values.get("ner_tags"))
    if isinstance(words, list):
        if gold and (not isinstance(tags, list) or len(tags) != len(words)):
            raise DataError(f"{row.where}: {len(words)} words need a list of as many tags; found {tags!r}")
        names = tuple(named(row, tag, columns) for tag in tags) if isinstance(tags, list) else ("",) * len(words)
        return _of_words(Sentence(tuple(map(str, words)), names, (row.where,) * len(words)))
    text = row.values.get(columns.text_column or "text")
    if not isinstance(text, str):
        raise DataError(f"{row.where}: found {sorted(row.values)}, expected words and tags, or text and spans")
    if not gold:
        return Example((text,), None, row.where), None
    spans = row.values.get(columns.label_column or "spans", row.values.get("entities"))
    if not isinstance(spans, list):
        raise DataError(f'{row.where}: no list "spans" of {{"start", "end", "label"}} beside the text')
    return _with_spans(row.where, text, spans)


def _with_spans(where: str, text: str, spans: Sequence[Any]) -> tuple[Example, Sentence]:
    """A text whose words are cut where entities begin and end, so that each of these is some whole words."""
    found: list[tuple[int, int, str]] = []
    for span in spans:
        try:
            found.append((int(span["start"]), int(span["end"]), str(span["label"])))
        except (KeyError, TypeError, ValueError):
            raise DataError(f'{where}: the span {span!r} is not {{"start", "end", "label"}}') from None
    found.sort()
    edges = [edge for start, end, _ in found for edge in (start, end)]
    if edges != sorted(edges) or any(not 0 <= start < end <= len(text) for start, end, _ in found):
        raise DataError(f"{where}: spans overlap, are empty or go beyond the {len(text)} characters of the text")
    places, tags = [], []
    for start, end in zip([0, *edges], [*edges, len(text)], strict=True):
        kind = next((kind for first, last, kind in found if first <= start < last), None)
        for number, (begin, stop) in enumerate(split_words(text[start:end])):
            places.append((start + begin, start + stop))
            tags.append("O" if kind is None else f"{'I' if number else 'B'}-{kind}")
    sentence = Sentence(tuple(text[a:b] for a, b in places), tuple(tags), (where,) * len(tags))
    return Example((text,), None, where, (tuple(places),)), sentence
