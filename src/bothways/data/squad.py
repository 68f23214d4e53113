"""Read SQuAD 1.1 and 2.0 files (Rajpurkar et al. 2016, 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bothways.data.tables import Row, parse_json
from bothways.errors import DataError
from bothways.text.lines import STDIN, numbered_lines, opened, shown, suffix_of


def is_squad(name: str) -> bool:
    """Whether a file is in SQuAD format: .json that starts with an object with "data" or "version"."""
    if name == STDIN or suffix_of(name) != ".json":
        return False
    with opened(name) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t")
    return start.startswith(b"{") and (b'"data"' in start or b'"version"' in start)


def read_squad(name: str, *, strict: bool = True) -> Iterator[Row]:
    """Read questions as rows: id, title, question, context, answers ([] if is_impossible), start_certain.

    Raises `DataError` if the file is not in SQuAD format. Without `strict`, a question or context that is not a text
    becomes an error of its row.
    """
    label = shown(name)
    tree = parse_json("".join(text for _, text in numbered_lines(name)), label, 1)
    count = 0
    for article in _list(tree, "data", label):
        for paragraph in _list(article, "paragraphs", label):
            for question in _list(paragraph, "qas", label):
                count += 1
                own = question if isinstance(question, dict) else {}
                where = f"{label}: question {own.get('id', count)}"
                values = {
                    "id": own.get("id"),
                    "title": article.get("title", ""),
                    "question": own.get("question"),
                    "context": paragraph.get("context"),
                    "answers": [] if own.get("is_impossible") else own.get("answers"),
                    "start_certain": bool(own.get("start_certain", True)),
                }
                wrong = next((key for key in ("question", "context") if not isinstance(values[key], str)), None)
                error = None if wrong is None else f"its {wrong} is {values[wrong]!r}, expected a text"
                if strict and error is not None:
                    raise DataError(f"{where}: {error}")
                yield Row(values, where, count, error)
    if not count:
        raise DataError(f"{label}: no questions; expected the layout data > paragraphs > qas")


def _list(holder: Any, key: str, where: str) -> list[Any]:
    found = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{where}: found no list {key!r}, expected the SQuAD layout (data > paragraphs > qas)")
    return found
