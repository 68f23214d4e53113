"""Questions in the layout of SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bothways.errors import DataError
from bothways.text.files import UNPACK, Row, numbered_lines, opened, parse_json


def is_squad(name: str) -> bool:
    """Whether a file has SQuAD's layout: .json that begins with an object of "data" or "version"."""
    path = Path(name)
    if (path.with_suffix("") if path.suffix.lower() in UNPACK else path).suffix.lower() != ".json":
        return False
    with opened(name) as file:
        start = file.read(4096).lstrip(b"\xef\xbb\xbf \r\n\t")
    return start.startswith(b"{") and (b'"data"' in start or b'"version"' in start)


def read_squad(name: str) -> Iterator[Row]:
    """Its questions as rows: id, title, question, context, answers (a list; [] if there is none), start_certain.

    Raises `DataError` where the layout is another.
    """
    tree = parse_json("".join(text for _, text in numbered_lines(name)), name, 1)
    count = 0
    for article in _list(tree, "data", name):
        for paragraph in _list(article, "paragraphs", name):
            for question in _list(paragraph, "qas", name):
                where = f"{name}: question {question.get('id', count + 1) if isinstance(question, dict) else count + 1}"
                count += 1
                yield Row(
                    {
                        "id": question.get("id") if isinstance(question, dict) else None,
                        "title": article.get("title", ""),
                        "question": _text(question, "question", where),
                        "context": _text(paragraph, "context", where),
                        "answers": [] if question.get("is_impossible") else question.get("answers"),
                        "start_certain": bool(question.get("start_certain", True)),
                    },
                    where,
                )
    if not count:
        raise DataError(f"{name}: no questions; expected data, in it paragraphs, in them qas")


def _list(holder: Any, key: str, where: str) -> list[Any]:
    found = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(found, list):
        raise DataError(f"{where}: found no list {key!r} where SQuAD's layout has one (data, paragraphs, qas)")
    return found


def _text(holder: Any, key: str, where: str) -> str:
    found = holder.get(key) if isinstance(holder, dict) else None
    if not isinstance(found, str):
        raise DataError(f"{where}: its {key} is {found!r}, expected a text")
    return found
