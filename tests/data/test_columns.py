"""Sentences are read as they stand, their scheme is found, and what no scheme allows is refused with its place."""

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bothways.data.columns import Sentence, detect_scheme, is_columns, normalized, read_sentences
from bothways.data.schemes import entity_spans, to_bio
from bothways.errors import DataError

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
    assert found.words == ("", "ke s", "")


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
    with pytest.raises(DataError, match=r"a\.conll:1: no column 7; the line has 2 columns"):
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


GERMEVAL = """#\thttp://example.org/a\t[2009-10-17]
1\tBonn\tB-ORG\tB-LOC
2\tUniversity\tI-ORG\tO
3\tgrows\tO\tO

#\thttp://example.org/b\t[2009-10-18]
1\tAnn\tB-PER\tO
2\tslept\tO\tO

"""


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (GERMEVAL, r"2 \(ORG, PER\) and 3 \(LOC\) .* --text-column 1 --label-column 2"),
        (GERMEVAL.replace("B-LOC", "O"), r"2 \(.*\) and 3 \(only O\) .* --text-column 1 --label-column 2"),
        ("Bonn\tB-ORG\tB-LOC\nUniversity\tI-ORG\tO\n", r"--text-column 0 --label-column 1$"),
    ],
)
def test_two_columns_of_entities_are_not_one(write, content, options):
    with pytest.raises(DataError, match=rf"^a\.conll:\d: the columns .*{options}"):
        list(read_sentences(write(content)))


def test_named_columns_of_two_layers_are_read(write):
    first, second = read_sentences(write(GERMEVAL), word_column=1, tag_column=2)
    assert (first.words, first.tags) == (("Bonn", "University", "grows"), ("B-ORG", "I-ORG", "O"))
    assert (second.words, second.number) == (("Ann", "slept"), 7)


def test_chunks_are_no_second_layer(write):
    (found,) = read_sentences(write("EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n"))
    assert found.tags == ("B-ORG", "O")


@pytest.mark.parametrize(
    ("content", "column"),
    [
        ("1\tAnn\tB-PER\n2\tslept\tO\n", 1),
        ("0\t1\tAnn\tB-PER\n0\t2\tslept\tO\n", 2),
        ("17 Ann B-PER\n18 slept O\n", 1),
        ("doc1\t1\tAnn\tB-PER\ndoc1\t2\tslept\tO\ndoc1\t3\twell\tO\n\ndoc2\t1\tLee\tB-PER\n", 2),
        ("Ann 1 B-PER\nslept 2 O\n", 0),
        ("1996 O\n1997 O\n", 0),
        ("E-mail O\nB-52 O\n", 0),
        ("B-PER\tAnn\nO\tslept\n\nO\tHi\n", 1),
        ("d/1 0 0 In IN B-X\nd/1 0 1 Bonn NN O\n\nd/1 0 0 We IN O\n", 3),
    ],
)
def test_numbers_and_names_before_the_words_are_not_the_words(write, content, column):
    found = list(read_sentences(write(content), strict=False))
    assert found[0].words[0] == content.split("\n", 1)[0].replace("\t", " ").split(" ")[column]
    assert found[0].note == ("" if column == 0 else f"the words are read from column {column}")


def test_conll_u_is_read_without_its_ranges_and_empty_nodes(write):
    rows = ["1-2\tdon't\t_\tO", "1\tdo\tdo\tO", "2\tn't\tnot\tO", "2.1\tsee\tsee\tO", "3\tAnn\tAnn\tB-PER"]
    (found,) = read_sentences(write("# sent_id = 1\n# text = don't Ann\n" + "\n".join(rows) + "\n"))
    assert (found.words, found.tags) == (("do", "n't", "Ann"), ("O", "O", "B-PER"))


@pytest.mark.parametrize(
    "comment", ["# id 17a\tdomain=en", "# id = 3", "#begin document (a); part 000", "#\ta\tb\tc\td\te"]
)
def test_comments_above_a_sentence_are_skipped(write, comment):
    first, second = read_sentences(write(f"{comment}\nAnn _ _ B-PER\n\n{comment}\nLee _ _ B-PER\n"))
    assert (first.words, second.words) == (("Ann",), ("Lee",))


def test_a_hashtag_without_a_tag_is_not_lost_as_a_comment(write):
    with pytest.raises(DataError, match=r"a\.conll:1: found 1 columns, expected 2"):
        list(read_sentences(write("#Rome\nAnn B-PER\n")))


@pytest.mark.parametrize("space", ["\u00a0", "\u202f", "\u3000", "\u2028", "\x85", "\f", "\v", "\u2009", "\x1c"])
def test_only_spaces_and_tabs_divide_columns(write, space):
    for between in (" ", "   ", "\t"):
        (found,) = read_sentences(write(f"26{space}000{between}B-NUM\neuros{between}O\n"))
        assert found.words == (f"26{space}000", "euros")


@pytest.mark.parametrize("lines", [("Ann  NNP\tB-PER", "saw VB\tO"), ("Ann NNP\tB-PER", "saw\tVB\tO", "a\tb O")])
def test_spaces_divide_columns_beside_tabs_where_every_line_then_has_as_many(write, lines):
    first, second = read_sentences(write("\n".join(lines) + "\n\nBonn NN\tB-LOC\n"))
    assert (first.words[:2], first.tags[:2]) == (("Ann", "saw"), ("B-PER", "O"))
    assert second.words == ("Bonn",)
    (found,) = read_sentences(write("New York\tB-LOC\nis\tO\nfar away\tO\n"))
    assert found.words == ("New York", "is", "far away")


def test_spaces_around_a_line_are_no_columns(write):
    (found,) = read_sentences(write("  Ann   B-PER  \n slept O\n"))
    assert (found.words, found.tags) == (("Ann", "slept"), ("B-PER", "O"))


@pytest.mark.parametrize("odd", ["B-PER\u200b", "\ufeffB-PER", "B-PER\u00a0", "B-PER\r"])
def test_tags_that_look_alike_are_one(write, odd):
    (found,) = read_sentences(write(f"Ann\tB-PER\nLee\t{odd}\n"))
    assert found.tags == ("B-PER", "B-PER")


@pytest.mark.parametrize(
    ("tags", "expected", "scheme"),
    [
        (("PER-B", "PER-I", "O", "LOC-B"), ("B-PER", "I-PER", "O", "B-LOC"), "BIO"),
        (("PER_B", "PER_I", "O"), ("B-PER", "I-PER", "O"), "BIO"),
        (("B_PER", "I_PER", "O"), ("B-PER", "I-PER", "O"), "BIO"),
        (("b-per", "i-per", "O"), ("B-per", "I-per", "O"), "BIO"),
        (("PER-B", "PER-E", "LOC-S"), ("B-PER", "E-PER", "S-LOC"), "BIOES"),
        (("PER-I", "PER-I", "O"), ("I-PER", "I-PER", "O"), "IO"),
        (("B-PER-B", "I-PER-B"), ("B-PER-B", "I-PER-B"), "BIO"),
        (("B-tax_percent", "O"), ("B-tax_percent", "O"), "BIO"),
        (("E-MAIL", "O", "PHONE"), ("I-E-MAIL", "O", "I-PHONE"), "IO"),
        (("E-MAIL", "S-BAHN"), ("I-E-MAIL", "I-S-BAHN"), "IO"),
        (("E_MAIL", "O"), ("E_MAIL", "O"), "IO"),
        (("S-PER", "S-LOC"), ("S-PER", "S-LOC"), "BIOES"),
        (("O", "O"), ("O", "O"), "BIO"),
        (("B", "I", "O"), ("B-ENTITY", "I-ENTITY", "O"), "BIO"),
        (("B", "E", "S"), ("B-ENTITY", "E-ENTITY", "S-ENTITY"), "BIOES"),
    ],
)
def test_other_spellings_of_tags_are_read(tags, expected, scheme):
    (found,), note = normalized([sentence(*tags)])
    assert found.tags == expected
    assert detect_scheme([found]) == scheme
    assert bool(note) == (tags != expected)


@pytest.mark.parametrize("tag", ["B-O", "I-O", "E-O", "S-O", "o", "B-o", "I_O"])
def test_an_entity_of_the_type_o_is_refused(tag):
    sentences, _ = normalized([sentence("B-PER", "O"), sentence("O", tag, tag)])
    with pytest.raises(DataError, match=r"^a:2: found '.*': an entity has a type other than O.*\(2 lines: a:2, a:3\)"):
        detect_scheme(sentences)


def test_all_lines_with_an_illegal_tag_are_named_at_once():
    with pytest.raises(DataError, match=r"^a:1: an I- tag begins an entity, .* \(3 lines: a:1, a:3, a:1\)$"):
        detect_scheme([sentence("I-X", "O", "I-X"), sentence("I-X", "O", "B-X")])
    with pytest.raises(DataError, match=r"\(20 lines: (a:\d+, ){10}\.\.\.\)$"):
        detect_scheme([sentence(*["O", "I-X"] * 20), sentence("B-X")])


def test_a_file_without_tags_cannot_be_learned(write):
    with pytest.raises(DataError, match=r"^a\.conll:1: found no tag: the file has no column of tags"):
        detect_scheme(list(read_sentences(write("Ann\nslept\n"))))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("-DOCSTART- -X- O O\n\nAnn NNP I-NP I-PER\n", True),
        ("Ann\tB-PER\nsaw\tO\n\nRome\tB-LOC\n", True),
        ("Ann B-PER\n", True),
        ("Ann PER\nsaw O\n", True),
        ("Ann PER-B\nLee PER-I\n", True),
        (GERMEVAL, True),
        ("1\tAnn\tB-PER\t-\tstephen\n2\tsaw\tO\t-\t-\n", True),
        ("\n".join(f"w{n} O" for n in range(40)) + "\nbroken\n", True),
        ("# text = Hi\n1\tHi\thi\tINTJ\t_\t_\t0\troot\t_\t_\n", True),
        ("Ann saw Rome.\n", False),
        ("vitamin B-12\n", False),
        ("more vitamin B-12\nless vitamin B-6\n", False),
        ("blood group O\n", False),
        ("take vitamin B\nplan B\n", False),
        ("I saw the USA\nyou left the EU\n", False),
        ("Ann\nRome\n", False),
        ("one two\nthree four\n", False),
        ("text\tlabel\ngood film\tpos\n", False),
        ("", False),
        ("\n\n", False),
    ],
)
def test_columns_are_told_from_running_text_by_their_content(write, content, expected):
    assert is_columns(write(content, "a.txt")) is expected


def test_real_files_are_columns_and_texts_are_not(shared_data):
    for name in ("conll2003/dev.txt", "crossner/ai/dev.txt", "wikigold/wikigold.conll.txt", "uner_ewt/dev.iob2"):
        assert is_columns(str(shared_data / name))
    assert not is_columns(str(shared_data / "sst2" / "dev.tsv"))


def test_a_broken_sentence_of_a_stream_is_an_error_of_its_own(write):
    name = write("Ann B-PER\n\nLee\nslept O\n\nRome !?\n")
    first, second, third = read_sentences(name, strict=False)
    assert (first.error, third.error) == (None, None)
    assert second.error.startswith("a.conll:3: found 1 columns, expected 2")
    assert [one.number for one in (first, second, third)] == [1, 3, 6]
