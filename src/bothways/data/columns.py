"""Read files with a word and its tag per line, as in CoNLL-2003, and detect the tag scheme."""

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

HEAD = 1000  # number of lines to infer the columns from
_PREFIXED = re.compile(r"([BIESLUM])-(.+)", re.DOTALL)
_BARE = re.compile(r"(?![BIESLUM]-)[^\W\d_][\w./-]*")
# Other spellings of B-PER: b-PER and B_PER, PER-B and PER_B.
_SPELLINGS = (
    _PREFIXED,
    re.compile(r"(?P<prefix>[BIESLUMbieslum])[-_](?P<kind>.+)"),
    re.compile(r"(?P<kind>.+)[-_](?P<prefix>[BIESLUM])"),
)
_NUMBER = re.compile(r"\d+(?:[-.]\d+)?")  # a word number, CoNLL-U's "3-4" (a contraction) and "5.1" (an empty node)
# Chunk types, which are not entities.
_PHRASES = {"NP", "VP", "PP", "ADJP", "ADVP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP", "AP", "NC", "VC", "PC"}
_COMMENT = re.compile(r"#(?:\s|$|(?:begin|end) document\b)")


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words, their raw tags ("" if there are none), and the "file:line" of each word.

    `error` is the reason why it cannot be read; `note` reports what was inferred about the file's columns.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]
    where: tuple[str, ...]
    number: int = 1
    error: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """The number of columns of a file, and the columns of words and tags (None: no tags).

    `mixed`: spaces separate columns even in lines with tabs.
    """

    columns: int
    word: int
    tag: int | None
    tabs: bool = False
    mixed: bool = False

    @classmethod
    def of(cls, lines: Sequence[str], word: int | None = None, tag: int | None = None) -> Layout:
        """Infer the layout from the first lines of a file; `word` and `tag` override the columns.

        Words are in the first column that does not contain tags, word numbers, or one value per sentence.
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
        """Whether a column precedes the words, such as a word number or a document name."""
        return self.word > 0


def is_columns(name: str) -> bool:
    """Whether a text file contains words with tags: one column of its first lines contains only tags."""
    if not Path(name).is_file():  # a pipe cannot be read again
        return False
    lines = [line.text for line in islice(checked_lines(name), HEAD) if line.error is None]
    if any("-DOCSTART-" in line for line in lines[:3]):
        return True
    rows = [cells for block in _blocks(lines) for cells in block]
    filled = sum(line[0] != "#" and not line.isspace() for line in lines)
    if not rows or len(rows[0]) < 2 or 10 * len(rows) < 9 * filled:  # invalid lines, if few, are errors later
        return False
    for column in zip(*rows, strict=True):
        marked = {cell for cell in column if is_marked(cell)}
        if marked and all(cell in marked or _is_tag(cell) for cell in column):
            # Texts may end in "vitamin B-12" (types start with a letter) or in "blood group O".
            return any(_BARE.match(cell[2:]) for cell in marked) or (len(rows) > 1 and "O" in marked)
    # CoNLL-U without tags: ten columns, word numbers in the first.
    return len(rows[0]) == 10 and all(_NUMBER.fullmatch(cells[0]) for cells in rows)


def begins_columns(line: str) -> bool:
    """Whether a single line looks like a word with a tag: "Ann B-PER", but not "vitamin B-12"."""
    cells = _cells(without_end(line))
    return "-DOCSTART-" in line or (
        len(cells) > 1 and cells[-1] != "O" and is_marked(cells[-1]) and bool(_BARE.match(cells[-1][2:]))
    )


def read_sentences(
    name: str, *, word_column: int | None = None, tag_column: int | None = None, strict: bool = True
) -> Iterator[Sentence]:
    """Read sentences from a file with a word per line, its tag in the last column, and empty lines between sentences.

    Lines with a tab are split at tabs only (unless the file mixes both), others at ASCII spaces. A file with one
    column has no tags. Columns count from 0. `-DOCSTART-` lines, comments (`# key = value`, or `# ...` among rows with
    tabs), and ranges and empty nodes of CoNLL-U are skipped.

    With `strict`, raises `DataError` with file:line if the number of columns changes or a tag is invalid. Without it,
    tags are not read, and a sentence with an invalid line has an `error`.
    """
    lines = checked_lines(name)
    head = list(islice(lines, HEAD))  # kept, because a pipe cannot be read again
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
    """Rewrite other spellings of tags (PER-B, B_PER, b-PER) to B-PER; return the sentences and a note.

    If a file has no B- or I- tag, tags such as E-MAIL and S-BAHN are types without a prefix. Prefixes without a type
    (B, I) get the type ENTITY.
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
    """Detect the scheme of all tags; raises `DataError` with the locations of invalid tags."""
    first: dict[str, str] = {}  # location of the first tag by prefix; "" for a bare type
    wrong: dict[str, list[str]] = {}  # locations of invalid tags
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
    begun_inside: list[str] = []  # entities that start with I-
    begun_apart = False  # an entity starts with B- although IOB1 would use I-
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
    """Format a message for the first of several locations that lists the others.

    >>> _placed(["a:4", "a:9", "a:12"], "an I- tag begins an entity")
    'a:4: an I- tag begins an entity (3 lines: a:4, a:9, a:12)'
    """
    some = ", ".join(places[:10]) + (", ..." if len(places) > 10 else "")
    return f"{places[0]}: {message}" + (f" ({len(places):,} lines: {some})" if len(places) > 1 else "")


def _clean(tag: str) -> str:
    """Normalize a tag: without surrounding space and invisible characters, in NFC."""
    return tag.strip() if tag.isascii() else clean_label(tag)


def _cells(text: str, *, mixed: bool = False) -> list[str]:
    """Split a line at tabs if it has one, else at ASCII spaces; if `mixed`, at both."""
    if not text.strip():
        return []
    if "\t" in text and not mixed:
        return [cell.strip(" ") for cell in text.split("\t")]
    return re.split("[ \t]+", text.strip(" \t"))


def _is_mixed(lines: Sequence[str]) -> bool:
    """Whether lines have a constant number of columns only if both tabs and spaces separate columns."""
    texts = [text for text in map(without_end, lines) if not _COMMENT.match(text) and "-DOCSTART-" not in text]
    texts = [text for text in texts if text.strip()]
    widths = {len(_cells(text, mixed=True)) for text in texts}
    by_tabs = {len(_cells(text)) for text in texts}
    return len(texts) > 2 and len(widths) == 1 and by_tabs != widths and max(by_tabs) <= max(widths)


def _blocks(lines: Sequence[str]) -> list[list[list[str]]]:
    """Return the rows of each sentence, without comments and without rows of an uncommon width."""
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
    """Whether a column contains word numbers, or one value per sentence, such as a sentence or document name."""
    long = [block[number] for block in blocks if len(block[number]) > 1]
    if long and all(len(set(column)) == 1 for column in long):
        return True
    return all(_NUMBER.fullmatch(cell) for block in blocks for cell in block[number])


def is_marked(cell: str) -> bool:
    """Whether a cell is unambiguously a tag: O, or a type with a prefix or suffix."""
    return cell == "O" or any(form.fullmatch(cell) for form in _SPELLINGS)


def _is_comment(text: str, cells: Sequence[str], layout: Layout, *, begins: bool) -> bool:
    """Whether a line is a comment: it has no tab although rows do, or it precedes a sentence and is no row of it."""
    if not _COMMENT.match(text):
        return False
    if "\t" not in text and (layout.tabs or (begins and " = " in text[2:])):
        return True
    return begins and (len(cells) != layout.columns or text.startswith(("#begin", "#end")))


def _problem(cells: Sequence[str], layout: Layout, *, named: bool) -> str | None:
    """Return an error message for an invalid line, or None; a `named` tag column may contain any type."""
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
    # A bare type in lower case looks like any word, so it needs a named column.
    return is_marked(tag) or bool(_BARE.fullmatch(tag) and tag.isupper())


def _check_layers(name: str, head: Sequence[Line], layout: Layout) -> None:
    """Raise `DataError` if the last column and another one contain entity tags, which is ambiguous."""
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
    """Suggest options for a line whose last column is not a tag: use its last cell that is a tag."""
    marked = [number for number, cell in enumerate(cells) if cell == "O" or _PREFIXED.fullmatch(cell)]
    return f"--text-column {word} --label-column {marked[-1] if marked else len(cells) - 1}"


def _check_bioes(sentences: Sequence[Sentence]) -> None:
    """Raise `DataError` if a BIOES entity has no end, or continues without a start."""
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
