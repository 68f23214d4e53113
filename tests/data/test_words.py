"""Words of running text are so fine that an entity inside a compound is whole words, in every language."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.columns import read_sentences
from bothways.data.words import split_words, word_edges


def words(text: str) -> list[str]:
    return [text[start:end] for start, end in split_words(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("l'Italie", ["l'", "Italie"]),
        ("vive l’Italie", ["vive", "l’", "Italie"]),
        ("d'Airbus", ["d'", "Airbus"]),
        ("D'Airbus", ["D'", "Airbus"]),
        ("qu'Emmanuel", ["qu'", "Emmanuel"]),
        ("dell'Università", ["dell'", "Università"]),
        ("lʼItalie", ["lʼ", "Italie"]),
        ("l'Hospitalet d'Eivissa", ["l'", "Hospitalet", "d'", "Eivissa"]),
        ("EU-Kommission", ["EU", "-", "Kommission"]),
        ("Paris-based", ["Paris", "-", "based"]),
        ("EU‑Kommission", ["EU", "‑", "Kommission"]),
        ("Obama's", ["Obama", "'s"]),
        ("Obama’s", ["Obama", "’s"]),
        ("Ankara'da", ["Ankara", "'da"]),
        ("EU:n", ["EU", ":", "n"]),
        ("Berlin/Paris", ["Berlin", "/", "Paris"]),
        ("@Obama_2012", ["@", "Obama", "_", "2012"]),
        ("U.S.-led", ["U.S.", "-", "led"]),
        ("O'Brien’s", ["O'Brien", "’s"]),
        ("don't can’t n't", ["don't", "can’t", "n't"]),
        ("we 'll", ["we", "'ll"]),
        ("'hello'", ["'", "hello", "'"]),
        ("AT&T 1,000.5 10:30 a@b.com", ["AT&T", "1,000.5", "10:30", "a@b.com"]),
        ("北京 naïve x̂y", ["北", "京", "naïve", "x̂y"]),
    ],
)
def test_what_is_joined_by_an_apostrophe_or_a_hyphen_is_apart(text, expected):
    assert words(text) == expected


TEXTS = st.text("aZ'’-._@&:n't sO1é北\u0301\u200b\u00a0\u3000\u2028", max_size=40) | st.text(max_size=40)


@given(TEXTS)
def test_words_cover_all_but_space_and_none_is_in_two(text):
    covered = np.zeros(len(text), int)
    for start, end in split_words(text):
        covered[start:end] += 1
        assert not any(character.isspace() for character in text[start:end])
    assert all(count == (not character.isspace()) for count, character in zip(covered, text, strict=True))


@given(st.lists(TEXTS.filter(lambda text: text and not any(map(str.isspace, text))), max_size=6))
def test_words_of_a_file_are_unions_of_words(given_words):
    edges = {edge for place in split_words(" ".join(given_words)) for edge in place}
    place = 0
    for word in given_words:
        assert {place, place + len(word)} <= edges
        place += len(word) + 1


@pytest.mark.parametrize(
    "name", ["conll2003/dev.txt", "wikigold/wikigold.conll.txt", "wnut17/dev.conll", "crossner/ai/dev.txt"]
)
def test_words_of_real_files_are_unions_of_words(shared_data, name):
    for one in read_sentences(str(shared_data / name)):
        edges = {edge for place in split_words(" ".join(one.words)) for edge in place}
        place = 0
        for word in one.words:
            assert {place, place + len(word)} <= edges
            place += len(word) + 1


def test_entities_of_real_running_text_are_whole_words(shared_data):
    """The texts of UNER as they are written: all of its 966 entities but one are found."""
    text, total, whole = "", 0, 0
    lines = (shared_data / "uner_ewt" / "dev.iob2").read_text(encoding="utf-8").splitlines()
    spans: list[list[int]] = []
    place = 0
    for line in [*lines, ""]:
        if line.startswith("# text = "):
            text, place = line.removeprefix("# text = "), 0
        elif not line:
            edges = {edge for both in split_words(text) for edge in both}
            total += len(spans)
            whole += sum(set(span) <= edges for span in spans)
            spans = []
        elif not line.startswith("#"):
            _, word, tag, *_ = line.split("\t")
            place = text.index(word, place) + len(word)
            if tag.startswith("B-"):
                spans.append([place - len(word), place])
            elif tag.startswith("I-"):
                spans[-1][1] = place
    assert (total, whole) == (966, 965)


@given(TEXTS)
def test_edges_are_all_places_that_are_not_inside_a_word(text):
    def solid(character: str) -> bool:
        return len(word_edges(character + character)) == 2  # no edge between the two

    expected = [
        place
        for place in range(len(text) + 1)
        if place in (0, len(text)) or not (solid(text[place - 1]) and solid(text[place]))
    ]
    assert word_edges(text).tolist() == expected


@pytest.mark.parametrize("unit", ["a", "'", "l'", "n't", "a.", "é-", "ˈ"])
def test_long_texts_are_split_in_bounded_time(unit):
    start = time.perf_counter()
    split_words(unit * (200_000 // len(unit)) + "'")
    assert time.perf_counter() - start < 5
