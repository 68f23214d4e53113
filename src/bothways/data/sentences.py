"""Read examples for tagging: words with tags, texts with spans, and unlabeled texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.columns import (
    Sentence,
    begins_columns,
    detect_scheme,
    is_columns,
    is_marked,
    normalized,
    read_sentences,
)
from bothways.data.examples import Example, Words
from bothways.data.labels import label_name
from bothways.data.memory import is_missing
from bothways.data.schemes import entity_spans, to_bio
from bothways.data.spans import Span, cut_words, plain, read_spans, tag_words
from bothways.data.tables import RECORDS, TABLES, Columns, Row, Source, find_optional_column, rows_of
from bothways.data.words import Places, split_words
from bothways.errors import DataError, OptionError
from bothways.text.lines import STDIN, suffix_of

_SENTENCES = ("sentence #", "sentence_id", "sentence id", "sentence_idx", "sentence", "sent_id")
_WORDS = ("words", "tokens", "word", "token")
_TEXTS = ("text", "sentence", "content")
_TAGS = ("tags", "ner_tags", "tag", "ner_tag", "ner", "labels", "label")
SPAN_COLUMNS = ("spans", "entities", "label", "labels", *_TAGS)


_ONE_WORD = "write a column 'sentence_id', a file of words and tags (.conll), or lists in JSON lines"


def read_tagged(source: Source, columns: Columns) -> list[Example]:
    """Read sentences from a column file (word first, tag last), or from rows with words and tags or text and spans."""
    if _in_columns(source, columns, labeled=True):
        found = [(of_words(one), one) for one in read_sentences(str(source), **_numbers(columns))]
    else:
        found = [_sentence(*one, columns) for one in _sentence_rows(rows_of(source, columns, strict=True))]
        if len(found) > 1 and all(_is_one_word(example, columns) for example, _ in found):
            raise DataError(f"{found[0][0].where}: every row holds one word; {_ONE_WORD}")
    sentences, renamed = normalized([sentence for _, sentence in found])
    scheme = detect_scheme(sentences)
    examples = []
    for (example, _), sentence in zip(found, sentences, strict=True):
        notes = tuple(filter(None, (sentence.note, renamed)))
        details = replace(_words(example), scheme=scheme, notes=notes)
        examples.append(replace(example, reference=to_bio(sentence.tags), details=details))
    return examples


def read_untagged(source: Source, columns: Columns) -> Iterator[Example]:
    """Iterate over sentences to predict: those of a column file, or the texts or word lists of rows.

    A sentence that cannot be read has an `error`.
    """
    if _in_columns(source, columns, labeled=False):
        for one in read_sentences(str(source), **_numbers(columns), strict=False):
            yield of_words(one)
        return
    rows = rows_of(source, columns, strict=False)
    if isinstance(source, str | Path) and str(source) == STDIN and columns.format is None:
        rows = _not_columns(rows)
    for row, group in _sentence_rows(rows):
        reason = next((one.error for one in (row, *group) if one.error is not None), None)
        try:
            example = Example(("",), None, row.where) if reason else _text_of(row, group, columns)
        except DataError as problem:
            example, reason = Example(("",), None, row.where), str(problem).removeprefix(f"{row.where}: ")
        yield replace(example, row=row.values or None, number=row.number, error=reason)


def _not_columns(rows: Iterator[Row]) -> Iterator[Row]:
    """Yield the rows of standard input; raises `DataError` if the first line looks like a word with a tag."""
    for number, row in enumerate(rows):
        text = str(row.values.get("text", ""))
        if number == 0 and begins_columns(text):
            raise DataError(
                f"{row.where}: found {text!r}, which looks like a word with its tag; name the format "
                "(--input-format conll, or --input-format txt for one text per line)"
            )
        yield row


def words_of(example: Example) -> Places:
    """Return the offsets of the words that the reference tags: the file's words, else those of `split_words`."""
    return example.details.places if isinstance(example.details, Words) else split_words(example.texts[0])


def reference_spans(example: Example) -> list[Span]:
    """Return the reference entities as character spans."""
    if not isinstance(example.reference, tuple):
        return []
    places = words_of(example)
    return [(places[first][0], places[last - 1][1], kind) for kind, first, last in entity_spans(example.reference)]


def _words(example: Example) -> Words:
    assert isinstance(example.details, Words)
    return example.details


def of_words(sentence: Sentence) -> Example:
    """Convert a sentence to an example: words joined by spaces, with their offsets."""
    ends = np.cumsum([len(word) + 1 for word in sentence.words]).tolist()
    places = tuple((end - 1 - len(word), end - 1) for word, end in zip(sentence.words, ends, strict=True))
    where = sentence.where[0] if sentence.where else "input"
    row = {"words": list(sentence.words)}
    text = " ".join(sentence.words)
    return Example((text,), None, where, Words(places), row, sentence.number, sentence.error)


def _in_columns(source: Source, columns: Columns, *, labeled: bool) -> bool:
    """Whether a source is a column file, by its format or suffix; for .txt, .tsv and .tab also by its content."""
    if not isinstance(source, str | Path):
        return False
    if columns.format is not None or str(source) == STDIN:
        return columns.format == "conll"
    kind = suffix_of(str(source))
    if kind in (".txt", ".tsv", ".tab") and columns.header:
        numbered = (columns.text_column or "").isdecimal() or (columns.label_column or "").isdecimal()
        return numbered or is_columns(str(source)) or (labeled and kind == ".txt")
    return kind not in {*RECORDS, *TABLES}


def _numbers(columns: Columns) -> dict[str, Any]:
    wanted = {"word_column": columns.text_column, "tag_column": columns.label_column}
    for name in wanted.values():
        if name is not None and not name.isdecimal():
            raise OptionError(f"found the column {name!r}; columns of a file of words are numbered from 0")
    return {key: None if name is None else int(name) for key, name in wanted.items()}


def _sentence_rows(rows: Iterable[Row]) -> Iterator[tuple[Row, list[Row]]]:
    """Group rows with one word and a sentence number each by sentence; yield (row, []) for other rows.

    The number may be in the first row of a sentence only (Kaggle's "Sentence #").
    """
    group: list[Row] = []
    before = ""
    for row in rows:
        (numbered, number), (name, word) = _cell(row, None, _SENTENCES), _cell(row, None, _WORDS)
        is_word = bool(numbered and name) and not isinstance(word, list)
        if not (is_word or (group and row.error is not None)):
            if group:
                yield group[0], group
            group = []
            yield row, []
            continue
        begun = "" if is_missing(number) else str(number).strip()
        if group and begun and begun != before:
            yield group[0], group
            group = []
        before = begun or before
        group.append(row)
    if group:
        yield group[0], group


def _cell(row: Row, wanted: str | None, usual: Sequence[str]) -> tuple[str, Any]:
    """Return name and value of the column `wanted`, else of the first usual one; ("", None) if there is none."""
    name = find_optional_column(list(row.values), wanted=wanted, usual=usual, purpose="column", where=row.where)
    return ("", None) if name is None else (name, plain(row.values[name]))


def _text_of(row: Row, group: Sequence[Row], columns: Columns) -> Example:
    """Convert the text or words of a row, or of the rows of a sentence, to an example without a reference."""
    name = ""
    words: Any = None
    if group:
        words = [_cell(one, columns.text_column, _WORDS)[1] for one in group]
    else:
        name, words = _cell(row, columns.text_column, (*_WORDS, *_TEXTS))
    if isinstance(words, str):
        singular = name.strip().casefold() in ("word", "token")
        if singular or (words.startswith("[") and name.strip().casefold() in _WORDS):
            found = "one word per row, without a sentence number" if singular else "a list written as text"
            raise DataError(f"{row.where}: the column {name!r} holds {found} ({words!r}); {_ONE_WORD}")
        if _tags_of(row, columns, words) is None:
            return Example((words,), None, row.where, row=row.values)
        words = re.split(" +", words.strip(" "))
    if not isinstance(words, list):
        raise DataError(
            f"{row.where}: found the columns {', '.join(map(repr, row.values)) or '(none)'}, expected words and tags, "
            "or text and spans (of Label Studio export JSON-MIN)"
        )
    missing = next((word for word in words if is_missing(word) or not isinstance(word, str | int | float)), "")
    if missing != "":
        raise DataError(f"{row.where}: found {missing!r} among the words, expected texts")
    example = of_words(Sentence(tuple(map(str, words)), (), (row.where,)))
    return replace(example, row=row.values, number=None)


def _is_one_word(example: Example, columns: Columns) -> bool:
    """Whether the row of an example contains a single word as a string."""
    word = _cell(Row(dict(example.row or {}), example.where), columns.text_column, _WORDS)[1]
    return isinstance(word, str) and len(words_of(example)) == 1


def _tags_of(row: Row, columns: Columns, text: str) -> list[str] | None:
    """Return the space-separated tags of a row if there is one for each space-separated word of `text`, else None."""
    wanted = columns.label_column if columns.label_column in row.values else None
    tags = _cell(row, wanted, _TAGS)[1]
    found = re.split(" +", tags.strip(" ")) if isinstance(tags, str) else []
    return (
        found if found and all(map(is_marked, found)) and len(found) == len(re.split(" +", text.strip(" "))) else None
    )


def _sentence(row: Row, group: Sequence[Row], columns: Columns) -> tuple[Example, Sentence]:
    """Convert a row with words and tags or text and spans, or the rows of a sentence, to an example and its tags."""
    example = _text_of(row, group, columns)
    text = example.texts[0]
    if group:
        tags: Any = [_cell(one, columns.label_column, _TAGS)[1] for one in group]
    else:
        tags = _cell(row, columns.label_column, SPAN_COLUMNS if example.details is None else _TAGS)[1]
        tags = re.split(" +", tags.strip(" ")) if isinstance(tags, str) and example.details is not None else tags
    if example.details is None:
        if not isinstance(tags, list):
            raise DataError(
                f'{row.where}: no list "spans" of {{"start", "end", "label"}} beside the text, found the columns '
                f"{', '.join(sorted(row.values))}"
            )
        spans = read_spans(tags, text, row.where)
        places = cut_words(split_words(text), spans)
        example = replace(example, details=Words(places, cut=True))
        names = tag_words(places, spans, len(text))
    else:
        places = _words(example).places
        if not isinstance(tags, list) or len(tags) != len(places):
            raise DataError(f"{row.where}: expected {len(places)} tags, one for each word; found {tags!r}")
        if any(is_missing(tag) for tag in tags):
            raise DataError(f"{row.where}: found an empty tag among {tags!r}; write O outside entities")
        names = tuple(label_name(row.where, tag, columns) for tag in tags)
    where = tuple(one.where for one in group) or (row.where,) * len(places)
    return example, Sentence(tuple(text[start:end] for start, end in places), names, where)
