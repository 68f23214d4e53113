"""Entities are whole words with exact places, in every alphabet, however long the text."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import DataError, OptionError
from bothways.tasks import Tag
from bothways.tasks.tag import viterbi, words_of
from bothways.tasks.task import Example
from bothways.text.files import Columns
from bothways.text.tokenizer import Tokenizer
from bothways.text.words import split_words

TOKENIZER = Tokenizer.packaged("bert-base-uncased")
BYTES = Tokenizer.packaged("roberta-base")
LABELS = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
TAG = Tag(LABELS)
TEXTS = st.text(max_size=60) | st.lists(
    st.sampled_from(
        ["Zoë", "O'Brien", "北京", "👩‍👧", "naïve", "x̂y", "U.S.", "1,000", "\u200b", "שלום", "(", "'s", "A\u00ad b"]
    )
).map(" ".join)


def logits_for(tags: list[str], windows, example: Example) -> list[np.ndarray]:
    """Rows that say of every word the tag it has in `tags`."""
    found = []
    for window in windows:
        rows = np.zeros((len(window.reads), len(LABELS)))
        for row, place in zip(rows, window.reads, strict=True):
            row[LABELS.index(tags[window.words[place]])] = 9.0
        found.append(TAG.reduce(rows, window))
    return found


def decoded(task: Tag, text: str, tags: list[str], tokenizer=TOKENIZER):
    example = task.example(text)
    windows = task.encode([example], tokenizer)
    return task.decode(example, logits_for(tags, windows, example), windows, tokenizer.pieces)


def test_entities_are_grouped_from_words_with_their_places():
    text = "Elon Musk's plane left St. Louis (U.S.) today."
    words = [text[start:end] for start, end in split_words(text)]
    assert words == ["Elon", "Musk", "'s", "plane", "left", "St", ".", "Louis", "(", "U.S.", ")", "today", "."]
    tags = ["B-PER", "I-PER", "O", "O", "O", "B-LOC", "I-LOC", "I-LOC", "O", "B-LOC", "O", "O", "O"]
    answer = decoded(TAG, text, tags)
    assert [(one.entity_group, one.word) for one in answer.entities] == [
        ("PER", "Elon Musk"),
        ("LOC", "St. Louis"),
        ("LOC", "U.S."),
    ]
    assert answer.tags == tuple(tags)
    assert all(0.99 < one.score <= 1 for one in answer.entities)


@given(TEXTS)
def test_words_cover_all_that_is_no_space_and_do_not_overlap(text):
    places = split_words(text)
    covered = np.zeros(len(text), int)
    for start, end in places:
        assert text[start:end]
        assert not any(character.isspace() for character in text[start:end])
        covered[start:end] += 1
    assert covered.max(initial=0) <= 1
    left = "".join(character for character, seen in zip(text, covered, strict=True) if not seen)
    assert left.strip() == ""


@pytest.mark.parametrize("tokenizer", [TOKENIZER, BYTES], ids=["wordpiece", "bytes"])
@given(TEXTS, st.integers(0, 2**32 - 1), st.sampled_from(["first", "average", "max", "simple"]))
def test_the_text_at_the_places_is_the_entity_and_no_word_is_split(tokenizer, text, seed, strategy):
    task = Tag(LABELS, strategy=strategy, max_pieces=12, overlap=4)
    example = task.example(text)
    windows = task.encode([example], tokenizer)
    rng = np.random.default_rng(seed)
    parts = [task.reduce(rng.normal(0, 3, (len(window.reads), 5)), window) for window in windows]
    answer = task.decode(example, parts, windows, tokenizer.pieces)
    starts = {start for start, _ in words_of(example)}
    ends = {end for _, end in words_of(example)}
    for entity in answer.entities:
        assert text[entity.start : entity.end] == entity.word
        if strategy != "simple":
            assert entity.start in starts
            assert entity.end in ends
            assert 0 < entity.score <= 1


@pytest.mark.parametrize("strategy", ["first", "average", "max"])
@given(st.integers(1, 60), st.integers(6, 20), st.randoms(use_true_random=False))
def test_every_word_of_a_long_text_is_read_once(strategy, words, max_pieces, random):
    text = " ".join(random.choice(["Paris", "unaffable", "antidisestablishmentarianism", "a"]) for _ in range(words))
    task = Tag(LABELS, strategy=strategy, max_pieces=max_pieces, overlap=min(2, (max_pieces - 2) // 2))
    windows = task.encode([task.example(text)], TOKENIZER)
    read = [int(window.words[place]) for window in windows for place in window.reads]
    if strategy == "first":
        assert read == list(range(words))
    else:
        assert read == sorted(read)
        assert set(read) == set(range(words))


@given(st.lists(st.lists(st.floats(-9, 0), min_size=5, max_size=5), max_size=8))
def test_viterbi_is_the_best_of_all_legal_paths(rows):
    from itertools import product

    emissions = np.array(rows).reshape(-1, 5)
    legal = TAG._transitions()
    if len(emissions) > 5:
        emissions = emissions[:5]
    path = viterbi(emissions, legal)
    assert legal[np.append(-1, path), np.append(path, -1)].all()
    value = emissions[np.arange(len(path)), path].sum()
    best = max(
        (
            emissions[np.arange(len(one)), list(one)].sum()
            for one in product(range(5), repeat=len(emissions))
            if legal[np.append(-1, one).astype(int), np.append(one, -1).astype(int)].all()
        ),
        default=0.0,
    )
    assert value == pytest.approx(best)


def test_an_inside_tag_never_begins_an_entity():
    answer = decoded(TAG, "in New York City", ["O", "I-LOC", "I-PER", "I-LOC"])
    assert all(
        tag[:2] != "I-" or before[2:] == tag[2:] for before, tag in zip(("O", *answer.tags), answer.tags, strict=False)
    )


def test_files_of_words_and_of_spans_mean_the_same(tmp_path):
    (tmp_path / "a.conll").write_text("Ann B-PER\nLee I-PER\nsaw O\nRome B-LOC\n. O\n\n")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"words": ["Ann", "Lee", "saw", "Rome", "."], "tags": ["B-PER", "I-PER", "O", "B-LOC", "O"]}) + "\n"
    )
    spans = [{"start": 12, "end": 16, "label": "LOC"}, {"start": 0, "end": 7, "label": "PER"}]
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "Ann Lee saw Rome.", "spans": spans}) + "\n")
    found = [Tag.read(str(tmp_path / name), Columns())[0] for name in ("a.conll", "a.jsonl", "b.jsonl")]
    assert found[0].gold == found[1].gold == found[2].gold == ("B-PER", "I-PER", "O", "B-LOC", "O")
    assert found[0].texts == ("Ann Lee saw Rome .",)
    assert Tag.learn(found).labels == LABELS


def test_tags_may_be_numbers_of_names():
    columns = Columns(label_names="O,B-PER,I-PER")
    (example,) = Tag.read([{"tokens": ["Ann", "Lee", "saw"], "ner_tags": [1, 2, 0]}], columns)
    assert example.gold == ("B-PER", "I-PER", "O")
    with pytest.raises(DataError, match="row 1: label '3' is neither a known name nor a number below 3"):
        Tag.read([{"tokens": ["Ann"], "ner_tags": [3]}], columns)


def test_a_file_of_columns_is_no_file_of_texts_where_nothing_is_scored(tmp_path):
    (tmp_path / "a.txt").write_text("-DOCSTART- -X- O O\n\nAnn NNP I-NP I-PER\nslept VBD I-VP O\n")
    (tmp_path / "b.txt").write_text("Ann slept.\nBob too.\n")
    found = [
        [one.texts[0] for one in Tag.read(str(tmp_path / name), Columns(), gold=False)] for name in ("a.txt", "b.txt")
    ]
    assert found == [["Ann slept"], ["Ann slept.", "Bob too."]]


def test_a_span_inside_a_word_cuts_the_word():
    (example,) = Tag.read([{"text": "the Tesla-maker", "spans": [{"start": 4, "end": 9, "label": "ORG"}]}], Columns())
    assert [example.texts[0][start:end] for start, end in words_of(example)] == ["the", "Tesla", "-", "maker"]
    assert example.gold == ("O", "B-ORG", "O", "O")


@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([{"start": 0, "end": 99, "label": "X"}], "goes beyond the 5 characters"),
        ([{"start": 0, "end": 3, "label": "X"}, {"start": 2, "end": 4, "label": "X"}], "overlap"),
        ([{"start": 0, "label": "X"}], "is not"),
        ("PER", 'no list "spans"'),
    ],
)
def test_bad_spans_are_refused_with_their_place(spans, message):
    with pytest.raises(DataError, match=rf"row 1: .*{message}"):
        Tag.read([{"text": "hello", "spans": spans}], Columns())


def test_an_unknown_type_is_refused_with_its_place():
    examples = Tag.read([{"words": ["Ann"], "tags": ["B-DOG"]}], Columns())
    with pytest.raises(DataError, match="row 1: the type 'DOG' is not one of LOC, PER"):
        TAG.check(examples)


def test_tags_of_all_words_and_nothing_else_are_trained():
    (example,) = Tag.read([{"words": ["unaffable", "Rome"], "tags": ["O", "B-LOC"]}], Columns())
    (window,) = TAG.encode([example], TOKENIZER)
    assert TOKENIZER.pieces(window.ids[window.reads]) == ["una", "rome"]
    assert window.target.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("labels", "scheme"),
    [
        (("O", "B-PER", "I-PER"), "IOB1"),
        (("O", "I-PER"), "IO"),
        (("O", "B-PER", "I-PER", "E-PER", "S-PER"), "BIOES"),
        (("O", "B-PER", "I-PER", "L-PER", "U-PER"), "BIOES"),
        (("O", "PER", "creative-work"), "IO"),
    ],
)
def test_the_scheme_of_a_foreign_checkpoint_is_read_off_its_labels(labels, scheme):
    task = Tag.of_checkpoint({"id2label": {str(place): label for place, label in enumerate(labels)}})
    assert (task.labels, task.scheme) == (labels, scheme)
    assert "PER" in task.types
    assert not {"L-PER", "U-PER"} & set(task.types)


@pytest.mark.parametrize("strategy", ["none", "simple"])
def test_tags_of_pieces_are_not_scored_against_tags_of_words(strategy):
    with pytest.raises(OptionError, match=f"the strategy {strategy} answers for pieces; gold is for words"):
        Tag(LABELS, strategy=strategy).score([], [], rng=np.random.default_rng(0))


def test_settings_survive_json():
    made = Tag(LABELS, strategy="max", ignored=("O", "LOC"), max_pieces=9, overlap=3)
    assert Tag.from_json(json.loads(json.dumps(made.as_json()))) == made
