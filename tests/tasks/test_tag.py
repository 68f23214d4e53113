"""Entities are whole words with exact places, in every alphabet, however long the text."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.examples import Example
from bothways.data.schemes import entity_spans
from bothways.data.sentences import words_of
from bothways.data.tables import Columns
from bothways.data.words import split_words
from bothways.errors import DataError, OptionError
from bothways.tasks import Tag
from bothways.tasks.tag import TagPrediction, viterbi
from bothways.text.tokenizer import Tokenizer

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
        rows = np.zeros((len(window.head_positions), len(LABELS)))
        for row, place in zip(rows, window.head_positions, strict=True):
            row[LABELS.index(tags[window.word_ids[place]])] = 9.0
        found.append(TAG.reduce(rows, window))
    return found


def decoded(task: Tag, text: str, tags: list[str], tokenizer=TOKENIZER):
    example = task.example(text)
    windows = task.encode([example], tokenizer)
    return task.decode(example, logits_for(tags, windows, example), windows, tokenizer)


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
    task = Tag(LABELS, aggregation_strategy=strategy, max_length=12, stride=4)
    example = task.example(text)
    windows = task.encode([example], tokenizer)
    rng = np.random.default_rng(seed)
    parts = [task.reduce(rng.normal(0, 3, (len(window.head_positions), 5)), window) for window in windows]
    answer = task.decode(example, parts, windows, tokenizer)
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
def test_every_word_of_a_long_text_is_read_once(strategy, words, max_length, random):
    text = " ".join(random.choice(["Paris", "unaffable", "antidisestablishmentarianism", "a"]) for _ in range(words))
    task = Tag(LABELS, aggregation_strategy=strategy, max_length=max_length, stride=min(2, (max_length - 2) // 2))
    windows = task.encode([task.example(text)], TOKENIZER)
    read = [int(window.word_ids[place]) for window in windows for place in window.head_positions]
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
    """Each word's likeliest tag is an illegal one; the likeliest legal sequence is another."""
    text = "in New York City"
    example = TAG.example(text)
    windows = TAG.encode([example], TOKENIZER)
    rows = np.log(
        [  # O    B-LOC I-LOC B-PER I-PER
            [0.96, 0.01, 0.01, 0.01, 0.01],
            [0.05, 0.10, 0.60, 0.05, 0.20],
            [0.05, 0.05, 0.30, 0.05, 0.55],
            [0.05, 0.05, 0.80, 0.05, 0.05],
        ]
    )
    answer = TAG.decode(example, [TAG.reduce(rows, windows[0])], windows, TOKENIZER)
    assert [(one.entity_group, one.word) for one in answer.entities] == [("LOC", "New York City")]
    assert answer.tags == ("O", "B-LOC", "I-LOC", "I-LOC")


def test_each_word_is_read_where_most_of_the_text_around_it_is_seen():
    text = " ".join(["Paris"] * 60)
    windows = Tag(LABELS, max_length=22, stride=10).encode([TAG.example(text)], TOKENIZER)
    assert len(windows) > 3
    seen = {}  # for each word: the least number of words on one side of it, in each window that shows it
    for number, window in enumerate(windows):
        shown = [place for place in range(len(window.ids)) if window.sequence_ids[place] == 0]
        first = window.skipped
        for place in shown:
            word = first + place - shown[0]
            left = len(text) if first == 0 else place - shown[0]
            right = len(text) if first + len(shown) == 60 else shown[-1] - place
            seen.setdefault(word, {})[number] = min(left, right)
    for number, window in enumerate(windows):
        for place in window.head_positions.tolist():
            word = int(window.word_ids[place])
            assert seen[word][number] >= max(seen[word].values()) - 1


def test_files_of_words_and_of_spans_mean_the_same(tmp_path):
    (tmp_path / "a.conll").write_text("Ann B-PER\nLee I-PER\nsaw O\nRome B-LOC\n. O\n\n")
    (tmp_path / "a.jsonl").write_text(
        json.dumps({"words": ["Ann", "Lee", "saw", "Rome", "."], "tags": ["B-PER", "I-PER", "O", "B-LOC", "O"]}) + "\n"
    )
    spans = [{"start": 12, "end": 16, "label": "LOC"}, {"start": 0, "end": 7, "label": "PER"}]
    (tmp_path / "b.jsonl").write_text(json.dumps({"text": "Ann Lee saw Rome.", "spans": spans}) + "\n")
    found = [Tag.read(str(tmp_path / name), Columns())[0] for name in ("a.conll", "a.jsonl", "b.jsonl")]
    assert found[0].reference == found[1].reference == found[2].reference == ("B-PER", "I-PER", "O", "B-LOC", "O")
    assert found[0].texts == ("Ann Lee saw Rome .",)
    assert Tag.learn(found).labels == LABELS


def test_tags_may_be_numbers_of_names():
    columns = Columns(label_names="O,B-PER,I-PER")
    (example,) = Tag.read([{"tokens": ["Ann", "Lee", "saw"], "ner_tags": [1, 2, 0]}], columns)
    assert example.reference == ("B-PER", "I-PER", "O")
    with pytest.raises(DataError, match="row 1: label '3' is neither a known name nor a number below 3"):
        Tag.read([{"tokens": ["Ann"], "ner_tags": [3]}], columns)


def test_spans_are_scored_as_spans_on_words_that_the_reference_does_not_cut():
    """Merkel in "Merkelregierung" cannot be found; neither the whole word nor anything else counts as it."""
    (example,) = Tag.read([{"text": "die Merkelregierung", "spans": [[4, 10, "PER"]]}], Columns())
    assert [example.texts[0][start:end] for start, end in words_of(example)] == ["die", "Merkel", "regierung"]
    windows = TAG.encode([example], TOKENIZER)
    assert {int(window.word_ids[place]) for window in windows for place in window.head_positions} == {
        0,
        1,
    }  # served words
    whole = TAG.decode(example, logits_for(["O", "B-PER"], windows, example), windows, TOKENIZER)
    assert [one.word for one in whole.entities] == ["Merkelregierung"]
    assert whole.tags == ("O", "B-PER", "I-PER")
    assert not TAG.is_correct(whole, example.reference)
    scores = TAG.score([whole], [example.reference], rng=np.random.default_rng(0), resamples=10)
    assert scores.metrics["entity_f1"].value == 0.0
    (asked,) = Tag.read([{"text": "die Merkelregierung", "spans": [[4, 19, "ORG"]]}], Columns())
    assert asked.reference == ("O", "B-ORG")


@pytest.mark.parametrize(
    ("text", "entity"),
    [
        ("a Paris-based firm", "Paris"),
        ("vive l’Italie !", "Italie"),
        ("EU-Kommission tagt", "EU"),
        ("Ankara'da", "Ankara"),
        ("see @Obama_2012", "Obama"),
    ],
)
@pytest.mark.parametrize("tokenizer", [TOKENIZER, BYTES], ids=["wordpiece", "bytes"])
def test_an_entity_inside_a_compound_can_be_found_and_is_scored_as_served(text, entity, tokenizer):
    start = text.index(entity)
    span = {"start": start, "end": start + len(entity), "label": "LOC"}
    (example,) = Tag.read([{"text": text, "spans": [span]}], Columns())
    served = TAG.example(text)
    tags = ["B-LOC" if text[a:b] == entity else "O" for a, b in split_words(text)]
    answers = []
    for one in (example, served):
        windows = TAG.encode([one], tokenizer)
        answers.append(TAG.decode(one, logits_for(tags, windows, one), windows, tokenizer))
    assert answers[0].entities == answers[1].entities
    assert [(one.word, one.start) for one in answers[0].entities] == [(entity, start)]
    assert TAG.is_correct(answers[0], example.reference)


@given(TEXTS, st.integers(0, 2**32 - 1))
def test_what_is_scored_on_spans_is_what_is_served(text, seed):
    rng = np.random.default_rng(seed)
    places = sorted(set(rng.integers(0, len(text) + 1, 4).tolist()))
    spans = [[a, b, "PER"] for a, b in zip(places[::2], places[1::2], strict=False) if text[a:b].strip()]
    (example,) = Tag.read([{"text": text, "spans": spans}], Columns())
    windows = TAG.encode([example], TOKENIZER)
    parts = [TAG.reduce(rng.normal(0, 3, (len(window.head_positions), 5)), window) for window in windows]
    scored = TAG.decode(example, parts, windows, TOKENIZER)
    plain = TAG.decode(TAG.example(text), parts, windows, TOKENIZER)
    assert scored.entities == plain.entities
    units = words_of(example)
    assert len(scored.tags) == len(scored.scores) == len(example.reference) == len(units)
    found = [(units[a][0], units[b - 1][1], kind) for kind, a, b in entity_spans(scored.tags)]
    assert found == [(one.start, one.end, one.entity_group) for one in scored.entities]


def test_words_of_a_file_are_trained_as_the_words_of_running_text():
    examples = Tag.read([{"words": ["Jean-Luc", "Paris-based"], "tags": ["B-PER", "O"]}], Columns())
    task = Tag.learn(examples)
    (window,) = task.encode(examples, TOKENIZER)
    read = TOKENIZER.convert_ids_to_tokens(window.ids[window.head_positions])
    assert list(zip(read, (task.labels[k] for k in window.target), strict=True)) == [
        ("jean", "B-PER"),
        ("-", "I-PER"),
        ("luc", "I-PER"),
        ("paris", "O"),
        ("-", "O"),
        ("based", "O"),
    ]


def test_words_of_a_file_have_a_tag_each():
    example = TAG.example(["Jean-Luc", "", "don't", "\u200b"])
    windows = TAG.encode([example], TOKENIZER)
    tags = {"Jean": "B-PER", "-": "O", "Luc": "B-LOC"}
    fine = [tags.get(example.texts[0][a:b], "O") for a, b in split_words(example.texts[0])]
    answer = TAG.decode(example, logits_for(fine, windows, example), windows, TOKENIZER)
    assert answer.tags == ("B-PER", "O", "O", "O")
    assert [one.word for one in answer.entities] == ["Jean-Luc"]


def test_words_that_share_a_token_are_one():
    example = TAG.example("COVID-19 in Rome")
    windows = TAG.encode([example], TOKENIZER)
    (window,) = windows
    places = split_words(example.texts[0])
    dash = next(place for place in window.head_positions if places[window.word_ids[place]][0] == 5)
    offsets = window.offsets.copy()
    offsets[dash] = (5, 8)
    kept = np.array([place for place in window.head_positions if place == dash or window.offsets[place][0] != 6])
    joined = replace(window, offsets=offsets, head_positions=kept)
    tags = ["B-PER", "I-PER", "O", "O", "B-LOC"]
    answer = TAG.decode(example, logits_for(tags, [joined], example), [joined], TOKENIZER)
    assert [one.word for one in answer.entities] == ["COVID-19", "Rome"]


def test_entities_that_are_a_part_of_a_word_are_noted():
    examples = Tag.read(
        [
            {"text": "die Merkelregierung in Bonn", "spans": [[4, 10, "PER"], [23, 27, "LOC"]]},
            {"text": "a Paris-based firm", "spans": [[2, 7, "LOC"]]},
        ],
        Columns(),
    )
    assert TAG.training_notes(examples) == ["1 of 3 entities are a part of a word: they count as missed in every score"]


def test_how_tags_are_written_is_noted_unless_it_is_plain(tmp_path):
    (tmp_path / "a.conll").write_text("1 Ann PER-B\n2 Lee PER-E\n3 slept O\n")
    examples = Tag.read(str(tmp_path / "a.conll"), Columns())
    assert TAG.training_notes(examples) == [
        "the tags are BIOES, learned as BIO",
        "tags such as PER-B are read as B-PER",
        "the words are read from column 1",
    ]
    assert TAG.training_notes(Tag.read([{"words": ["Ann"], "tags": ["B-PER"]}], Columns())) == []


KAGGLE = """Sentence #,Word,POS,Tag
Sentence: 1,Ann,NNP,B-per
,slept,VBD,O
,",",",",O
Sentence: 2,Rome,NNP,B-geo
,"""
LAYOUTS = {
    "kaggle.csv": KAGGLE + '"""","""",O\n',
    "each.csv": 'sentence_id,words,labels\n0,Ann,B-per\n0,slept,O\n0,",",O\n1,Rome,B-geo\n1,"""",O\n',
    "kaggle.tsv": "Sentence #\tWord\tPOS\tTag\n1\tAnn\tN\tB-per\n1\tslept\tV\tO\n1\t,\t,\tO\n"
    '2\tRome\tN\tB-geo\n2\t"\tQ\tO\n',
    "spaces.csv": 'text,tags\n"Ann slept ,",B-per O O\n"Rome """,B-geo O\n',
    "lists.jsonl": '{"tokens": ["Ann", "slept", ","], "ner_tags": ["B-per", "O", "O"]}\n'
    '{"tokens": ["Rome", "\\""], "ner_tags": ["B-geo", "O"]}\n',
    "doccano.jsonl": '{"text": "Ann slept ,", "label": [[0, 3, "per"]]}\n'
    '{"text": "Rome \\"", "label": [[0, 4, "geo"]]}\n',
    "new_doccano.jsonl": '{"text": "Ann slept ,", "entities": [{"id": 1, "start_offset": 0, "end_offset": 3, "label":'
    ' "per"}], "Comments": []}\n{"text": "Rome \\"", "entities": [{"id": 2, "start_offset": 0, "end_offset": 4,'
    ' "label": "geo"}]}\n',
    "label_studio.json": '[{"id": 1, "text": "Ann slept ,", "label": [{"start": 0, "end": 3, "text": "Ann", "labels":'
    ' ["per"]}]}, {"id": 2, "text": "Rome \\"", "label": [{"start": 0, "end": 4, "text": "Rome", "labels": ["geo"]}]}]',
    "plain.conll": 'Ann B-per\nslept O\n, O\n\nRome B-geo\n" O\n',
    "plain.txt": 'Ann B-per\nslept O\n, O\n\nRome B-geo\n" O\n',
    "plain.tsv": 'Ann\tB-per\nslept\tO\n,\tO\n\nRome\tB-geo\n"\tO\n',
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_read_alike_for_evaluation_and_for_prediction(tmp_path, name):
    (tmp_path / name).write_text(LAYOUTS[name])
    first, second = Tag.read(str(tmp_path / name), Columns())
    assert (first.reference, second.reference) == (("B-per", "O", "O"), ("B-geo", "O"))
    inputs = list(Tag.inputs(str(tmp_path / name), Columns()))
    assert [one.texts for one in inputs] == [("Ann slept ,",), ('Rome "',)] == [first.texts, second.texts]
    assert [one.error for one in inputs] == [None, None]
    assert all(one.row for one in inputs)
    assert [words_of(one) for one in inputs] == [words_of(first), words_of(second)]


def test_lists_of_numpy_and_torch_are_lists():
    names = Columns(label_names="O,B-PER,I-PER")
    for wrap in (np.array, tuple, torch.tensor):
        (example,) = Tag.read([{"tokens": ["Ann", "Lee", "saw"], "ner_tags": wrap([1, 2, 0])}], names)
        assert example.reference == ("B-PER", "I-PER", "O")
    (example,) = Tag.read([{"words": np.array(["Ann", "saw"]), "tags": np.array(["B-PER", "O"])}], Columns())
    assert example.reference == ("B-PER", "O")
    assert TAG.example(np.array(["Ann", "Lee"])).texts == ("Ann Lee",)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"words": ["Ann", "Lee"], "tags": ["B-PER"]}, "expected 2 tags, one for each word"),
        ({"words": ["Ann"], "tags": "B-PER O"}, "expected 1 tags, one for each word"),
        ({"words": ["Ann"], "tags": None}, "expected 1 tags, one for each word"),
        ({"words": ["Ann", "Lee"], "tags": ["B-PER", None]}, "found an empty tag"),
        ({"words": ["Ann", None], "tags": ["B-PER", "O"]}, "found None among the words"),
        ({"words": ["Ann", ["Lee"]], "tags": ["B-PER", "O"]}, "found \\['Lee'\\] among the words"),
        ({"words": "['Ann', 'Lee']", "tags": "['B-PER', 'O']"}, "a list written as text"),
        ({"word": "Ann", "tag": "B-PER"}, "one word per row, without a sentence number"),
        ({"text": "great", "label": "good"}, 'no list "spans"'),
        ({"text": "Ann Lee", "tags": "B-PER"}, 'no list "spans"'),
        ({"data": {"text": "Ann"}, "annotations": []}, "of Label Studio export JSON-MIN"),
        ({"words": ["Ann"], "tags": ["B-O"]}, "an entity has a type other than O"),
        ({"words": ["Ann"], "tags": [2]}, "found '2', expected a tag"),
    ],
)
def test_rows_that_are_not_tagged_are_refused_with_their_place(row, message):
    with pytest.raises(DataError, match=rf"row 1: .*{message}"):
        Tag.read([row], Columns())


def test_rows_of_one_word_without_sentences_are_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("words\ttags\nAnn\tB-PER\nslept\tO\n")
    with pytest.raises(DataError, match=r"every row holds one word; write a column 'sentence_id'"):
        Tag.read(str(tmp_path / "a.tsv"), Columns())


def test_a_row_that_cannot_be_read_is_an_error_in_its_place():
    rows = [{"text": "Ann slept."}, {"text": None}, {"words": [None]}, {"text": "Bob", "spans": "?"}]
    found = list(Tag.inputs(rows, Columns()))
    assert [one.error is None for one in found] == [True, False, False, True]
    assert found[1].error.startswith("found the columns 'text'")
    assert found[3].row == rows[3]


def test_inputs_are_read_as_they_are_needed():
    def rows():
        yield {"text": "Ann"}
        raise AssertionError("read too far")

    assert next(iter(Tag.inputs(rows(), Columns()))).texts == ("Ann",)


def test_sentences_of_a_column_file_carry_the_line_of_their_first_word(tmp_path):
    (tmp_path / "a.txt").write_text("-DOCSTART- -X- O\n\nAnn NNP B-PER\nslept VBD O\n\n\nRome NNP B-LOC\nBonn\n")
    found = list(Tag.inputs(str(tmp_path / "a.txt"), Columns()))
    assert [one.number for one in found] == [3, 7]
    assert found[0].row == {"words": ["Ann", "slept"]}
    assert "a.txt:8: found 1 columns, expected 3" in found[1].error


@pytest.mark.parametrize("first", ["Ann B-PER\n", "Ann\tNNP\tB-PER\n", "-DOCSTART- -X- O\n"])
def test_standard_input_with_words_and_tags_is_not_running_text(monkeypatch, first):
    content = f"{first}slept O\n\nvitamin B-12\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    with pytest.raises(
        DataError, match=r"standard input:1: found .* looks like a word with its tag; .*--input-format conll"
    ):
        list(Tag.inputs("-", Columns()))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    found = [one.texts[0] for one in Tag.inputs("-", Columns(format="txt"))]
    assert found[-1] == "vitamin B-12"
    assert len(found) == 4
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"Ann B-PER\nslept O\n\nRome B-LOC\n")))
    assert [one.texts[0] for one in Tag.inputs("-", Columns(format="conll"))] == ["Ann slept", "Rome"]


def test_a_file_without_an_entity_teaches_nothing():
    with pytest.raises(DataError, match="row 1 and below: every tag is O, there is no entity to learn"):
        Tag.learn(Tag.read([{"words": ["Ann"], "tags": ["O"]}], Columns()))


def test_words_outside_entities_are_grouped_where_nothing_is_ignored():
    tags = ["O", "O", "B-PER", "I-PER", "O"]
    answer = decoded(Tag(LABELS, ignore_labels=()), "we saw Ann Lee today", tags)
    assert [(one.entity_group, one.word) for one in answer.entities] == [
        ("O", "we saw"),
        ("PER", "Ann Lee"),
        ("O", "today"),
    ]
    assert [one.word for one in decoded(TAG, "we saw Ann Lee today", tags).entities] == ["Ann Lee"]


def test_answers_of_equal_texts_do_not_share_their_dicts():
    made = TagPrediction(raw=({"entity": "B-PER", "score": 0.9},))
    made.answer(all_scores=False)["entities"][0]["score"] = 0.0
    assert made.answer(all_scores=False)["entities"][0]["score"] == 0.9


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
    assert TOKENIZER.convert_ids_to_tokens(window.ids[window.head_positions]) == ["una", "rome"]
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
def test_tags_of_tokens_are_not_scored_against_tags_of_words(strategy):
    with pytest.raises(OptionError, match=f"the strategy {strategy} labels tokens, but the references label words"):
        Tag(LABELS, aggregation_strategy=strategy).score([], [], rng=np.random.default_rng(0))


def test_settings_survive_json():
    made = Tag(LABELS, aggregation_strategy="max", ignore_labels=("O", "LOC"), max_length=9, stride=3)
    assert Tag.from_json(json.loads(json.dumps(made.as_json()))) == made
