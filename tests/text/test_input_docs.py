"""Every example of input in the documentation is read as it says."""

import re
from pathlib import Path

import pytest

from bothways.tasks import Answer, Tag
from bothways.text.files import Columns

DOCS = Path(__file__).parents[2] / "docs"
PAGE = next(path for path in (DOCS / "input-tags.md", DOCS / "input.md") if path.exists())
BLOCK = re.compile(r'```\w+ title="([^"]+)"(?: columns="(\d),(\d)")?\n(.*?)```', re.DOTALL)


def blocks(begin: str, end: str) -> list[tuple[str, ...]]:
    page = PAGE.read_text(encoding="utf-8")
    part = page[page.index(begin) :]
    return BLOCK.findall(part[: part.index(end, 1)] if end in part[1:] else part)


@pytest.mark.parametrize(("name", "word", "tag", "content"), blocks("## Words and tags", "\n## "))
def test_examples_of_words_and_tags_are_read(tmp_path, name, word, tag, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    columns = Columns(text_column=word or None, label_column=tag or None)
    examples = Tag.read(str(tmp_path / name), columns)
    assert examples[0].gold in {
        ("B-PER", "I-PER", "O"),
        ("B-ORG", "I-ORG", "O"),
        ("B-PER", "O"),
    }
    inputs = list(Tag.inputs(str(tmp_path / name), columns))
    assert [one.texts for one in inputs] == [one.texts for one in examples]
    assert [one.error for one in inputs] == [None] * len(examples)


@pytest.mark.parametrize(("name", "word", "tag", "content"), blocks("## Questions and answers", "\n## "))
def test_examples_of_questions_are_read(tmp_path, name, word, tag, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    first, second = Answer.read(str(tmp_path / name), Columns())
    assert [(one.text, one.start) for one in first.gold] == [("Ann", 0)]
    assert second.gold == ()
    inputs = list(Answer.inputs(str(tmp_path / name), Columns()))
    assert [one.texts for one in inputs] == [first.texts, second.texts]


def test_there_are_examples():
    assert len(blocks("## Words and tags", "\n## ")) >= 10
    assert len(blocks("## Questions and answers", "\n## ")) >= 4
