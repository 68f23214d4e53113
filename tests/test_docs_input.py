"""Claims about docs/input.md: every example in it is read, by the readers that it describes."""

import re
from pathlib import Path

import pytest

from bothways.tasks import Classify, Pairs
from bothways.text.files import RECORDS, TABLES, Columns

PAGE = (Path(__file__).parents[1] / "docs" / "input.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
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


def test_every_example_of_the_page_is_expected_here():
    assert set(FILES) == {*EXPECTED, "texts.txt", "sources.py"}


@pytest.mark.parametrize("name", EXPECTED)
def test_an_example_is_read_as_the_page_says(name, tmp_path):
    task, columns, texts, golds = EXPECTED[name]
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    found = task.read(tmp_path / name, Columns(**columns))
    assert [example.texts[0] for example in found] == list(texts)
    assert [example.gold for example in found] == golds
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
        assert [(one.texts[0], one.gold) for one in found] == [("great film", "good"), ("dull", "bad")]


def test_every_suffix_and_usual_name_is_on_the_page():
    for word in (*TABLES, *RECORDS, *(name for task in (Classify, Pairs) for some in task.texts for name in some)):
        assert f"`{word}`" in PAGE
