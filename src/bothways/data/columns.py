"""Reads files with a word and its tag per line, as in CoNLL-2003, and detects the scheme of the tags."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, groupby, islice
from pathlib import Path

from bothways.data.schemes import Scheme, may_follow, split_tag
from bothways.data.tables import clean_label
from bothways.errors import DataError
from bothways.text.lines import Line, checked_lines, shown, without_end

HEAD = 1000  # lines from which the columns are inferred
_PREFIXED = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
_BARE = re.compile(r"(?![BIESLUM]-)[^\W\d_][\w./-]*")
# Other spellings of B-PER: b-PER and B_PER, PER-B and PER_B.
_SPELLINGS = (
    _PREFIXED,
    re.compile(r"(?P<prefix>[BIESLUMbieslum])[-_](?P<kind>.+)"),
    re.compile(r"(?P<kind>.+)[-_](?P<prefix>[BIESLUM])"),
)
_NUMBER = re.compile(r"\d+(?:[-.]\d+)?")  # a word number, CoNLL-U's "3-4" (a contraction) and "5.1" (an empty node)
# Types of chunks, which are not entities.
_PHRASES = {"NP", "VP", "PP", "ADJP", "ADVP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP", "AP", "NC", "VC", "PC"}
_COMMENT = re.compile(r"#(?:\s|$|(?:begin|end) document\b)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words, their tags as written ("" where there are none), "file:line" of each; `error` is why it cannot be read.

    `note` says what was inferred about the columns of its file.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: tuple[str, ...]
    number: int = 1
    error: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """How many columns a file has, and which hold the words and the tags (None: none does).

    `mixed`: spaces divide columns also in lines with a tab.
    """

    columns: int
    word: int
    tag: int | None
    tabs: bool = False
    mixed: bool = False

    @classmethod
    def of(cls, lines: Sequence[str], word: int | None = None, tag: int | None = None) -> Layout:
        """The layout of the first lines of a file, with the columns that the user named.

        Words are in the first column, unless it holds tags, numbers, or one value for each whole sentence.
        """
        blocks = [list(zip(*block, strict=True)) for block in _blocks(lines)]  # columns
        width = len(blocks[0]) if blocks else 0
        tag = width - 1 if tag is None and width > 1 else tag
        if word is None:
            free = [one for one in range(width) if not all(is_marked(cell) for block in blocks for cell in block[one])]
            word = next((one for one in free if not _is_name(blocks, one)), 0)
        first = next((line for line in lines if line.strip() and not line.startswith(("#", "-DOCSTART-"))), "")
        return cls(width, word, tag, "\t" in first, _is_mixed(lines))

    @property
    def numbered(self) -> bool:
        """Whether something is before the words: a number of the word, the name of a document."""
        return self.word > 0


def is_columns(name: str) -> bool:
    """Whether the lines of a text file are words with tags: a tag in the last column of each of its first lines."""
    if not Path(name).is_file():  # a pipe cannot be read again
        return False
    lines = [line.text for line in islice(checked_lines(name), HEAD) if line.error is None]
    if any("-DOCSTART-" in line for line in lines[:3]):
        return True
    rows = [cells for block in _blocks(lines) for cells in block]
    filled = sum(line[0] != "#" and not line.isspace() for line in lines)
    if not rows or len(rows[0]) < 2 or 10 * len(rows) < 9 * filled:  # a few broken lines are errors, not texts
        return False
    for column in zip(*rows, strict=True):
        marked = {cell for cell in column if is_marked(cell)}
        if marked and all(cell in marked or _is_tag(cell) for cell in column):
            # Texts may end in "vitamin B-12" (but a type begins with a letter) or in "blood group O".
            return any(_BARE.match(cell[2:]) for cell in marked) or (len(rows) > 1 and "O" in marked)
    # CoNLL-U without tags: ten columns, the first counts the words.
    return len(rows[0]) == 10 and all(_NUMBER.fullmatch(cells[0]) for cells in rows)


def begins_columns(line: str) -> bool:
    """Whether a line alone looks like a word with a tag: "Ann B-PER", not "vitamin B-12"."""
    cells = _cells(without_end(line))
    return "-DOCSTART-" in line or (
        len(cells) > 1 and cells[-1] != "O" and is_marked(cells[-1]) and bool(_BARE.match(cells[-1][2:]))
    )


def read_sentences(
    name: str, *, word_column: int | None = None, tag_column: int | None = None, strict: bool = True
) -> Iterator[Sentence]:
    """The sentences of a file with a word a line, its tag in the last column, empty lines between sentences.

    Lines with a tab are cut at tabs alone, others at ASCII spaces. A file of one column has no tags. Columns count
    from 0. `-DOCSTART-` lines, comments (`# key = value`, or `# ...` among rows with tabs) and the ranges and empty
    nodes of CoNLL-U are skipped.

    `strict`: raises `DataError` with file:line where the columns change, or a tag is not valid. Otherwise tags are not
    read, and a sentence with another number of columns has an `error`.
    """
    lines = checked_lines(name)
    head = list(islice(lines, HEAD))  # kept: a pipe cannot be read again
    layout = Layout.of([line.text for line in head], word_column, tag_column)
    if not strict:
        layout = replace(layout, tag=None)
    elif tag_column is None:
        _check_layers(shown(name), head, layout)
    note = "" if word_column is not None or not layout.numbered else f"the words are read from column {layout.word}"
    rows: list[tuple[str, str, str, int]] = []
    error: str | None = None
    found = False
    for line, text, damage in chain(head, lines):
        text, where = without_end(text), f"{shown(name)}:{line}"
        cells = _cells(text, mixed=layout.mixed) if damage is None else [""]
        if _is_comment(text, cells, layout, begins=not rows):
            continue
        if not cells or "-DOCSTART-" in cells:
            if rows:
                yield _sentence(rows, error, note)
            rows, error, found = [], None, found or bool(rows)
            continue
        if layout.numbered and re.fullmatch(r"\d+[-.]\d+", cells[0]):
            continue
        problem = damage or _problem(cells, layout, named=tag_column is not None)
        if problem is not None and strict:
            raise DataError(f"{where}: {problem}")
        if problem is not None:
            error, cells = error or f"{where}: {problem}", [""] * layout.columns
        rows.append((cells[layout.word], "" if layout.tag is None else _clean(cells[layout.tag]), where, line))
    if rows:
        yield _sentence(rows, error, note)
    elif strict and not found:
        raise DataError(f"{shown(name)}: no words; expected a word and its tag on each line")


def normalized(sentences: Sequence[Sentence]) -> tuple[list[Sentence], str]:
    """The sentences with tags that are spelled another way (PER-B, B_PER, b-PER) as B-PER; and what was changed.

    In a file without any B- and I- tag, types such as E-MAIL and S-BAHN are not prefixes, but names. Prefixes without
    a type (B, I) get the type ENTITY.
    """
    tags = {_clean(tag) for one in sentences for tag in one.tags} - {"O"}
    renamed = {tag: f"{tag}-ENTITY" for tag in tags} if tags & {"B", "I"} and tags <= set("BIESLUM") else {}
    for form in () if renamed else _SPELLINGS:
        matches = {tag: match for tag in tags if (match := form.fullmatch(tag))}
        if tags and len(matches) == len(tags):
            if form is _PREFIXED:
                prefixes = {match[1] for match in matches.values()}
                if prefixes & {"B", "I"} or prefixes <= {"S", "U"}:
                    break
                continue
            prefixes = {match["prefix"].upper() for match in matches.values()}
            if "B" in prefixes or prefixes == {"I"}:
                renamed = {tag: f"{match['prefix'].upper()}-{match['kind']}" for tag, match in matches.items()}
                break
    else:
        begun = {match[1] for tag in tags if (match := _PREFIXED.fullmatch(tag))}
        if begun and not begun & {"B", "I"}:
            renamed = {tag: f"I-{tag}" for tag in tags if _PREFIXED.fullmatch(tag) or _BARE.fullmatch(tag)}
    found = [replace(one, tags=tuple(renamed.get(tag := _clean(raw), tag) for raw in one.tags)) for one in sentences]
    shown = next(iter(sorted(renamed)), "")
    return found, f"tags such as {shown} are read as {renamed[shown]}" if shown else ""


def detect_scheme(sentences: Sequence[Sentence]) -> Scheme:
    """The scheme that all tags are in; raises `DataError` with all tags that it does not allow."""
    first: dict[str, str] = {}  # the place of the first tag with each prefix, "" for a bare type
    wrong: dict[str, list[str]] = {}  # the places of invalid tags
    for one in sentences:
        for tag, where in zip(one.tags, one.where, strict=True):
            if tag == "O":
                continue
            match = _PREFIXED.fullmatch(tag)
            if (not match and not _BARE.fullmatch(tag)) or (match[2] if match else tag).casefold() == "o":
                wrong.setdefault(tag, []).append(where)
            first.setdefault(match[1] if match else "", where)
    for tag, places in wrong.items():
        expected = (
            "no tag: the file has no column of tags"
            if not tag
            else f"{tag!r}: an entity has a type other than O; write O outside entities"
            if re.split("[-_]", tag)[-1].casefold() == "o"
            else f"{tag!r}, expected a tag: O, or a type after B-, I-, E- or S-"
        )
        raise DataError(_placed(places, f"found {expected}"))
    bare = first.pop("", None)
    if bare and first:
        raise DataError(
            f"{bare}: a type without a prefix, while at {next(iter(first.values()))} one has a prefix; write B- and I- "
            "before every type, or before none"
        )
    if first.keys() & set("ESLUM"):
        _check_bioes(sentences)
        return "BIOES"
    if "B" not in first:
        return "IO" if bare or first else "BIO"
    begun_inside: list[str] = []  # entities that begin with I-
    begun_apart = False  # one begins with B- for no need
    for one in sentences:
        before = ""
        for tag, where in zip(one.tags, one.where, strict=True):
            prefix, kind = split_tag(tag)
            if prefix == "I" and kind != before:
                begun_inside.append(where)
            begun_apart = begun_apart or (prefix == "B" and kind != before)
            before = kind
    if begun_inside and begun_apart:
        message = (
            "an I- tag begins an entity, while elsewhere B- begins one; change it to B- (BIO), or use B- only between "
            "two entities of the same type (IOB1)"
        )
        raise DataError(_placed(begun_inside, message))
    return "IOB1" if begun_inside else "BIO"


def _placed(places: Sequence[str], message: str) -> str:
    """A message about the first of some places, that names the others.

    >>> _placed(["a:4", "a:9", "a:12"], "an I- tag begins an entity")
    'a:4: an I- tag begins an entity (3 lines: a:4, a:9, a:12)'
    """
    some = ", ".join(places[:10]) + (", ..." if len(places) > 10 else "")
    return f"{places[0]}: {message}" + (f" ({len(places):,} lines: {some})" if len(places) > 1 else "")


def _clean(tag: str) -> str:
    """A tag without space and invisible characters, its letters composed: two that look alike are one."""
    return tag.strip() if tag.isascii() else clean_label(tag)


def _cells(text: str, *, mixed: bool = False) -> list[str]:
    """The cells of a line: between tabs if it has one, else (or if `mixed`) between spaces; no other space divides."""
    if not text.strip():
        return []
    if "\t" in text and not mixed:
        return [cell.strip(" ") for cell in text.split("\t")]
    return re.split("[ \t]+", text.strip(" \t"))


def _is_mixed(lines: Sequence[str]) -> bool:
    """Whether lines have the same number of columns only if both tabs and spaces divide them."""
    texts = [text for text in map(without_end, lines) if not _COMMENT.match(text) and "-DOCSTART-" not in text]
    texts = [text for text in texts if text.strip()]
    widths = {len(_cells(text, mixed=True)) for text in texts}
    by_tabs = {len(_cells(text)) for text in texts}
    return len(texts) > 2 and len(widths) == 1 and by_tabs != widths and max(by_tabs) <= max(widths)


def _blocks(lines: Sequence[str]) -> list[list[list[str]]]:
    """The rows of each sentence, of the width that most have: without comments and broken lines."""
    plain = [without_end(line) for line in lines]
    if not all(_COMMENT.match(text) for text in plain if text.strip()):
        plain = [text for text in plain if not _COMMENT.match(text)]
    mixed = _is_mixed(lines)
    rows = [[] if "-DOCSTART-" in text else _cells(text, mixed=mixed) for text in plain]
    widths = Counter(map(len, filter(None, rows)))
    width = max(widths, key=lambda one: (widths[one], one), default=0)
    groups = groupby(rows, key=bool)
    blocks = [[cells for cells in group if len(cells) == width] for filled, group in groups if filled]
    return [block for block in blocks if block]


def _is_name(blocks: Sequence[Sequence[Sequence[str]]], number: int) -> bool:
    """Whether a column numbers the words, or names the sentence or document that they are in."""
    long = [block[number] for block in blocks if len(block[number]) > 1]
    if long and all(len(set(column)) == 1 for column in long):
        return True
    return all(_NUMBER.fullmatch(cell) for block in blocks for cell in block[number])


def is_marked(cell: str) -> bool:
    """Whether a cell is a tag for sure: O, or a type with a prefix or suffix."""
    return cell == "O" or any(form.fullmatch(cell) for form in _SPELLINGS)


def _is_comment(text: str, cells: Sequence[str], layout: Layout, *, begins: bool) -> bool:
    """Whether a line is a comment: among rows with tabs one without; above a sentence one of another width."""
    if not _COMMENT.match(text):
        return False
    if "\t" not in text and (layout.tabs or (begins and " = " in text[2:])):
        return True
    return begins and (len(cells) != layout.columns or text.startswith(("#begin", "#end")))


def _problem(cells: Sequence[str], layout: Layout, *, named: bool) -> str | None:
    """What is wrong with a line, if anything; `named`: the column of the tag is, so that it may hold any type."""
    if len(cells) != layout.columns:
        return (
            f"found {len(cells)} columns, expected {layout.columns} as in the lines above; write a word and its tag on "
            "each line, and an empty line between sentences"
        )
    for number in (layout.word, layout.tag):
        if number is not None and number >= layout.columns:
            return f"no column {number}; the line has {layout.columns} columns, counted from 0"
    if layout.tag is not None and not named and not _is_tag(cells[layout.tag]):
        return (
            f"the last column holds {cells[layout.tag]!r}, not a tag such as O or B-PER; name the columns of "
            f"the words and the tags, counted from 0, perhaps {_likely_columns(cells, layout.word)}"
        )
    return None


def _sentence(rows: Sequence[tuple[str, str, str, int]], error: str | None, note: str) -> Sentence:
    words, tags, where, lines = zip(*rows, strict=True)
    return Sentence(words, tags, where, lines[0], error, note)


def _is_tag(tag: str) -> bool:
    tag = _clean(tag)
    # A bare type in small letters looks like any word: it counts only where the column is named.
    return is_marked(tag) or bool(_BARE.fullmatch(tag) and tag.isupper())


def _check_layers(name: str, head: Sequence[Line], layout: Layout) -> None:
    """Raise `DataError` if a column before the last holds tags of entities too: which of the two is meant?"""
    rows = [cells for block in _blocks([line.text for line in head]) for cells in block]
    types: dict[int, set[str]] = {}
    for number, column in enumerate(zip(*rows, strict=True)):
        tags = {_clean(cell) for cell in column}
        if number != layout.word and all(tag == "O" or _PREFIXED.fullmatch(tag) for tag in tags):
            types[number] = {split_tag(tag)[1] for tag in tags} - {"", *_PHRASES}
    layers = [number for number, found in types.items() if found]
    if layout.columns - 1 in types and any(number != layout.columns - 1 for number in layers):
        line = next(line.number for line in head if len(_cells(without_end(line.text))) == layout.columns)
        named = " and ".join(f"{number} ({', '.join(sorted(found)) or 'only O'})" for number, found in types.items())
        raise DataError(
            f"{name}:{line}: the columns {named} contain entity tags; choose one of them, counted from 0, perhaps "
            f"--text-column {layout.word} --label-column {layers[0]}"
        )


def _likely_columns(cells: Sequence[str], word: int) -> str:
    """The options for a line whose last column is not a tag: its last cell that is one."""
    marked = [number for number, cell in enumerate(cells) if cell == "O" or _PREFIXED.fullmatch(cell)]
    return f"--text-column {word} --label-column {marked[-1] if marked else len(cells) - 1}"


def _check_bioes(sentences: Sequence[Sentence]) -> None:
    """Raise `DataError` if an entity of BIOES does not end as it should, or is continued without a beginning."""
    wrong: list[tuple[str, str]] = []
    for one in sentences:
        before = "O"
        for tag, where in zip((*one.tags, "O"), (*one.where, *one.where[-1:]), strict=False):
            if not may_follow(before, tag, "BIOES"):
                left = f"{before} is not followed by I- or E- of its type"
                wrong.append((where, left if split_tag(before)[0] in ("B", "I") else f"{tag} continues no entity"))
            before = tag
    if wrong:
        message = f"{wrong[0][1]}; in BIOES an entity is S-, or B- I- ... E-"
        raise DataError(_placed([where for where, _ in wrong], message))
