"""Sentences are read as they stand, their scheme is found, and what no scheme allows is refused with its place."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.errors import DataError
from bothways.metrics import entity_spans
from bothways.text.columns import Sentence, detect_scheme, read_sentences
from bothways.text.schemes import to_bio

KINDS = st.sampled_from(["PER", "creative-work", "B"])
SENTENCES = st.lists(st.tuples(KINDS, st.integers(1, 3)) | st.none(), min_size=1, max_size=8)


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_file(content: str, name: str = "a.conll") -> str:
        (tmp_path / name).write_text(content, encoding="utf-8")
        return name

    return write_file


def sentence(*tags: str) -> Sentence:
    places = tuple(f"a:{number}" for number in range(1, len(tags) + 1))
    return Sentence(("w",) * len(tags), tags, places)


def written(spans, scheme: str) -> tuple[str, ...]:
    """Entities (type, words) and None for a word outside, in a scheme."""
    tags: list[str] = []
    before = None
    for span in spans:
        if span is None:
            tags.append("O")
        else:
            kind, size = span
            if scheme == "BIO":
                tags += [f"B-{kind}"] + [f"I-{kind}"] * (size - 1)
            elif scheme == "BIOES":
                tags += [f"S-{kind}"] if size == 1 else [f"B-{kind}", *[f"I-{kind}"] * (size - 2), f"E-{kind}"]
            else:
                first = "B" if scheme == "IOB1" and before == kind else "I"
                tags += [f"{first}-{kind}"] + [f"I-{kind}"] * (size - 1)
        before = span and span[0]
    return tuple(tags)


@pytest.mark.parametrize("scheme", ["BIO", "BIOES", "IOB1", "IO"])
@given(spans=SENTENCES)
def test_every_scheme_becomes_the_same_bio(scheme, spans):
    touching = any(a and b and a[0] == b[0] for a, b in itertools.pairwise(spans))
    if scheme == "IO" and touching:
        return  # one entity there, by definition
    tags = written(spans, scheme)
    assert to_bio(tags) == written(spans, "BIO")
    found = detect_scheme([sentence(*tags)])
    assert found == scheme or "B" not in {tag[0] for tag in tags} or found == "BIO"
    assert [(kind, last - first) for kind, first, last in entity_spans(to_bio(tags))] == [one for one in spans if one]


def test_words_tags_documents_and_comments(write):
    name = write("-DOCSTART- -X- O\n\n# id = 1\nEU NNP B-ORG\n# NN O\n\n \t\nRome NNP B-LOC\n")
    first, second = read_sentences(name)
    assert (first.words, first.tags) == (("EU", "#"), ("B-ORG", "O"))
    assert first.where == ("a.conll:4", "a.conll:5")
    assert second.words == ("Rome",)


def test_tabs_alone_divide_where_there_are_any(write):
    (found,) = read_sentences(write("\tO\nke s\tB-PER\n# x\n \tO\n"))
    assert found.words == ("", "ke s", " ")


@pytest.mark.parametrize("head", ["# newdoc\n# sent_id = 1\n", "#\n\n# newpar\n", "-DOCSTART-\n# text = a\n"])
def test_comments_above_the_first_row_with_tabs_are_skipped(write, head):
    (found,) = read_sentences(write(f"{head}1\ta\tO\n"), word_column=1, tag_column=2)
    assert found.words == ("a",)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs /dev/fd")
def test_a_pipe_can_be_read():
    reader, writer = os.pipe()
    os.write(writer, b"# newdoc\na\tB-X\n\nb\tO\n")
    os.close(writer)
    first, second = read_sentences(f"/dev/fd/{reader}")
    os.close(reader)
    assert (first.words, second.words) == (("a",), ("b",))


def test_a_hash_among_rows_with_spaces_is_a_word(write):
    (found,) = read_sentences(write("# = O\na NN B-X\nb\t=\tO\n# NN O\n"))
    assert found.words == ("#", "a", "b", "#")


def test_a_document_line_is_known_in_any_column(write):
    first, second = read_sentences(write("1\ta\tO\n0\t-DOCSTART-\tO\n1\tb\tO\n"), word_column=1)
    assert (first.words, second.words) == (("a",), ("b",))


def test_one_column_has_no_tags(write):
    (found,) = read_sentences(write("a\nb\n"))
    assert (found.words, found.tags) == (("a", "b"), ("", ""))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb\n", r"^a\.conll:2: found 1 columns, expected 2"),
        ("1\ta\tO\tstephen\n", r"^a\.conll:1: the last column holds 'stephen', .*--text-column 1 --label-column 2$"),
        ("a person\n", r"^a\.conll:1: the last column holds 'person', .*--text-column 0 --label-column 1$"),
        ("a B-\n", r"^a\.conll:1: the last column holds 'B-'"),
        ("\n\n", r"^a\.conll: no words"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(write, content, message):
    with pytest.raises(DataError, match=message):
        list(read_sentences(write(content)))


def test_a_column_that_is_not_there_is_said(write):
    with pytest.raises(DataError, match=r"a\.conll:1: no column 7, there are 2"):
        list(read_sentences(write("a O\n"), tag_column=7))


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        (("B-X", "I-X", "O", "I-X", "B-Y"), r"^a:4: an I- tag begins an entity, while elsewhere B- begins one"),
        (("S-X", "B-X", "O"), r"^a:3: B-X is not followed by I- or E-"),
        (("S-X", "I-X"), r"^a:2: I-X continues no entity"),
        (("B-X", "E-Y"), r"^a:2: B-X is not followed"),
        (("S-X", "B-X"), r"^a:2: B-X is not followed"),
        (("B-X", "M-X", "O"), r"^a:3: M-X is not followed"),
        (("B-X", "X"), r"^a:2: a type without a prefix, while at a:1 one has a prefix"),
        (("X", "O", "I-X"), r"^a:1: a type without a prefix, while at a:3"),
        (("O", "!?"), r"^a:2: found '!\?', expected a tag"),
        (("B-",), r"^a:1: found 'B-', expected a tag"),
    ],
)
def test_illegal_tags_are_refused_with_their_place(tags, message):
    with pytest.raises(DataError, match=message):
        detect_scheme([sentence(*tags)])


def test_other_letters_of_bioes_and_bare_types_are_known():
    assert detect_scheme([sentence("B-X", "L-X", "U-Y")]) == "BIOES"
    assert to_bio(["B-X", "M-X", "E-X", "U-Y"]) == ("B-X", "I-X", "I-X", "B-Y")
    assert detect_scheme([sentence("PER", "PER", "O")]) == "IO"
    assert to_bio(["PER", "PER", "O", "LOC"]) == ("B-PER", "I-PER", "O", "B-LOC")


@pytest.mark.parametrize(
    ("names", "scheme", "sentences", "words", "entities"),
    [
        (["conll2003/train.txt"], "BIO", 13732, 202285, 23382),
        (["conll2003/dev.txt"], "BIO", 3186, 51134, 5923),
        (["wnut17/train.conll"], "BIO", 3394, 62730, None),
        (["wnut17/dev.conll"], "BIO", 1009, 15733, None),
        (["wikigold/wikigold.conll.txt"], "IO", 1696, 39007, None),
        (["uner_ewt/dev.iob2"], "BIO", 2001, 25149, 966),
        ([f"btc/{section}.conll" for section in "abefgh"], "BIO", 9339, 150387, None),
        *(
            ([f"crossner/{field}/{split}.txt"], "BIO", sentences, None, None)
            for field, *sizes in (
                ("ai", 100, 347),
                ("science", 199, 437),
                ("politics", 199, 540),
                ("literature", 100, 396),
                ("music", 94, 361),
            )
            for split, sentences in zip(("train", "dev"), sizes, strict=True)
        ),
    ],
)
def test_real_files_have_the_counts_that_are_published(shared_data, names, scheme, sentences, words, entities):
    columns = {"word_column": 1, "tag_column": 2} if "uner" in names[0] else {}
    files = [list(read_sentences(str(shared_data / name), **columns)) for name in names]
    assert {detect_scheme(file) for file in files} == {scheme}
    found = [one for file in files for one in file]
    assert len(found) == sentences
    assert words in (None, sum(len(one.words) for one in found))
    assert entities in (None, sum(len(entity_spans(to_bio(one.tags))) for one in found))
    assert scheme == "IO" or all(to_bio(one.tags) == one.tags for one in found)


def test_a_real_file_with_more_columns_behind_its_tags_says_which_to_name(shared_data):
    with pytest.raises(DataError, match=r"dev\.iob2:4: the last column holds '-', .*--text-column 1 --label-column 2$"):
        list(read_sentences(str(shared_data / "uner_ewt" / "dev.iob2")))
