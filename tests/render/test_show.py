"""Pictures hold the whole text in its order, mark the right characters, and survive hostile input."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.progress import printable
from bothways.render.show import LONG, ansi, html_page
from bothways.tasks.picture import Mark, Picture

HOSTILE = '<script>alert("x")</script> & \x1b[31m \0 \ud800 \u202e \u2066'


def page(*pictures: Picture) -> str:
    return "".join(html_page("A title", pictures))


def shown(written: str) -> str:
    """The text of the first paragraph of a page, without the labels in its marks."""
    paragraph = re.search(r'<p dir="auto">(.*?)</p>', written, re.DOTALL)
    assert paragraph is not None
    return html.unescape(re.sub(r"<[^>]*>", "", re.sub(r"<b>.*?</b>", "", paragraph[1], flags=re.DOTALL)))


@st.composite
def marked(draw):
    text = draw(st.text(st.characters(blacklist_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=60))
    edges = sorted(draw(st.sets(st.integers(0, len(text)), max_size=6)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return text, tuple(Mark(start, end, draw(st.sampled_from(["PER", "", "a<b"])), 0.5) for start, end in pairs)


@given(marked())
def test_the_page_shows_the_text_and_marks_the_right_part(case):
    text, marks = case
    written = page(Picture((("", text),), marks))
    assert shown(written) == printable(text)
    inside = re.findall(r"<mark[^>]*title[^>]*>(.*?)(?:<b>.*?</b>)?</mark>", written, re.DOTALL)
    assert [html.unescape(one) for one in inside] == [printable(text[mark.start : mark.end]) for mark in marks]


def test_labels_are_written_and_not_only_colored():
    text = "Ann saw Rome"
    picture = Picture((("", text),), (Mark(0, 3, "PER", 0.91), Mark(8, 12, "LOC", 0.8)))
    assert re.search(r"Ann<b>PER</b>", page(picture))
    assert ansi(picture, color=False).startswith("[Ann](PER 0.91) saw [Rome](LOC 0.80)")


def test_a_label_stays_beside_its_entity_where_scripts_of_both_directions_meet():
    text = "בירושלים and Paris"
    written = page(Picture((("", text),), (Mark(0, 8, "LOC", 0.9), Mark(13, 18, "LOC", 0.9))))
    assert written.count('<mark dir="auto"') == 2  # each is laid out by itself


def test_hostile_text_breaks_neither_page_nor_terminal():
    picture = Picture(((HOSTILE, HOSTILE),), (Mark(0, 8, HOSTILE, 1.0),), ((HOSTILE, 0.5),), HOSTILE, HOSTILE)
    written = page(picture)
    written.encode("utf-8")
    assert "<script>" not in written.replace("&lt;script&gt;", "")
    for output in (written, ansi(picture, color=False)):
        assert not re.search("[\x00\x1b\ud800\u202e\u2066]", output)


@pytest.mark.parametrize(
    "places", [[(50_000, 50_004)], [(0, 4), (99_000, 99_005)], [(10, 12), (300, 305), (2000, 2004)]]
)
def test_a_long_text_is_shortened_around_its_marks_and_loses_none(places):
    text = "".join(f"{number:05d} " for number in range(20_000))
    written = page(Picture((("", text),), tuple(Mark(start, end, "X", 0.9) for start, end in places)))
    for start, end in places:
        assert f">{text[start:end]}<b>X</b>" in written
    assert "characters left out" in written
    assert len(written) < 3 * LONG + 10_000
    counted = sum(int(one.replace(",", "")) for one in re.findall(r"… \(([\d,]+) characters", written))
    left = re.sub(r" … \([\d,]+ characters left out\) … ", "", shown(written))
    assert counted + len(left) == len(text)


def test_bars_notes_and_errors_are_there():
    picture = Picture(
        (("first text", "a"), ("second text", "b")), bars=(("yes", 0.75), ("no", 0.25)), note="read in 3 windows"
    )
    written = page(picture, Picture((("", ""),), error="the text is empty"))
    for part in ("first text", "75.0 %", "width: 25.0%", "read in 3 windows", "the text is empty"):
        assert part in written
    assert "left out" not in written
    assert "███████████████ " in ansi(picture)


def test_a_label_has_one_color_in_all_texts_of_a_terminal():
    first = Picture((("", "Rome"),), (Mark(0, 4, "LOC", 0.9),))
    both = Picture((("", "Ann Rome"),), (Mark(0, 3, "PER", 0.9), Mark(4, 8, "LOC", 0.9)))
    labels: dict[str, int] = {}
    ansi(first, labels)
    ansi(both, labels)
    assert labels == {"LOC": 0, "PER": 1}
    assert ansi(both, labels).count("\x1b[1;7;34m") == 1  # blue, the first color, is that of LOC
