"""The tokenizer against published ids, against transformers, and against what it claims over all of Unicode."""

import json
import pickle
import shutil
import unicodedata
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from bothways.errors import CheckpointError, DataError, ModelNotFoundError, OptionError
from bothways.text.backend import library_errors
from bothways.text.spiece import read_spiece
from bothways.text.tokenizer import PACKAGED, Encoded, Tokenizer

NAMES = ("bert-base-uncased", "bert-base-cased", "roberta-base", "albert-base-v2", "mpnet-base")
EXCERPT = Path(__file__).parent / "questions-excerpt.jsonl"
HARD = (
    "",
    " ",
    "The cat sat on the mat.",
    "  leading, doubled  and trailing space  ",
    "naïve café, Ångström, İstanbul, straße, ẞ",
    "cafe\u0301 x\u0301 \u0301abc a\u0301\u0302\u0303b",
    "👨‍👩‍👧‍👦 and 🇩🇪, 👍🏽, ☺\ufe0f, 1\ufe0f\u20e3",
    "中文 and 日本語ｶﾞ, 한국어, 각",
    "\u1100\u1161\u11a8 हिन्दी கொ คำถาม مَرْحَبًا",
    "a\x00b c\x01d\x7f\x9f \ufeffe\u200bf\u200dg\u00adh",
    "\x01\x02start \x03mid",
    "tab\tnewline\ncarriage\r\nno-break\u00a0wide\u3000line\u2028end\x1cseparator\x85next",
    'The U.S. Army\'s "well-known" (third) unit paid £5–10 in 2010, 1,000 men.',
    "``quoted'' words ''''",
    "ﬁne ½ Ⅷ ㎏ … “q” \u037e ſ",
    "Paris is the [MASK] of France. Paris is the <mask> of France.",
    "[CLS] a [SEP] b </s> c <s> <pad> [UNK] <unk>",
    "pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 120,
    "\U0010ffff\ue000\u0378",
    "don't can't I'll we've",
)

# Letters, marks, joiners, conjoining jamo and controls stand next to each other far more often than by chance.
EVERYTHING = st.characters(exclude_categories=())  # lone surrogates too
TRICKY = st.sampled_from("aB1., \t'`-(é中가\u1161\u11a8\u0301\u0300\ufe0f\u200d\u00ad\x00\x01\ufffdﬁİ😀\u3000\u093f")
ANY_TEXT = st.text(TRICKY | EVERYTHING, max_size=30)
PLAIN_TEXT = st.text(TRICKY | st.characters(codec="utf-8"), max_size=30)  # what transformers can take


@cache
def packaged(name: str) -> Tokenizer:
    return Tokenizer.packaged(name)


@cache
def theirs(name: str) -> Any:
    """The tokenizer of transformers from the same files, with the mask and the scores as published."""
    from transformers import AlbertTokenizer, BertTokenizer, MPNetTokenizer, RobertaTokenizer

    if name == "albert-base-v2":
        model = read_spiece(PACKAGED / name / "spiece.model")
        joined = [token.text[-1:] == "," and token.text[-2:-1].isdigit() for token in model.pieces]
        scores = [(token.text, token.score - 100 * comma) for token, comma in zip(model.pieces, joined, strict=True)]
        return AlbertTokenizer(vocab=scores, _spm_precompiled_charsmap=model.charsmap)
    if name == "roberta-base":
        mask = AddedToken("<mask>", lstrip=True, special=True, normalized=False)
        return RobertaTokenizer.from_pretrained(PACKAGED / name, mask_token=mask)
    if name == "mpnet-base":
        return MPNetTokenizer.from_pretrained(PACKAGED / name)
    return BertTokenizer.from_pretrained(PACKAGED / name, do_lower_case=name.endswith("uncased"))


def same(one: Encoded, other: Encoded) -> bool:
    return all(
        np.array_equal(getattr(one, field), getattr(other, field))
        for field in ("ids", "type_ids", "offsets", "word_ids", "sequence_ids", "window", "truncated")
    )


# --- published ids -----------------------------------------------------------------------------------------


def test_the_cat_of_the_bert_readme() -> None:
    bert = packaged("bert-base-uncased")
    encoded = bert.encode("The cat sat on the mat.")
    assert encoded.ids.tolist() == [101, 1996, 4937, 2938, 2006, 1996, 13523, 1012, 102]
    assert (encoded.example, encoded.window, encoded.truncated, encoded.target) == (0, 0, 0, None)
    pair = bert.encode("The cat sat on the mat.", "It was a lazy afternoon.")
    assert pair.type_ids.tolist() == [0] * 9 + [1] * 7
    assert pair.sequence_ids.tolist() == [-1, 0, 0, 0, 0, 0, 0, 0, -1, 1, 1, 1, 1, 1, 1, -1]
    assert pair.word_ids.tolist() == [-1, 0, 1, 2, 3, 4, 5, 5, -1, 0, 1, 2, 3, 4, 4, -1]
    assert pair.ids.dtype == pair.type_ids.dtype == pair.offsets.dtype == pair.word_ids.dtype == np.int32
    assert pair.sequence_ids.dtype == np.int8


def assert_reference(path: Path, rows: int) -> None:
    reference = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len(reference) == rows
    bert = packaged("bert-base-uncased")
    found = bert.windows([(row["text"],) for row in reference], max_length=512, stride=0)
    assert [one.ids[1:-1].tolist() for one in found] == [row["ids"] for row in reference]
    assert [bert.convert_ids_to_tokens(one.ids[1:-1]) for one in found] == [row["tokens"] for row in reference]


def test_the_excerpt_is_tokenized_as_bert_does() -> None:
    assert_reference(EXCERPT, 56)


def test_every_reference_question_is_tokenized_as_bert_does(shared_data: Path) -> None:
    assert_reference(shared_data / "tokens" / "questions.jsonl", 5_263)


@pytest.mark.parametrize(
    ("name", "size", "specials"),
    [
        ("bert-base-uncased", 30_522, (0, 100, 101, 102, 103)),
        ("bert-base-cased", 28_996, (0, 100, 101, 102, 103)),
        ("roberta-base", 50_265, (1, 3, 0, 2, 50_264)),
        ("albert-base-v2", 30_000, (0, 1, 2, 3, 4)),
        ("mpnet-base", 30_527, (1, 104, 0, 2, 30_526)),
    ],
)
def test_special_tokens_are_found_in_the_vocabulary(name: str, size: int, specials: tuple[int, ...]) -> None:
    found = packaged(name)
    assert found.vocab_size == size
    assert (found.pad_id, found.unk_id, found.cls_id, found.sep_id, found.mask_id) == specials


def test_case_is_guessed_from_the_vocabulary() -> None:
    assert packaged("bert-base-uncased").backend.normalizer.lowercase
    assert not packaged("bert-base-cased").backend.normalizer.lowercase


def test_roberta_lays_two_separators_and_takes_the_space_before_a_mask() -> None:
    roberta = packaged("roberta-base")
    pair = roberta.encode("Hello world", "again")
    assert roberta.convert_ids_to_tokens(pair.ids) == ["<s>", "Hello", "Ġworld", "</s>", "</s>", "again", "</s>"]
    assert not pair.type_ids.any()
    masked = roberta.encode("Hello <mask>")
    assert roberta.convert_ids_to_tokens(masked.ids) == ["<s>", "Hello", "<mask>", "</s>"]
    assert masked.offsets.tolist() == [[0, 0], [0, 5], [6, 12], [0, 0]]


def test_mpnet_has_berts_tokens_under_other_ids_in_robertas_layout() -> None:
    mpnet, bert = packaged("mpnet-base"), packaged("bert-base-uncased")
    pair = mpnet.encode("Hello <mask>", "again")
    tokens = ["<s>", "hello", "<mask>", "</s>", "</s>", "again", "</s>"]
    assert mpnet.convert_ids_to_tokens(pair.ids) == tokens
    assert not pair.type_ids.any()
    assert pair.offsets[2].tolist() == [6, 12]
    ours, other = (one.encode("naïve re-tokenized").ids[1:-1] for one in (mpnet, bert))
    assert ours.tolist() == (other + 4).tolist()


def test_albert_keeps_a_comma_from_the_number_before_it() -> None:
    albert = packaged("albert-base-v2")
    assert albert.convert_ids_to_tokens(albert.encode("in 2010, men").ids)[1:-1] == ["▁in", "▁2010", ",", "▁men"]


def test_albert_cuts_as_googles_own_code_does() -> None:
    sentencepiece = pytest.importorskip("sentencepiece")
    model = sentencepiece.SentencePieceProcessor(model_file=str(PACKAGED / "albert-base-v2" / "spiece.model"))

    def google(text: str) -> list[str]:
        text = " ".join(text.split()).replace("``", '"').replace("''", '"')
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c)).lower()
        tokens: list[str] = []
        for token in model.encode(text, out_type=str):
            if len(token) > 1 and token[-1] == "," and token[-2].isdigit():
                first, *rest = model.encode(token[:-1].replace("▁", ""), out_type=str)
                first = first if token[0] == "▁" else first[1:]
                tokens += [part for part in (first, *rest, ",") if part]
            else:
                tokens.append(token)
        return tokens

    albert = packaged("albert-base-v2")
    texts = [json.loads(line)["text"] for line in EXCERPT.read_text(encoding="utf-8").splitlines()]
    texts += ["The U.S. Army's (third) unit paid £5-10 in 2010, for 1,000 men.", "a.b -- c", "3, 44, 555,"]
    for text in texts:
        assert albert.convert_ids_to_tokens(albert.encode(text).ids[1:-1]) == google(text)


# --- transformers ------------------------------------------------------------------------------------------


def assert_parity(name: str, text: str, pair: str) -> None:
    ours, other = packaged(name), theirs(name)
    for texts in ((text,), (text, pair)) if pair else ((text,),):  # transformers takes an empty second for none
        expected, found = other(*texts, return_token_type_ids=True), ours.encode(*texts)
        assert found.ids.tolist() == expected["input_ids"]
        assert found.type_ids.tolist() == expected["token_type_ids"]


@pytest.mark.parametrize("text", HARD)
@pytest.mark.parametrize("name", NAMES)
def test_ids_and_types_equal_those_of_transformers(name: str, text: str) -> None:
    assert_parity(name, text, "It was a lazy afternoon.")
    assert_parity(name, "A question?", text)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(text=PLAIN_TEXT, pair=PLAIN_TEXT)
def test_any_text_gives_the_ids_of_transformers(name: str, text: str, pair: str) -> None:
    assert_parity(name, text, pair)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_loads_here_and_in_transformers(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = packaged(name)
    ours.save(tmp_path)
    expected = {
        "bert-base-uncased": ("BertTokenizer", {"vocab.txt"}),
        "bert-base-cased": ("BertTokenizer", {"vocab.txt"}),
        "roberta-base": ("RobertaTokenizer", {"vocab.json", "merges.txt"}),
        "albert-base-v2": ("AlbertTokenizer", set()),
        "mpnet-base": ("MPNetTokenizer", {"vocab.txt"}),
    }[name]
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == expected[0]
    assert {file.name for file in tmp_path.iterdir()} == {"tokenizer.json", "tokenizer_config.json", *expected[1]}
    again, auto = Tokenizer.from_directory(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert again.specials == ours.specials
    assert again.backend.get_vocab() == ours.backend.get_vocab()
    for text in HARD:
        assert same(again.encode(text, "b"), ours.encode(text, "b"))
        assert auto(text, "b")["input_ids"] == ours.encode(text, "b").ids.tolist()
        assert auto(text)["input_ids"] == ours.encode(text).ids.tolist()
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(auto, f"{role}_token_id") == getattr(ours, f"{role}_id")
    (tmp_path / "tokenizer.json").unlink()
    if expected[1]:  # the older files alone say the same
        assert Tokenizer.from_directory(tmp_path).backend.to_str() == ours.backend.to_str()


def test_saving_into_a_used_folder_replaces_only_its_own_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    packaged("roberta-base").save(tmp_path)
    packaged("bert-base-uncased").save(tmp_path)
    assert (tmp_path / "config.json").read_text(encoding="utf-8") == "{}"
    assert Tokenizer.from_directory(tmp_path).vocab_size == 30_522


# --- offsets and words -------------------------------------------------------------------------------------


def inner(encoded: Encoded) -> list[tuple[int, int]]:
    assert encoded.offsets[encoded.sequence_ids < 0].tolist() == [[0, 0]] * int((encoded.sequence_ids < 0).sum())
    return [(start, end) for start, end in encoded.offsets[encoded.sequence_ids == 0].tolist()]


def shown(name: str, text: str) -> list[tuple[str, str]]:
    encoded = packaged(name).encode(text)
    tokens = packaged(name).convert_ids_to_tokens(encoded.ids)
    return [(token, text[start:end]) for token, (start, end) in zip(tokens[1:-1], inner(encoded), strict=True)]


def test_spans_hold_the_marks_that_normalizing_drops() -> None:
    assert shown("bert-base-uncased", "x\u0301 cafe\u0301.") == [
        ("x", "x\u0301"), ("cafe", "cafe\u0301"), (".", "."),
    ]  # fmt: skip
    assert shown("bert-base-uncased", "☺\ufe0f yes") == [("[UNK]", "☺\ufe0f"), ("yes", "yes")]
    assert shown("bert-base-uncased", "न्द")[0] == ("न", "न्")
    assert shown("albert-base-v2", "x\u0301 é") == [("▁x", "x\u0301"), ("▁", "é"), ("e", "é")]


def test_spans_hold_both_of_two_quotes_that_become_one() -> None:
    assert shown("albert-base-v2", "say ``hi''") == [
        ("▁say", "say"), ("▁", "``"), ('"', "``"), ("hi", "hi"), ('"', "''"),
    ]  # fmt: skip


def test_spans_leave_out_the_space_before_a_token() -> None:
    assert shown("roberta-base", "a cat") == [("a", "a"), ("Ġcat", "cat")]
    assert shown("albert-base-v2", "a cat") == [("▁a", "a"), ("▁cat", "cat")]


def test_the_bytes_of_one_character_all_have_its_span() -> None:
    assert [span for _, span in shown("roberta-base", "각")] == ["각"] * 3
    assert [span for _, span in shown("roberta-base", "👨\u200d👩")] == ["👨"] * 2 + ["\u200d"] * 2 + ["👩"] * 2


def test_an_unknown_token_has_its_whole_word() -> None:
    assert shown("bert-base-uncased", "see คำถาม!") == [("see", "see"), ("[UNK]", "คำถาม"), ("!", "!")]


def test_a_lone_surrogate_does_not_move_what_follows() -> None:
    for name in NAMES:
        assert shown(name, "a \ud800 cat")[-1][1] == "cat"


def test_a_leading_control_character_does_not_move_what_follows() -> None:
    for text in ("\x01\x02abc def", "\u0301\x01abc def", "[MASK] [MASK]\x01abc def"):
        assert shown("albert-base-v2", text)[-2:] == [("▁abc", "abc"), ("▁def", "def")]


def test_composing_normalizers_keep_the_whole_syllable() -> None:
    vocabulary = [(token, -1.0) for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "가", "나", "ガ")]
    backend = tokenizers.Tokenizer(models.Unigram(vocabulary, 1, False))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    encoded = Tokenizer(backend).encode("\u1100\u1161\u1102\u1161 ｶﾞ")
    assert encoded.offsets[1:-1].tolist() == [[0, 2], [2, 4], [5, 7]]


def vanishes(tokenizer: Tokenizer, character: str) -> bool:
    """Whether nothing, or only space, is left of a character that stands alone."""
    if character.isspace() or unicodedata.category(character)[0] == "C" or character == "\ufffd":
        return True
    rules = tokenizer.backend.normalizer
    return rules is not None and rules.normalize_str(character).strip() == ""


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(ANY_TEXT)
@example("\x01abc")
@example("\ufe0f\x01abc")
@example("".join(HARD))
def test_spans_are_ordered_and_cover_every_character_that_is_read(name: str, text: str) -> None:
    tokenizer = packaged(name)
    spans = inner(tokenizer.encode(text))
    assert all(0 <= start <= end <= len(text) for start, end in spans)
    assert [start for start, _ in spans] == sorted(start for start, _ in spans)
    assert [end for _, end in spans] == sorted(end for _, end in spans)
    covered = {at for span in spans for at in range(*span)}
    for at, character in enumerate(text):
        if at not in covered:
            assert vanishes(tokenizer, character)
            assert unicodedata.category(character)[0] != "M" or at - 1 not in covered


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
@example(HARD[5])
@example("0\ud8000")
def test_a_wordpiece_is_the_normal_form_of_its_span(text: str) -> None:
    bert = packaged("bert-base-uncased")
    encoded = bert.encode(text)
    spans = inner(encoded)
    for number, (token, (start, end)) in enumerate(
        zip(bert.convert_ids_to_tokens(encoded.ids[1:-1]), spans, strict=True)
    ):
        if encoded.ids[1 + number] in (bert.unk_id, bert.cls_id, bert.sep_id, bert.pad_id, bert.mask_id):
            continue
        token = token.removeprefix("##") if token != "##" else token
        whole = text[start:end].encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # as the tokenizer does
        normal = bert.backend.normalizer.normalize_str(whole).strip()
        if text[start:end].isascii():
            assert token == normal
        elif token != normal:  # a character that becomes several, of which this token has some
            neighbours = spans[:number] + spans[number + 1 :]
            assert token in normal
            assert any(max(start, first) < min(end, last) for first, last in neighbours)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60, deadline=None)
@given(ANY_TEXT)
@example(" a\x1cb \x85 c\u2028d  ")
def test_words_count_as_str_split_does(name: str, text: str) -> None:
    encoded = packaged(name).encode(text)
    starts = [at for at in range(len(text)) if not text[at].isspace() and (at == 0 or text[at - 1].isspace())]
    assert len(starts) == len(text.split())
    for (start, _), word in zip(inner(encoded), encoded.word_ids[encoded.sequence_ids == 0].tolist(), strict=True):
        if start == len(text) or text[start].isspace():
            assert word == -1
        else:
            assert word == sum(begin <= start for begin in starts) - 1
    assert (encoded.word_ids[encoded.sequence_ids < 0] == -1).all()


# --- windows -----------------------------------------------------------------------------------------------


def words(count: int, first: int = 0) -> str:
    """A text of `count` tokens, no two of them alike."""
    return " ".join(packaged("bert-base-uncased").convert_ids_to_tokens(range(2000 + first, 2000 + first + count)))


@pytest.mark.parametrize("name", ["bert-base-uncased", "roberta-base"])
@settings(max_examples=80, deadline=None)
@given(data=st.data(), truncation=st.booleans())
def test_windows_show_every_token_and_agree_with_the_whole(name: str, data: st.DataObject, truncation: bool) -> None:
    tokenizer = packaged(name)
    sizes = data.draw(st.lists(st.integers(0, 40), min_size=1, max_size=2))
    specials = len(tokenizer.encode(*[""] * len(sizes)).ids)
    max_length = specials + data.draw(st.integers(len(sizes), 30))
    room = max_length - specials
    stride = data.draw(st.integers(0, (room if len(sizes) == 1 else room - room // 2) - 1))
    example_texts = tuple(words(size, 100 * n) for n, size in enumerate(sizes))
    whole = tokenizer.encode(*example_texts)
    lengths = [int((whole.sequence_ids == n).sum()) for n in range(len(sizes))]
    found = tokenizer.windows([example_texts], max_length=max_length, stride=stride, truncation=truncation)

    assert [one.window for one in found] == list(range(len(found)))
    assert all(len(one.ids) <= max_length for one in found)
    sliding = 1 if len(sizes) == 2 and lengths[1] >= lengths[0] else 0
    seen: list[set[int]] = [set() for _ in sizes]
    before: set[int] = set()
    for one in found:
        assert one.ids[one.sequence_ids < 0].tolist() == whole.ids[whole.sequence_ids < 0].tolist()
        for n in range(len(sizes)):
            ours = np.flatnonzero(one.sequence_ids == n)
            if len(ours) == 0:
                continue
            theirs_ = np.flatnonzero(whole.sequence_ids == n)
            at = int(np.flatnonzero((whole.offsets[theirs_] == one.offsets[ours[0]]).all(axis=1))[0])
            matching = theirs_[at : at + len(ours)]
            for field in ("ids", "type_ids", "offsets", "word_ids", "sequence_ids"):
                assert np.array_equal(getattr(one, field)[ours], getattr(whole, field)[matching])
            if n == sliding:
                now = set(range(at, at + len(ours)))
                assert not before or len(before & now) >= stride
                before = now
            seen[n] |= set(range(at, at + len(ours)))
    if len(found) > 1:
        assert all(len(one.ids) == max_length for one in found)
    unseen = sum(lengths) - sum(map(len, seen))
    assert {one.truncated for one in found} == {unseen}
    if sum(lengths) <= room:
        assert (len(found), unseen) == (1, 0)
    elif not truncation:
        assert len(seen[sliding]) == lengths[sliding]
        if len(sizes) == 2:
            assert len(seen[1 - sliding]) == min(lengths[1 - sliding], room // 2)
    else:
        assert len(found) == 1


def test_the_last_window_is_shifted_back_to_the_end() -> None:
    bert = packaged("bert-base-uncased")
    found = bert.windows([("a b c d e f g h",)], max_length=7, stride=2)
    assert [bert.convert_ids_to_tokens(one.ids[1:-1]) for one in found] == [list("abcde"), list("defgh")]
    found = bert.windows([("a b c d e f g h i",)], max_length=7, stride=2)
    assert [bert.convert_ids_to_tokens(one.ids[1:-1]) for one in found] == [list("abcde"), list("defgh"), list("efghi")]


def test_a_short_question_stays_whole_beside_either_side_of_a_long_passage() -> None:
    bert = packaged("bert-base-uncased")
    after = bert.windows([("who ran", "a b c d e f g h")], max_length=9, stride=1)
    assert [bert.convert_ids_to_tokens(one.ids) for one in after] == [
        ["[CLS]", "who", "ran", "[SEP]", *part, "[SEP]"] for part in ("abcd", "defg", "efgh")
    ]
    before = bert.windows([("a b c d e f g h", "who ran")], max_length=9, stride=1)
    assert [bert.convert_ids_to_tokens(one.ids) for one in before] == [
        ["[CLS]", *part, "[SEP]", "who", "ran", "[SEP]"] for part in ("abcd", "defg", "efgh")
    ]
    assert {one.truncated for one in after + before} == {0}


def test_two_long_texts_say_how_much_of_the_shorter_is_lost() -> None:
    found = packaged("bert-base-uncased").windows([(words(9), words(10, 50))], max_length=9, stride=0)
    assert [(one.window, one.truncated, len(one.ids)) for one in found] == [
        (0, 6, 9), (1, 6, 9), (2, 6, 9), (3, 6, 9),
    ]  # fmt: skip


def test_cutting_says_how_much_is_lost() -> None:
    bert = packaged("bert-base-uncased")
    (one,) = bert.windows([("a b c d e f g h",)], max_length=7, stride=2, truncation=True)
    assert (bert.convert_ids_to_tokens(one.ids[1:-1]), one.truncated) == (list("abcde"), 3)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_gives_what_each_text_gives_alone(name: str) -> None:
    tokenizer = packaged(name)
    examples: list[tuple[str, ...]] = [(text,) for text in HARD]
    examples += [("Where?", text) for text in HARD] + [(text, "Where?") for text in reversed(HARD)]
    together = tokenizer.windows(examples, max_length=24, stride=5)
    apart = [tokenizer.windows([texts], max_length=24, stride=5) for texts in examples]
    assert [one.example for one in together] == [n for n, few in enumerate(apart) for _ in few]
    assert all(same(one, other) for one, other in zip(together, [one for few in apart for one in few], strict=True))


def test_a_text_that_many_examples_share_is_cut_once() -> None:
    class Counting:
        def __init__(self, backend: tokenizers.Tokenizer) -> None:
            self.backend, self.texts = backend, 0

        def encode_batch(self, texts: list[str], **options: Any) -> Any:
            self.texts += len(texts)
            return self.backend.encode_batch(texts, **options)

    tokenizer = Tokenizer.packaged("bert-base-uncased")
    counting = Counting(tokenizer.backend)
    tokenizer.backend = counting
    assert len(tokenizer.windows([(f"question {n}", words(30)) for n in range(50)], max_length=64, stride=0)) == 50
    assert counting.texts == 51


def test_nothing_in_gives_nothing_out() -> None:
    assert packaged("bert-base-uncased").windows([], max_length=8, stride=0) == []


def test_a_tokenizer_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(packaged("albert-base-v2")))
    assert same(again.encode(HARD[12], "x"), packaged("albert-base-v2").encode(HARD[12], "x"))


def test_a_long_question_is_truncated_no_further_than_needed() -> None:
    bert = packaged("bert-base-uncased")
    (window,) = bert.windows([("who " * 300, "paris " * 100)], max_length=384, stride=128, sliding=1)
    assert len(window.ids) == 384
    assert window.truncated == 300 + 100 - 381
    assert (window.sequence_ids == 1).sum() == 100


@pytest.mark.parametrize("sliding", [None, 0, 1])
@pytest.mark.parametrize("question", [1, 15, 180, 600])
@pytest.mark.parametrize("stride", [0, 128, 200, 379])
def test_any_stride_below_the_room_reads_the_whole_passage(question: int, stride: int, sliding: Any) -> None:
    bert = packaged("bert-base-uncased")
    texts = ("who " * question, "paris " * 700)
    windows = bert.windows([texts], max_length=384, stride=stride, sliding=sliding)
    slides = 1 if sliding is None else sliding
    seen = set()
    for window in windows:
        assert len(window.ids) == 384 or len(windows) == 1
        own = int((window.sequence_ids == slides).sum())
        assert 1 <= own <= 381
        seen |= set(range(window.skipped, window.skipped + own))
    assert seen == set(range((question, 700)[slides]))
    steps = {b.skipped - a.skipped for a, b in pairwise(windows[:-1])}
    assert len(steps) <= 1


# --- other people's files ----------------------------------------------------------------------------------


def test_truncation_and_padding_in_a_file_are_not_obeyed(tmp_path: Path) -> None:
    backend = packaged("bert-base-uncased").backend.from_str(packaged("bert-base-uncased").backend.to_str())
    backend.enable_truncation(4)
    backend.enable_padding(length=16)
    backend.save(str(tmp_path / "tokenizer.json"))
    assert len(Tokenizer.from_directory(tmp_path).encode("one two three four five").ids) == 7


@pytest.mark.parametrize("splits", [True, False])
def test_a_sentencepiece_with_roberta_names_gets_their_layout_and_saves(splits: bool, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    model = read_spiece(PACKAGED / "albert-base-v2" / "spiece.model")
    tokens = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    tokens += [(token.text, token.score) for token in model.pieces[5:2000]] + [("<mask>", 0.0)]
    backend = tokenizers.Tokenizer(models.Unigram(tokens, 3, False))
    backend.normalizer = normalizers.Precompiled(model.charsmap)
    marks = pre_tokenizers.Metaspace()
    whole = [pre_tokenizers.WhitespaceSplit(), marks]
    backend.pre_tokenizer = pre_tokenizers.Sequence(whole) if splits else marks
    ours = Tokenizer(backend)
    pair = ours.encode("the cat", "of the")
    special = [
        token for token, text in zip(ours.convert_ids_to_tokens(pair.ids), pair.sequence_ids, strict=True) if text < 0
    ]
    assert special == ["<s>", "</s>", "</s>", "</s>"]
    assert not pair.type_ids.any()
    assert shown_by(ours, "the cat") == ["the", "ca", "t"]
    if splits:
        assert shown_by(ours, "\x01\x02the cat") == ["the", "ca", "t"]
    ours.save(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    auto = AutoTokenizer.from_pretrained(tmp_path)
    for text in HARD:
        assert auto(text, "of")["input_ids"] == ours.encode(text, "of").ids.tolist()


def shown_by(tokenizer: Tokenizer, text: str) -> list[str]:
    return [text[start:end] for start, end in inner(tokenizer.encode(text)) if start < end]


def test_the_configuration_overrules_tokenizer_json(tmp_path: Path) -> None:
    packaged("bert-base-cased").save(tmp_path)
    config = {
        "do_lower_case": True,
        "strip_accents": False,
        "model_max_length": 128,
        "tokenizer_class": "BertTokenizer",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    found = Tokenizer.from_directory(tmp_path)
    assert found.convert_ids_to_tokens(found.encode("THE café").ids)[1:-1] == ["the", "café"]
    assert found.model_max_length == 128


def test_add_prefix_space_makes_the_first_word_like_any_other(tmp_path: Path) -> None:
    packaged("roberta-base").save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"add_prefix_space": true}', encoding="utf-8")
    found = Tokenizer.from_directory(tmp_path)
    encoded = found.encode("cat sat")
    assert found.convert_ids_to_tokens(encoded.ids)[1:-1] == ["Ġcat", "Ġsat"]
    assert encoded.offsets[1:-1].tolist() == [[0, 3], [4, 7]]
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / name).is_file()
    (tmp_path / "tokenizer.json").unlink()
    assert same(Tokenizer.from_directory(tmp_path).encode("cat sat"), encoded)


def test_special_tokens_may_have_other_names(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("<nil>\n<?>\n<a>\n<z>\nthe\n", encoding="utf-8")
    names = {"pad_token": "<nil>", "unk_token": {"content": "<?>"}, "cls_token": "<a>", "sep_token": "<z>"}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(names), encoding="utf-8")
    found = Tokenizer.from_directory(tmp_path)
    assert found.encode("The cat").ids.tolist() == [2, 4, 1, 3]
    assert found.mask_id is None


# --- tokens beside the vocabulary file, and classes with rules of their own -------------------------------------


def older_files(name: str, tmp_path: Path, **files: Any) -> Path:
    """A packaged vocabulary in its older files alone, with JSON files beside it."""
    shutil.copytree(PACKAGED / name, tmp_path, dirs_exist_ok=True)
    for file, content in files.items():
        (tmp_path / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
    return tmp_path


FLAGS = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": True, "special": False}
DRUGS = "Take <drug> for COVID19 or covid19, <drug>."
ADDED: list[dict[str, Any]] = [
    {"added_tokens": {"covid19": 30523, "<drug>": 30522}},
    {"added_tokens": {"<drug>": 30522}, "special_tokens_map": {"additional_special_tokens": ["<drug>"]}},
    {
        "special_tokens_map": {
            "additional_special_tokens": [{"__type": "AddedToken", "content": "<drug>", "lstrip": True}, "covid19"]
        }
    },
    {"tokenizer_config": {"extra_special_tokens": ["<drug>"]}},
    {"tokenizer_config": {"additional_special_tokens": ["<drug>"]}},
    {
        "tokenizer_config": {
            "tokenizer_class": "BertTokenizer",
            "added_tokens_decoder": {
                "103": {"content": "[MASK]", **FLAGS, "special": True, "normalized": False},
                "30523": {"content": "covid19", **FLAGS, "single_word": True},
                "30522": {"content": "<drug>", **FLAGS, "rstrip": True, "special": True},
            },
        }
    },
]


@pytest.mark.parametrize("files", ADDED)
@pytest.mark.parametrize("saved", [False, True])
def test_added_tokens_get_the_ids_that_the_files_give_them(files: dict[str, Any], saved: bool, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    older_files("bert-base-uncased", tmp_path, config={"model_type": "bert"}, **files)
    ours, theirs = Tokenizer.from_directory(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    if saved:
        ours.save(tmp_path / "saved")
        theirs, ours = (one(tmp_path / "saved") for one in (AutoTokenizer.from_pretrained, Tokenizer.from_directory))
    encoded = ours.encode(DRUGS, "a <drug>")
    assert encoded.ids.tolist() == theirs(DRUGS, "a <drug>")["input_ids"]
    assert 30522 in encoded.ids
    places = [
        DRUGS[a:b].strip() for a, b in encoded.offsets[(encoded.ids == 30522) & (encoded.sequence_ids == 0)].tolist()
    ]
    assert places == ["<drug>", "<drug>"]
    if saved:  # who builds it from the older files gets the same
        (tmp_path / "saved" / "tokenizer.json").unlink()
        assert same(Tokenizer.from_directory(tmp_path / "saved").encode(DRUGS), ours.encode(DRUGS))


def test_tokens_beside_a_tokenizer_json_are_added_too(tmp_path: Path) -> None:
    packaged("bert-base-uncased").save(tmp_path)
    (tmp_path / "added_tokens.json").write_text('{"<drug>": 30522}', encoding="utf-8")
    found = Tokenizer.from_directory(tmp_path)
    assert found.encode("<drug>").ids.tolist() == [101, 30522, 102]
    assert found.vocab_size == 30_523


def test_special_tokens_may_be_among_the_added_ones(tmp_path: Path) -> None:
    vocabulary = {"a": 0, "b": 1, "ab": 2, "<unk>": 3}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("a b\n", encoding="utf-8")
    added = {"<s>": 4, "</s>": 5, "<pad>": 6, "<mask>": 7}
    (tmp_path / "added_tokens.json").write_text(json.dumps(added), encoding="utf-8")
    found = Tokenizer.from_directory(tmp_path)
    assert found.encode("ab<mask>").ids.tolist() == [4, 2, 7, 5]
    assert found.pad_id == 6


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"added_tokens": {"<drug>": 30530}}, r"'<drug>' has the id 30530, but the vocabulary ends before 30522"),
        ({"added_tokens": {"<drug>": 2000}}, r"'<drug>' has the id 2000, which is 'to''s"),
        ({"added_tokens": {"zebra": 30522}}, r"'zebra' has the id 30522, in the vocabulary 29145"),
        ({"added_tokens": {"<drug>": "30522"}}, r"added_tokens.json: '<drug>' has the id '30522', expected a whole"),
        ({"added_tokens": {"<drug>": True}}, r"added_tokens.json: '<drug>' has the id True"),
        ({"added_tokens": {"<a>": 30522, "<b>": 30522}}, r"'<b>' and '<a>' have the same id 30522"),
        ({"added_tokens": ["<drug>"]}, r"added_tokens.json: expected a JSON object"),
        ({"tokenizer_config": {"added_tokens_decoder": ["<drug>"]}}, r"added_tokens_decoder is \['<drug>'\]"),
        ({"tokenizer_config": {"added_tokens_decoder": {"x": {"content": "a"}}}}, r"expected an id and a token"),
        ({"tokenizer_config": {"added_tokens_decoder": {"1": {"content": 7}}}}, r"expected a token"),
        ({"tokenizer_config": {"additional_special_tokens": [7]}}, r"additional_special_tokens: found 7, expected a"),
        ({"tokenizer_config": {"mask_token": ["[MASK]"]}}, r"mask_token: found \['\[MASK\]'\], expected a token"),
        ({"tokenizer_config": {"model_max_length": "512"}}, r"model_max_length is '512', expected a number"),
        ({"tokenizer_config": {"do_lower_case": "false"}}, r"do_lower_case is 'false', expected true, false or null"),
    ],
)  # fmt: skip
def test_tokens_that_cannot_be_added_are_named(files: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_directory(older_files("bert-base-uncased", tmp_path, **files))


@pytest.mark.parametrize("fast", [False, True], ids=["older files", "tokenizer.json"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer_config": {"tokenizer_class": "BertJapaneseTokenizer"}}, "is a BertJapaneseTokenizer"),
        ({"config": {"tokenizer_class": "PhobertTokenizer"}}, "is a PhobertTokenizer, whose rules are not those of"),
        ({"config": {"tokenizer_class": "BertweetTokenizer"}}, "is a BertweetTokenizer"),
        ({"tokenizer_config": {"tokenizer_class": "KoBertTokenizer"}}, "is a KoBertTokenizer"),
        ({"tokenizer_config": {"tokenizer_class": ["CanineTokenizer", None]}}, "is a CanineTokenizer"),
        ({"tokenizer_config": {"word_tokenizer_type": "mecab"}}, "word_tokenizer_type is 'mecab', bothways computes"),
        ({"tokenizer_config": {"subword_tokenizer_type": "character"}}, "subword_tokenizer_type is 'character'"),
        ({"tokenizer_config": {"do_basic_tokenize": False}}, "do_basic_tokenize is False.*remove the key"),
        ({"tokenizer_config": {"wordpieces_prefix": "__"}}, "wordpieces_prefix is '__'"),
        ({"tokenizer_config": {"never_split": ["c++"]}}, "never_split has 'c\\+\\+', which is no token here"),
        ({"tokenizer_config": {"split_special_tokens": True}}, "split_special_tokens is True"),
    ],
)  # fmt: skip
def test_a_tokenizer_with_other_rules_is_refused(
    files: dict[str, Any], message: str, fast: bool, tmp_path: Path
) -> None:
    if fast:
        packaged("bert-base-uncased").save(tmp_path)
        (tmp_path / "tokenizer_config.json").unlink()  # what it names comes before config.json
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_directory(older_files("bert-base-uncased", tmp_path, **files))


def test_a_class_of_other_files_is_refused(tmp_path: Path) -> None:
    config = {"tokenizer_class": "T5Tokenizer"}  # rinna's Japanese RoBERTa
    with pytest.raises(CheckpointError, match=r"is a T5Tokenizer, whose rules are not those of spiece.model alone"):
        Tokenizer.from_directory(older_files("albert-base-v2", tmp_path / "a", tokenizer_config=config))
    folder = older_files("bert-base-uncased", tmp_path / "b")
    (folder / "bpe.codes").write_text("a b 1\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"the merges in bpe.codes belong to a PhobertTokenizer"):
        Tokenizer.from_directory(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"tokenizer_class": "BertTokenizerFast"},
        {"tokenizer_class": "DistilBertTokenizer", "do_basic_tokenize": True, "never_split": None},
        {"tokenizer_class": ["ElectraTokenizer", "ElectraTokenizerFast"], "never_split": ["[MASK]", "[UNK]"]},
        {"tokenize_chinese_chars": None, "strip_accents": None, "do_lower_case": None, "model_max_length": 1e30},
    ],
)  # fmt: skip
def test_the_usual_settings_are_accepted(config: dict[str, Any], tmp_path: Path) -> None:
    found = Tokenizer.from_directory(older_files("bert-base-uncased", tmp_path, tokenizer_config=config))
    assert found.encode("The café").ids.tolist() == [101, 1996, 7668, 102]


def test_a_fast_class_with_a_tokenizer_json_needs_no_other_file(tmp_path: Path) -> None:
    packaged("bert-base-uncased").save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "OurOwnTokenizerFast"}', encoding="utf-8")
    assert Tokenizer.from_directory(tmp_path).encode("the").ids.tolist() == [101, 1996, 102]


def test_the_highest_id_says_how_many_rows_are_needed() -> None:
    rules = json.loads(packaged("bert-base-uncased").backend.to_str())
    del rules["model"]["vocab"]["zebra"]
    backend = tokenizers.Tokenizer.from_str(json.dumps(rules))
    assert backend.get_vocab_size() == 30_521
    assert Tokenizer(backend).vocab_size == 30_522


def test_dropout_of_merges_is_not_obeyed(tmp_path: Path) -> None:
    packaged("roberta-base").save(tmp_path)
    rules = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    rules["model"]["dropout"] = 0.5
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")
    found = Tokenizer.from_directory(tmp_path)
    text = "tokenization of understandable nonsense"
    assert {tuple(found.encode(text).ids.tolist()) for _ in range(20)} == {
        tuple(packaged("roberta-base").encode(text).ids)
    }


def changed_json(**parts: Any) -> bytes:
    return json.dumps(json.loads(packaged("bert-base-uncased").backend.to_str()) | parts).encode()


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAA="}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "A" * 32}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "[z-a]"}, "content": ""}},
        {"model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}, "unk_token": "[X]",
                   "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}, "added_tokens": []},
        {"model": {"type": "Unigram", "unk_id": 7, "vocab": [["a", 0.0]], "byte_fallback": False}},
        {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
    ],
)  # fmt: skip
def test_a_tokenizer_json_that_breaks_the_library_is_named(parts: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"unreadable for tokenizers \d.*"):
        Tokenizer.from_directory(folder(tmp_path, tokenizer_json=changed_json(**parts)))


def test_an_interrupt_is_not_taken_for_a_broken_file() -> None:
    with pytest.raises(KeyboardInterrupt), library_errors("here"):
        raise KeyboardInterrupt


def test_words_that_the_vocabulary_cannot_spell_are_counted() -> None:
    bert = packaged("bert-base-uncased")
    assert bert.unknown_words([]) == (0, 0)
    assert bert.unknown_words(["", "  ", "[CLS] a cat"]) == (0, 3)
    assert bert.unknown_words(["\u0e01" * 120, "https://" + "a" * 200, "ᚠᚢᚦ. ok ᚠᚢᚦ"]) == (4, 5)
    assert packaged("roberta-base").unknown_words(["ᚠᚢᚦ " + "x" * 200]) == (0, 2)


@pytest.mark.parametrize("name", ["bert-base-uncased", "roberta-base", "albert-base-v2"])
@pytest.mark.parametrize(
    "text", ["\ud83d", "a\udc00b", "\x00", "a\x00b", "[PAD][PAD]", "<s><pad></s>", "[SEP] a [CLS]", "\ufeff"]
)
def test_odd_characters_and_written_specials_are_read(name: str, text: str) -> None:
    tokenizer = packaged(name)
    for window in tokenizer.windows([(text,), (text, "b"), ("b", text)], max_length=16, stride=2):
        assert (window.offsets >= 0).all()
        assert window.offsets.max() <= max(len(text), 1)
        assert window.ids.max() < tokenizer.vocab_size


# --- identity ----------------------------------------------------------------------------------------------


def test_a_saved_tokenizer_has_the_same_fingerprint(tmp_path: Path) -> None:
    for name in ("bert-base-uncased", "roberta-base", "albert-base-v2"):
        ours = packaged(name)
        ours.save(tmp_path / name)
        assert Tokenizer.from_directory(tmp_path / name).fingerprint() == ours.fingerprint()


@pytest.mark.parametrize("change", ["case", "accents", "swap", "score", "special", "layout"])
def test_another_tokenizer_has_another_fingerprint(change: str, tmp_path: Path) -> None:
    name = "albert-base-v2" if change == "score" else "bert-base-uncased"
    before = packaged(name)
    rules = json.loads(before.backend.to_str())
    vocab = rules["model"]["vocab"]
    if change == "case":
        rules["normalizer"]["lowercase"] = False
    if change == "accents":
        rules["normalizer"]["strip_accents"] = False
    if change == "swap":
        vocab["zebra"], vocab["lens"] = vocab["lens"], vocab["zebra"]
    if change == "score":
        vocab[20_000][1] -= 5
    if change == "special":
        rules["added_tokens"].append({**rules["added_tokens"][-1], "id": vocab["zebra"], "content": "zebra"})
    if change == "layout":
        rules["post_processor"]["pair"][-1]["SpecialToken"]["type_id"] = 0
    after = Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(rules)), before.config)
    assert after.fingerprint() != before.fingerprint()


# --- errors ------------------------------------------------------------------------------------------------


def folder(tmp_path: Path, **files: bytes) -> Path:
    for name, data in files.items():
        (tmp_path / name.replace("_", ".")).write_bytes(data)
    return tmp_path


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 231508\n"
SMALL = b"[PAD]\n[UNK]\n[CLS]\n[SEP]\nthe\n"
BPE = b'{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5, "ab": 6}'


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"vocab_txt": POINTER}, r"vocab.txt: found a git-lfs pointer instead of the file; run git lfs pull"),
        ({"tokenizer_json": POINTER}, r"tokenizer.json: found a git-lfs pointer"),
        ({"spiece_model": POINTER}, r"spiece.model: found a git-lfs pointer"),
        ({"vocab_json": BPE, "merges_txt": POINTER}, r"merges.txt: found a git-lfs pointer"),
        ({"vocab_json": BPE}, r"no merges.txt beside vocab.json"),
        ({}, r"no vocabulary here; looked for tokenizer.json, vocab.txt, vocab.json with merges.txt, spiece.model"),
        ({"vocab_txt": SMALL + b"the\n"}, r"vocab.txt:6: 'the' is on line 5 already"),
        ({"vocab_txt": b"[PAD]\nthe\n"}, r"vocab.txt: the vocabulary lacks .*\[UNK\].*\[CLS\].*\[SEP\]"),
        ({"vocab_txt": SMALL + b"caf\xe9\n"}, r"vocab.txt: not UTF-8 at byte 31"),
        ({"tokenizer_json": b'{"version": "1.0", "mod'}, r"tokenizer.json: unreadable for tokenizers \d"),
        ({"tokenizer_json": b'{"version": "1.0", "model": {"type": "New"}}'}, r"tokenizer.json: unreadable"),
        ({"spiece_model": b"\x0a\x0e"}, r"spiece.model: not a complete SentencePiece model"),
        ({"vocab_json": b"{", "merges_txt": b"a b\n"}, r"vocab.json:1: broken JSON"),
        ({"vocab_json": b"[]", "merges_txt": b"a b\n"}, r"vocab.json: expected a JSON object, found a list"),
        ({"vocab_json": b'{"a": 1}', "merges_txt": b"a b\n"}, r"vocab.json: the ids are not 0 to 0"),
        ({"vocab_json": BPE, "merges_txt": b"#version: 0.2\na c\n"}, r"merges.txt:2: 'a c' does not merge"),
        ({"vocab_json": BPE.replace(b"<s>", b"<t>"), "merges_txt": b"a b\n"}, r"lacks .*\[CLS\] or <s>"),
    ],
)  # fmt: skip
def test_damaged_vocabularies_are_named(files: dict[str, bytes], message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        Tokenizer.from_directory(folder(tmp_path, **files))


def test_a_small_byte_level_vocabulary_is_read(tmp_path: Path) -> None:
    found = Tokenizer.from_directory(folder(tmp_path, vocab_json=BPE, merges_txt=b"#version: 0.2\na b\n"))
    assert found.encode("ab").ids.tolist() == [0, 6, 2]


def test_windows_line_ends_are_read(tmp_path: Path) -> None:
    found = Tokenizer.from_directory(folder(tmp_path, vocab_txt=SMALL.replace(b"\n", b"\r\n")))
    assert found.encode("the").ids.tolist() == [2, 4, 3]


def test_a_sentencepiece_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    data = (PACKAGED / "albert-base-v2" / "spiece.model").read_bytes()
    spec = data.index(b"/usr/local") - 2  # the trainer's fields begin with the path of its input
    assert data[spec : spec + 1] == b"\x0a"
    field = data.index(b"\x18\x01", spec)
    (tmp_path / "spiece.model").write_bytes(data[:field] + b"\x18\x02" + data[field + 2 :])
    with pytest.raises(CheckpointError, match="only Unigram models"):
        Tokenizer.from_directory(tmp_path)


def test_a_template_out_of_order_is_refused(tmp_path: Path) -> None:
    shutil.copytree(PACKAGED / "bert-base-uncased", tmp_path, dirs_exist_ok=True)
    backend = packaged("bert-base-uncased").backend.from_str(packaged("bert-base-uncased").backend.to_str())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $B [SEP] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    with pytest.raises(CheckpointError, match="template does not show each text once and in order"):
        Tokenizer(backend)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFoundError, match="no packaged vocabulary 'bert'; there are albert-base-v2, bert-base"):
        Tokenizer.packaged("bert")


def test_an_id_outside_the_vocabulary_is_refused() -> None:
    for id in (-1, 30_522):
        with pytest.raises(OptionError, match=f"id {id} is not in this vocabulary of 30522 tokens"):
            packaged("bert-base-uncased").convert_ids_to_tokens([id])


@pytest.mark.parametrize(
    ("texts", "max_length", "stride", "message"),
    [
        (("a",), 2, 0, r"max_length=2 is too small; the minimum is 3"),
        (("a", "b"), 4, 0, r"max_length=4 is too small; the minimum is 5"),
        (("a",), 10, 8, r"stride=8 must be from 0 to 7 if max_length=10"),
        (("a",), 10, -1, r"stride=-1 must be"),
        (("a", "b"), 10, 6, r"stride=6 must be from 0 to 5 if max_length=10"),
    ],
)
def test_options_without_room_are_refused(texts: tuple[str, ...], max_length: int, stride: int, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        packaged("bert-base-uncased").windows([texts], max_length=max_length, stride=stride)


@pytest.mark.parametrize("texts", [(), ("a", "b", "c"), "ab"])
def test_an_example_has_one_text_or_two(texts: Any) -> None:
    with pytest.raises(DataError, match="example 1 is not a tuple of one or two texts: "):
        packaged("bert-base-uncased").windows([("a",), texts], max_length=8, stride=0)
