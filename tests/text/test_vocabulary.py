"""Learned vocabularies: what they hold, that all load them alike, that chance has no part in them, and every error."""

import gzip
import io
import json
import lzma
import os
import re
from pathlib import Path
from typing import Any

import pytest

from bothways.errors import DataError, OptionError
from bothways.progress import Reporter
from bothways.text import vocabulary as learn
from bothways.text.tokenizer import Tokenizer
from bothways.text.vocabulary import read_lines, train_vocabulary

HARD = (
    "",
    " ",
    "  Leading, doubled  and trailing space  ",
    "Naïve café, Ångström, İstanbul, straße, cafe\u0301 x\u0301.",
    "👨‍👩‍👧‍👦 and 🇩🇪, 👍🏽, ☺\ufe0f, 1\ufe0f\u20e3",
    "中文 and 日本語ｶﾞ, 한국어, 각, हिन्दी, مَرْحَبًا",
    "tab\tno-break\u00a0wide\u3000line\u2028end \x01control\u200b\u00ad",
    'The U.S. Army\'s "well-known" (third) unit paid £5–10 in 2010, 1,000 men in 1999,',
    "``quoted'' words '''' ﬁne ½ Ⅷ ㎏ … “q”",
    "Paris is the [MASK] of France, <mask> too; [CLS] a [SEP] b </s> c <s> <pad> [UNK] <unk> [PAD]",
    "[PAD] [PAD] [PAD] <s> <s> <s> <mask> <mask>",
    "pneumonoultramicroscopicsilicovolcanoconiosis " + "x" * 120,
    "\U0010ffff\ue000\u0378",
)
STORY = (
    "The old fisherman rowed the boat across the lake before the sun rose over the hills.",
    "He fished in the cold water, and the fishes swam away from the fishing boat.",
    "She walked the longer road, walking slowly, and talked of the weather in 1,000 words.",
    "Nobody knew whether the weather would hold; everybody hoped that it would.",
)
TEXT = "\n".join((STORY + HARD) * 3) + "\n"
SIZES = {"wordpiece": 420, "bpe": 400, "unigram": 200}
CASES = [("wordpiece", False), ("wordpiece", True), ("bpe", True), ("unigram", False), ("unigram", True)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text(TEXT, encoding="utf-8", newline="")
    return path


@pytest.fixture(scope="module")
def learned(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    folders = {}
    for kind, cased in CASES:
        folders[kind, cased] = out = tmp_path_factory.mktemp("learned") / "new" / f"{kind}-{cased}"
        train_vocabulary([corpus], out, algorithm=kind, size=SIZES[kind], cased=cased)  # type: ignore[arg-type]
    return folders


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def tokens(tokenizer: Tokenizer, text: str) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer.encode(text).ids)[1:-1]


# --- what is learned ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_a_learned_vocabulary_gives_transformers_the_same_ids(case: Any, learned: Any) -> None:
    from transformers import AutoTokenizer

    ours, auto = Tokenizer.from_directory(learned[case]), AutoTokenizer.from_pretrained(learned[case])
    assert type(auto).__name__.startswith({"wordpiece": "Bert", "bpe": "Roberta", "unigram": "Albert"}[case[0]])
    for text in HARD + STORY:
        for texts in ((text,), ("The boat", text)) if text else ((text,),):  # transformers takes an empty one for none
            expected, found = auto(*texts, return_token_type_ids=True), ours.encode(*texts)
            assert found.ids.tolist() == expected["input_ids"]
            assert found.type_ids.tolist() == expected["token_type_ids"]
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(auto, f"{role}_token_id") == getattr(ours, f"{role}_id")
    assert len(auto) == ours.vocab_size


@pytest.mark.parametrize("case", CASES)
def test_what_is_returned_is_what_is_written(case: Any, corpus: Path, learned: Any, tmp_path: Path) -> None:
    kind, cased = case
    returned = train_vocabulary(str(corpus), tmp_path / "again", algorithm=kind, size=SIZES[kind], cased=cased)
    loaded = Tokenizer.from_directory(learned[case])
    assert loaded.backend.to_str() == returned.backend.to_str()
    assert loaded.specials == returned.specials


@pytest.mark.parametrize("case", CASES)
def test_special_tokens_have_the_ids_of_their_family(case: Any, learned: Any) -> None:
    bert = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    roberta = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": SIZES["bpe"] - 1}
    albert = {"<pad>": 0, "<unk>": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}
    found = dict(Tokenizer.from_directory(learned[case]).specials.values())
    assert found == {"wordpiece": bert, "bpe": roberta, "unigram": albert}[case[0]]


@pytest.mark.parametrize("case", CASES)
def test_the_vocabulary_has_the_size_that_was_asked_for(case: Any, learned: Any) -> None:
    vocabulary = Tokenizer.from_directory(learned[case]).backend.get_vocab()
    assert sorted(vocabulary.values()) == list(range(SIZES[case[0]]))


def test_only_the_older_files_of_the_family_stand_beside_it(learned: Any) -> None:
    both = {"tokenizer.json", "tokenizer_config.json"}
    older = {"wordpiece": {"vocab.txt"}, "bpe": {"vocab.json", "merges.txt"}, "unigram": set()}
    for (kind, _), folder in learned.items():
        assert set(contents(folder)) == both | older[kind]


def test_frequent_words_are_whole_and_rare_ones_are_cut(learned: Any) -> None:
    bert = Tokenizer.from_directory(learned["wordpiece", False])
    assert tokens(bert, "The boat") == ["the", "boat"]
    assert len(tokens(bert, "thes")) > 1
    roberta = Tokenizer.from_directory(learned["bpe", True])
    assert tokens(roberta, "of the boat")[-2:] == ["Ġthe", "Ġboat"]
    albert = Tokenizer.from_directory(learned["unigram", False])
    assert tokens(albert, "of the boat")[-1] == "▁boat"


def test_case_is_the_kinds_own_where_nothing_is_said(corpus: Path, tmp_path: Path) -> None:
    lower = {
        kind: tokens(train_vocabulary([corpus], tmp_path / kind, algorithm=kind, size=size), "The")  # type: ignore[arg-type]
        == tokens(Tokenizer.from_directory(tmp_path / kind), "the")
        for kind, size in SIZES.items()
    }
    assert lower == {"wordpiece": True, "bpe": False, "unigram": True}


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_uncased_drops_case_and_accents_and_cased_keeps_both(kind: str, learned: Any) -> None:
    uncased, cased = (Tokenizer.from_directory(learned[kind, case]) for case in (False, True))
    assert tokens(uncased, "CAFÉ") == tokens(uncased, "cafe")
    assert tokens(cased, "Café") != tokens(cased, "café") != tokens(cased, "cafe")
    assert "é" in "".join(tokens(cased, "café"))


def test_any_word_of_known_letters_can_be_spelled(learned: Any) -> None:
    for cased in (False, True):
        bert = Tokenizer.from_directory(learned["wordpiece", cased])
        assert "[UNK]" not in tokens(bert, "wkhtbvo oyvqwk Thfo xywf-01290 中本文")


def test_bytes_leave_nothing_unknown(learned: Any) -> None:
    roberta = Tokenizer.from_directory(learned["bpe", True])
    assert roberta.unk_id not in roberta.encode("never seen: ჟ 🦉 \x7f").ids.tolist()


def test_what_a_text_says_of_special_tokens_is_not_learned(learned: Any) -> None:
    for case, folder in learned.items():
        vocabulary = list(Tokenizer.from_directory(folder).backend.get_vocab())
        named = {"[PAD]", "[UNK]", "<pad>", "<s>", "<mask>", "[CLS]", "[SEP]", "[MASK]"} & set(vocabulary)
        assert named <= {token for token, _ in Tokenizer.from_directory(folder).specials.values()}, case


def test_a_unigram_keeps_numbers_from_their_commas_without_spending_tokens_on_both(learned: Any) -> None:
    albert = Tokenizer.from_directory(learned["unigram", False])
    assert not [token for token in albert.backend.get_vocab() if token[-1] == "," and token[-2:-1].isdigit()]


def test_two_quotes_that_become_one_are_known(tmp_path: Path) -> None:
    text = write(tmp_path / "text.txt", "``so'' she said, ``so be it''\n" * 3)
    albert = train_vocabulary([text], tmp_path / "out", algorithm="unigram", size=60)
    assert albert.unk_id not in albert.encode("``so''").ids.tolist()


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_rare_characters_are_left_out_of_a_large_alphabet(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learn, "ALPHABET", 8)
    text = write(tmp_path / "text.txt", "abcd dcba bcda\n" * 1000 + "abcd xyab ☃☃\n")
    found = train_vocabulary([text], tmp_path / "rare", algorithm=kind, size=40)
    assert {"x", "y"} <= set("".join(found.backend.get_vocab()))
    monkeypatch.setattr(learn, "ALPHABET", 1)
    found = train_vocabulary([text], tmp_path / "most", algorithm=kind, size=40)
    assert set("".join(found.backend.get_vocab())) & set("bxy☃") == {"b"}
    assert found.unk_id in found.encode("abcd ☃").ids.tolist()


# --- chance ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_the_same_text_gives_the_same_bytes(case: Any, corpus: Path, learned: Any, tmp_path: Path) -> None:
    kind, cased = case
    for n in range(4):
        train_vocabulary([corpus], tmp_path / str(n), algorithm=kind, size=SIZES[kind], cased=cased)
        assert contents(tmp_path / str(n)) == contents(learned[case])


@pytest.mark.parametrize("suffix", [".txt.gz", ".XZ"])
def test_packed_text_and_text_in_parts_give_the_same_vocabulary(suffix: str, learned: Any, tmp_path: Path) -> None:
    lines = TEXT.splitlines(keepends=True)
    middle = len(lines) // 2
    pack = gzip.compress if suffix == ".txt.gz" else lzma.compress
    parts = [
        write(tmp_path / f"a{suffix}", pack("".join(lines[:middle]).encode())),
        write(tmp_path / "b", "\ufeff" + "".join(lines[middle:])),
    ]
    train_vocabulary(parts, tmp_path / "out", algorithm="bpe", size=SIZES["bpe"])
    assert contents(tmp_path / "out") == contents(learned["bpe", True])


# --- what the user sees ------------------------------------------------------------------------------------


def test_notes_tell_what_is_read_and_found_and_nothing_else_is_printed(
    corpus: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = io.StringIO()
    train_vocabulary([corpus], tmp_path / "out", size=420, reporter=Reporter(stream=told))
    train_vocabulary([corpus], tmp_path / "quiet", size=420)
    characters = len(TEXT) - TEXT.count("\n")
    first, last = told.getvalue().splitlines()
    assert first == (
        "training a vocabulary of 420 tokens (wordpiece, uncased) from "
        f"{TEXT.count(chr(10))} lines ({characters} characters)"
    )
    assert last.startswith(f"{tmp_path / 'out'}: 420 tokens, trained in ")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", SIZES)
def test_a_text_that_is_too_small_gives_fewer_tokens_and_says_so(kind: Any, tmp_path: Path) -> None:
    told, text = io.StringIO(), write(tmp_path / "text.txt", "the cat saw the cat\n" * 3)
    found = train_vocabulary([text], tmp_path / "out", algorithm=kind, size=5000, reporter=Reporter(stream=told))
    assert found.vocab_size < 5000
    assert f"found {found.vocab_size} tokens, wanted 5000: the corpus holds no more" in told.getvalue()


# --- directories -------------------------------------------------------------------------------------------


def test_overwriting_leaves_nothing_of_the_vocabulary_before(corpus: Path, learned: Any, tmp_path: Path) -> None:
    train_vocabulary([corpus], tmp_path / "out", algorithm="bpe", size=SIZES["bpe"])
    write(tmp_path / "out" / "special_tokens_map.json", json.dumps({"cls_token": "<s>"}))
    train_vocabulary([corpus], tmp_path / "out", size=SIZES["wordpiece"], overwrite=True)
    assert contents(tmp_path / "out") == contents(learned["wordpiece", False])


@pytest.mark.parametrize(
    ("name", "overwrite", "message"),
    [
        ("model.safetensors", False, r"out holds model.safetensors, which is not part of a vocabulary; choose another"),
        ("model.safetensors", True, r"out holds model.safetensors, which is not part of a vocabulary; choose another"),
        ("vocab.txt", False, r"out holds a vocabulary; choose another directory, or --overwrite to replace it"),
    ],
)
def test_a_directory_in_use_stays_as_it_is(
    name: str, overwrite: bool, message: str, corpus: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    write(out / name, "mine")
    with pytest.raises(OptionError, match=message):
        train_vocabulary([corpus], out, size=SIZES["wordpiece"], overwrite=overwrite)
    assert contents(out) == {name: b"mine"}


def test_a_file_is_no_directory(corpus: Path) -> None:
    with pytest.raises(OptionError, match=r"text.txt is a file, expected a directory to write the vocabulary to"):
        train_vocabulary([corpus], corpus)


# --- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SIZES)
def test_the_least_size_is_named_and_is_enough(kind: Any, corpus: Path, tmp_path: Path) -> None:
    told = (
        r"size=9 is too small: the special tokens and the alphabet of this text alone take (\d+); choose at least that"
    )
    with pytest.raises(OptionError, match=told) as error:
        train_vocabulary([corpus], tmp_path / "out", algorithm=kind, size=9)
    least = int(re.findall(r"\d+", str(error.value))[-1])
    assert train_vocabulary([corpus], tmp_path / "out", algorithm=kind, size=least).vocab_size == least
    with pytest.raises(OptionError, match=f"size={least - 1} is too small"):
        train_vocabulary([corpus], tmp_path / "other", algorithm=kind, size=least - 1)


def test_bytes_are_always_cased(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--uncased \(cased=False\) is not for bpe, which keeps text as it is"):
        train_vocabulary([corpus], tmp_path, algorithm="bpe", cased=False)


def test_an_unknown_kind_lists_the_known_ones(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="algorithm 'word' is not one of wordpiece, bpe, unigram"):
        train_vocabulary([corpus], tmp_path, algorithm="word")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "\n \n\t\n", "\u200b\x01\n"])
def test_there_must_be_text(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"text.txt: no text to learn from; expected lines of words"):
        train_vocabulary([write(tmp_path / "text.txt", text)], tmp_path / "out")
    with pytest.raises(DataError, match=r"no file: no text to learn from"):
        train_vocabulary([], tmp_path / "out")


def test_a_pipe_cannot_be_read_twice(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match=r"pipe: found a pipe or device, expected a file, as it is read twice"):
        train_vocabulary([tmp_path / "pipe"], tmp_path / "out")


# --- reading -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "pack"), [("", bytes), (".gz", gzip.compress), (".GZ", gzip.compress), (".Xz", lzma.compress)]
)
def test_lines_come_without_their_ends(suffix: str, pack: Any, tmp_path: Path) -> None:
    text = "\ufefffirst\r\n\n  third é\u2028still third\rtoo\n\ufefflast 👍"
    path = write(tmp_path / f"text{suffix}", pack(text.encode()))
    assert list(read_lines(path)) == ["first", "", "  third é\u2028still third\rtoo", "\ufefflast 👍"]
    assert list(read_lines(str(path))) == list(read_lines(path))


def test_lines_come_one_by_one(tmp_path: Path) -> None:
    lines = read_lines(write(tmp_path / "text.txt", b"good\n\xff\n"))
    assert next(lines) == "good"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"a\ncaf\xe9\n", r"a.txt:2: byte 0xe9 is not UTF-8; save the file as UTF-8"),
        ("a.txt", b"a\n\nab\0c\n", r"a.txt:3: a NUL byte, as in binary files; expected plain text, saved as UTF-8"),
        ("a.txt", "ab\n".encode("utf-16"), r"a.txt:1: found UTF-16, expected UTF-8"),
        ("a.txt", "ab\n".encode("utf-16-le"), r"a.txt:1: mostly NUL bytes, as in UTF-16; save the file as UTF-8"),
        ("a.gz", gzip.compress(b"a\n" * 100, mtime=0)[:-9], r"a.gz: damaged or cut off .*; fetch or compress it again"),
        ("a.xz", lzma.compress(b"a\n" * 100)[:-9], r"a.xz: damaged or cut off .*; fetch or compress it again"),
        ("a.gz", b"plain\n", r"a.gz: damaged or cut off .*; fetch or compress it again"),
        ("a.gz", gzip.compress(b"a\nb\xff\n", mtime=0), r"a.gz:2: byte 0xff is not UTF-8"),
    ],
)
def test_what_is_no_text_is_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        list(read_lines(write(tmp_path / name, content)))
    with pytest.raises(DataError, match=message):
        train_vocabulary([tmp_path / name], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_wrong_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none.txt: No such file or directory; expected a readable file \(current directory: "
    ):
        list(read_lines(tmp_path / "none.txt"))
    with pytest.raises(DataError, match=r"Is a directory; expected a readable file"):
        list(read_lines(tmp_path))
