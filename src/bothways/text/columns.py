"""Files of words in columns, as CoNLL-2003 has them, and which scheme their tags are in."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from bothways.errors import DataError
from bothways.text.files import numbered_lines, without_end
from bothways.text.schemes import Scheme, split_tag

_PREFIXED = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
_BARE = re.compile(r"(?![BIESLUM]-)[^\W\d_][\w./-]*")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words, their tags as written ("" where there are none), and "file:line" of each."""

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: tuple[str, ...]


def read_sentences(name: str, *, word_column: int | None = None, tag_column: int | None = None) -> Iterator[Sentence]:
    """The sentences of a file with a word a line, its tag in the last column, empty lines between sentences.

    Lines with a tab are cut at tabs alone, others at spaces. A file of one column has no tags. Columns count
    from 0. `-DOCSTART-` lines and comments (`# key = value`, or `# ...` among rows with tabs) are skipped.

    Raises `DataError` with file:line where the columns change, or a tag is no tag.
    """
    rows: list[tuple[str, str, str]] = []
    columns, found = 0, False
    # "# x" among rows with tabs is a comment, among rows with spaces it may be the word "#".
    lines, head, tabs = numbered_lines(name), [], False
    for one in lines:
        head.append(one)
        if one[1].strip() and not one[1].startswith(("#", "-DOCSTART-")):
            tabs = "\t" in one[1]
            break
    for line, text in chain(head, lines):  # once: a pipe cannot be read again
        text, where = without_end(text), f"{name}:{line}"
        if not text.strip():
            cells: list[str] = []
        elif "\t" in text:
            cells = text.split("\t")
        elif (text == "#" or text.startswith("# ")) and (tabs or (not rows and " = " in text[2:])):
            continue
        else:
            cells = text.split()
        if not cells or "-DOCSTART-" in cells:
            if rows:
                yield _sentence(rows)
            rows, found = [], found or bool(rows)
            continue
        columns = columns or len(cells)
        if len(cells) != columns:
            raise DataError(
                f"{where}: found {len(cells)} columns, expected {columns} as above; a word and its tag stand on one "
                "line, with empty lines between sentences"
            )
        tag = "" if columns == 1 else _column(cells, -1 if tag_column is None else tag_column, where)
        if tag_column is None and columns > 1 and not _is_tag(tag):
            raise DataError(
                f"{where}: the last column holds {tag!r}, which is no tag such as O or B-PER; say which columns hold "
                f"the words and the tags, counted from 0, perhaps {_likely_columns(cells)}"
            )
        rows.append((_column(cells, word_column or 0, where), tag.strip(), where))
    if rows:
        yield _sentence(rows)
    elif not found:
        raise DataError(f"{name}: no words; expected a word and its tag a line")


def detect_scheme(sentences: Sequence[Sentence]) -> Scheme:
    """The scheme that all tags are in; raises `DataError` at the first tag that none of them allows."""
    first: dict[str, str] = {}  # the place of the first tag with each prefix, "" for a bare type
    for one in sentences:
        for tag, where in zip(one.tags, one.where, strict=True):
            if _split(tag, where)[0] != "O":
                match = _PREFIXED.fullmatch(tag)
                first.setdefault(match[1] if match else "", where)
    bare = first.pop("", None)
    if bare and first:
        raise DataError(
            f"{bare}: a type without a prefix, while at {next(iter(first.values()))} one has a prefix; write B- and I- "
            "before every type, or before none"
        )
    if first.keys() & set("ESLUM"):
        for one in sentences:
            _check_bioes(one)
        return "BIOES"
    if "B" not in first:
        return "IO" if bare or first else "BIO"
    begun_inside, begun_apart = "", False  # an entity that begins with I-, one that begins with B- for no need
    for one in sentences:
        before = ""
        for tag, where in zip(one.tags, one.where, strict=True):
            prefix, kind = _split(tag, where)
            if prefix == "I" and kind != before:
                begun_inside = begun_inside or where
            begun_apart = begun_apart or (prefix == "B" and kind != before)
            before = kind
    if begun_inside and begun_apart:
        raise DataError(
            f"{begun_inside}: an I- tag begins an entity, while elsewhere B- begins one; make it B- (BIO), or write "
            "B- only between two entities of one type (IOB1)"
        )
    return "IOB1" if begun_inside else "BIO"


def _sentence(rows: Sequence[tuple[str, str, str]]) -> Sentence:
    words, tags, where = zip(*rows, strict=True)
    return Sentence(words, tags, where)


def _column(cells: Sequence[str], number: int, where: str) -> str:
    if number >= len(cells):
        raise DataError(f"{where}: no column {number}, there are {len(cells)}, counted from 0")
    return cells[number]


def _is_tag(tag: str) -> bool:
    tag = tag.strip()
    # A bare type in small letters looks like any word: it counts only where the column is named.
    return bool(tag == "O" or _PREFIXED.fullmatch(tag) or (_BARE.fullmatch(tag) and tag.isupper()))


def _likely_columns(cells: Sequence[str]) -> str:
    """The options for a line whose last column is no tag: the last that is for sure, the first that is no number."""
    marked = [number for number, cell in enumerate(cells) if cell == "O" or _PREFIXED.fullmatch(cell)]
    label = marked[-1] if marked else len(cells) - 1
    word = next((number for number, cell in enumerate(cells) if number != label and not cell.isdecimal()), 0)
    return f"--text-column {word} --label-column {label}"


def _split(tag: str, where: str) -> tuple[str, str]:
    if tag != "O" and not _PREFIXED.fullmatch(tag) and not _BARE.fullmatch(tag):
        raise DataError(f"{where}: found {tag!r}, expected a tag: O, or a type behind B-, I-, E- or S-")
    return split_tag(tag)


def _check_bioes(one: Sentence) -> None:
    open_kind, last = "", ""
    for tag, where in zip((*one.tags, "O"), (*one.where, one.where[-1] if one.where else ""), strict=True):
        prefix, kind = _split(tag, where)
        inside = prefix in ("I", "E")
        if inside != bool(open_kind) or (inside and kind != open_kind):
            what = f"{last} is not followed by I- or E- of its type" if open_kind else f"{tag} continues no entity"
            raise DataError(f"{where}: {what}; in BIOES an entity is S-, or B- I- ... E-")
        open_kind, last = (kind, tag) if prefix in ("B", "I") else ("", tag)
