"""Claims about docs/howto/input.md: every example in it is read, by the readers that it describes."""

import re
from pathlib import Path

import pytest

from bothways.data.tables import RECORDS, TABLES, Columns
from bothways.tasks import Answer, Classify, Pairs, Tag

PAGE = (Path(__file__).parents[1] / "docs" / "howto" / "input.md").read_text(encoding="utf-8")
BLOCK = re.compile(r'^```\w+ title="(.*?)"(?: columns="(\d),(\d)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
TEXTS = ("great film, well acted", "dull")
NO = 'She said "no".'
TOPICS = [("arts, culture", "news"), ()]
EXPECTED = {
    "reviews.csv": (Classify, {}, (TEXTS[0], NO), ["good", "bad"]),
    "excel.csv": (Classify, {}, TEXTS, ["good", "bad"]),
    "reviews.tsv": (Classify, {}, (TEXTS[0], NO), ["good", "bad"]),
    "reviews.jsonl": (Classify, {}, TEXTS, ["good", "bad"]),
    "reviews.json": (Classify, {}, TEXTS, ["good", "bad"]),
    "pairs.csv": (Pairs, {}, ("A man sleeps.", "A man sleeps."), ["entailment", "contradiction"]),
    "similarity.csv": (Pairs, {}, ("A man sleeps.", "A man sleeps."), [3.8, 1.0]),
    "topics.jsonl": (Classify, {}, ("The museum reopens", "Hello"), TOPICS),
    "topics.csv": (Classify, {"separator": ","}, ("The museum reopens", "Hello"), TOPICS),
}
TAGS = {("B-PER", "I-PER", "O"), ("B-ORG", "I-ORG", "O"), ("B-PER", "O")}


def blocks(heading: str) -> list[tuple[str, str, str, str]]:
    """(name, word column, tag column, content) of the examples under a heading."""
    return BLOCK.findall(PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0])


WORDS_AND_TAGS = blocks("Words and tags")
QUESTIONS = blocks("Questions and answers")
FILES = {name: content for name, _, _, content in BLOCK.findall(PAGE)}


def test_every_example_of_the_page_is_expected_here():
    assert len(WORDS_AND_TAGS) >= 10
    assert len(QUESTIONS) >= 4
    assert set(FILES) - {name for name, *_ in WORDS_AND_TAGS + QUESTIONS} == {*EXPECTED, "texts.txt", "sources.py"}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_read_as_the_page_says(name, tmp_path):
    task, columns, texts, references = EXPECTED[name]
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    found = task.read(tmp_path / name, Columns(**columns))
    assert [example.texts[0] for example in found] == list(texts)
    assert [example.reference for example in found] == references
    inputs = list(task.inputs(tmp_path / name, Columns(**columns)))
    assert [(one.texts, one.error) for one in inputs] == [(one.texts, None) for one in found]


def test_plain_text_is_read_as_the_page_says(tmp_path):
    (tmp_path / "texts.txt").write_text(FILES["texts.txt"], encoding="utf-8")
    assert tuple(one.texts[0] for one in Classify.inputs(tmp_path / "texts.txt", Columns())) == TEXTS


def test_sources_in_memory_are_read_as_the_page_says():
    names = {name: pytest.importorskip(name) for name in ("pandas", "pyarrow", "datasets")}
    exec(FILES["sources.py"], names)
    for name in ("rows", "frame", "table", "dataset", "generator"):
        found = Classify.read(names[name], Columns())
        assert [(one.texts[0], one.reference) for one in found] == [("great film", "good"), ("dull", "bad")]


@pytest.mark.parametrize(("name", "word", "tag", "content"), WORDS_AND_TAGS)
def test_examples_of_words_and_tags_are_read(tmp_path, name, word, tag, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    columns = Columns(text_column=word or None, label_column=tag or None)
    examples = Tag.read(str(tmp_path / name), columns)
    assert examples[0].reference in TAGS
    inputs = list(Tag.inputs(str(tmp_path / name), columns))
    assert [(one.texts, one.error) for one in inputs] == [(one.texts, None) for one in examples]


@pytest.mark.parametrize(("name", "word", "tag", "content"), QUESTIONS)
def test_examples_of_questions_are_read(tmp_path, name, word, tag, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    first, second = Answer.read(str(tmp_path / name), Columns())
    assert [(one.text, one.start) for one in first.reference] == [("Ann", 0)]
    assert second.reference == ()
    inputs = list(Answer.inputs(str(tmp_path / name), Columns()))
    assert [one.texts for one in inputs] == [first.texts, second.texts]


def test_every_suffix_and_usual_name_is_on_the_page():
    for word in (*TABLES, *RECORDS, *(name for task in (Classify, Pairs) for some in task.texts for name in some)):
        assert f"`{word}`" in PAGE
