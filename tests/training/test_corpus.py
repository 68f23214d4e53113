"""A corpus in shards: nothing lost, nothing twice, built once, resumed where it stopped, never silently another."""

import json
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from bothways.errors import CheckpointError, DataError
from bothways.text.tokenizer import Tokenizer
from bothways.training import corpus as module
from bothways.training.corpus import Corpus, open_corpus, sentences
from bothways.training.sequences import plan, windows

BERT = Tokenizer.packaged("bert-base-uncased")
ROBERTA = Tokenizer.packaged("roberta-base")


def documents(count: int, seed: int = 0) -> list[list[str]]:
    """Documents of paragraphs whose sentences name their document: "doc7 ..."."""
    rng = np.random.default_rng(seed)
    words = ["river", "house", "green", "walk", "old", "number", "seven", "story", "night", "under", "the", "of"]
    made = []
    for number in range(count):
        lines = []
        for _ in range(int(rng.integers(1, 6))):
            said = [" ".join(rng.choice(words, int(rng.integers(3, 25)))) for _ in range(int(rng.integers(1, 5)))]
            lines.append(" ".join(f"Document{number} {one}." for one in said))
        made.append(lines)
    return made


def write(path: Path, docs: list[list[str]]) -> Path:
    path.write_text("\n\n".join("\n".join(lines) for lines in docs) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def text(tmp_path) -> Path:
    return write(tmp_path / "corpus.txt", documents(150))


def all_ids(corpus: Corpus, part: str = "train") -> np.ndarray:
    return np.concatenate([corpus.text(number, part).ids for number in range(len(corpus.shards))])


def test_every_token_of_every_line_is_in_the_shards_and_every_hundredth_block_is_held_out(text, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_TOKENS", 2000)
    monkeypatch.setattr(module, "BLOCKS_AT_ONCE", 8)
    corpus = open_corpus([text], BERT, tmp_path / "shards")
    assert len(corpus.shards) > 2
    whole = Counter(BERT.encode(text.read_text()).ids[1:-1].tolist())
    assert Counter(all_ids(corpus).tolist()) + Counter(all_ids(corpus, "dev").tolist()) == whole
    assert corpus.documents == 150
    assert corpus.tokens == len(all_ids(corpus))
    held = BERT.backend.decode(all_ids(corpus, "dev").tolist())
    assert {word for word in held.split() if word.startswith("document")} == {"document9", "document109"}


def test_shards_are_the_same_however_the_files_are_packed(text, tmp_path):
    packed = tmp_path / "corpus.txt.xz"
    packed.write_bytes(lzma.compress(text.read_bytes()))
    plain, other = (open_corpus([path], BERT, tmp_path / path.suffix) for path in (text, packed))
    assert np.array_equal(all_ids(plain), all_ids(other))


def test_a_second_opening_cuts_nothing(text, tmp_path, monkeypatch):
    open_corpus([text], BERT, tmp_path / "shards")

    def no(*_: object) -> None:
        raise AssertionError("built again")

    monkeypatch.setattr(module, "_build", no)
    open_corpus([text], BERT, tmp_path / "shards")


def test_an_interrupted_build_goes_on_and_ends_with_the_same_files(text, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD_TOKENS", 1000)
    monkeypatch.setattr(module, "BLOCKS_AT_ONCE", 8)
    open_corpus([text], BERT, tmp_path / "whole")
    written = module._write_shard

    def stop_at_third(directory, manifest, *rest):
        if len(manifest["shards"]) == 2:
            raise KeyboardInterrupt
        written(directory, manifest, *rest)

    monkeypatch.setattr(module, "_write_shard", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        open_corpus([text], BERT, tmp_path / "parts")
    monkeypatch.setattr(module, "_write_shard", written)
    open_corpus([text], BERT, tmp_path / "parts")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "parts").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name


def test_pairs_read_every_token_once_and_half_of_them_follow(tmp_path):
    docs = documents(150)
    corpus = open_corpus([write(tmp_path / "a.txt", docs)], BERT, tmp_path / "shards")
    found = plan(corpus, "train", [0], room=61, pairs=True, seed=(0,))
    rows = found.rows
    assert abs(rows[:, 6].mean() - 0.5) < 0.01
    seen = np.zeros(corpus.tokens, int)
    for _, start, end, _, start2, end2, _ in rows.tolist():
        assert end > start
        assert end2 > start2
        assert end - start + end2 - start2 <= 61
        seen[start:end] += 1
        seen[start2:end2] += 1
    assert seen.max() == 1
    assert (seen == 0).mean() < 0.01  # ends of exchanged segments that did not fit, single last tokens
    lengths = rows[:, 2] - rows[:, 1] + rows[:, 5] - rows[:, 4]
    assert 0.02 < (lengths < 20).mean() < 0.4


def test_an_exchanged_segment_is_of_another_document_and_a_true_one_follows(tmp_path):
    corpus = open_corpus([write(tmp_path / "a.txt", documents(80))], BERT, tmp_path / "shards")
    for seed in range(5):
        found = plan(corpus, "train", [0], room=40, pairs=True, seed=(seed,))
        text = found.texts[0]
        for _, _, end, _, start2, _, label in found.rows.tolist():
            owners = [text.documents[np.searchsorted(text.ends, place, side="right")] for place in (end - 1, start2)]
            assert (owners[0] == owners[1]) == (label == 0)
            assert label or start2 == end


def test_two_documents_of_which_one_is_most_still_make_pairs(tmp_path):
    docs = [documents(1)[0] * 50, ["Another document. It has two sentences and no more than that."]]
    corpus = open_corpus([write(tmp_path / "a.txt", docs)], BERT, tmp_path / "shards")
    found = plan(corpus, "train", [0], room=30, pairs=True, seed=(0,))
    exchanged = found.rows[found.rows[:, 6] == 1]
    assert 2 <= len(exchanged) < len(found) // 2  # as many as the short document has segments for, and no more
    owners = found.texts[0].documents[np.searchsorted(found.texts[0].ends, exchanged[:, [1, 4]], side="right")]
    assert (owners[:, 0] != owners[:, 1]).all()
    assert len(set(exchanged[:, 4].tolist())) == len(exchanged)


def test_pairs_of_one_document_all_follow(tmp_path):
    corpus = open_corpus([write(tmp_path / "a.txt", documents(1))], BERT, tmp_path / "shards")
    assert not plan(corpus, "train", [0], room=30, pairs=True, seed=(0,)).rows[:, 6].any()
    assert len(plan(corpus, "train", [0], room=30, pairs=False, seed=(0,)))


def test_nine_pairs_in_ten_are_as_long_as_fits(tmp_path):
    """In one long document of short sentences, where nothing else limits them."""
    lines = [[f"Sentence {number} is short." for number in range(4000)]]
    corpus = open_corpus([write(tmp_path / "a.txt", lines)], BERT, tmp_path / "shards")
    rows = plan(corpus, "train", [0], room=61, pairs=True, seed=(0,)).rows
    lengths = rows[:, 5] - rows[:, 4] + rows[:, 2] - rows[:, 1]
    assert (lengths > 54).mean() == pytest.approx(0.9, abs=0.05)


def test_the_first_word_of_a_line_has_its_space_for_vocabularies_of_bytes(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("The old river.\nOld houses. Old men.\n\nOld again.\n")
    ids = all_ids(open_corpus([path], ROBERTA, tmp_path / "shards"))
    assert ROBERTA.convert_ids_to_tokens(ids)[4] == "ĠOld"
    assert ROBERTA.convert_ids_to_tokens(ids).count("ĠOld") == 2


@pytest.mark.parametrize("tokenizer", [BERT, ROBERTA], ids=["bert", "roberta"])
def test_full_sentences_fill_the_window_with_a_separator_between_documents(tmp_path, tokenizer):
    corpus = open_corpus([write(tmp_path / "a.txt", documents(120))], tokenizer, tmp_path / "shards")
    found = plan(corpus, "train", [0], room=62, pairs=False, seed=(0,))
    made = windows(found, np.arange(len(found)), tokenizer, pairs=False)
    text = found.texts[0]
    changes = sum(int((np.diff(text.documents) != 0).sum()) for _ in (0,))
    inner = sum(int((window.ids[1:-1] == tokenizer.sep_id).sum()) for window in made)
    at_edges = sum(
        text.documents[np.searchsorted(text.ends, end - 1, side="right")]
        != text.documents[min(np.searchsorted(text.ends, end, side="right"), len(text.ends) - 1)]
        for _, _, end, *_ in found.rows.tolist()
    )
    assert inner == changes - at_edges
    assert max(len(window.ids) for window in made) <= 64
    assert np.mean([len(window.ids) for window in made]) > 48
    starts = found.rows[np.argsort(found.rows[:, 1])]
    assert starts[0, 1] == 0
    assert (starts[1:, 1] == starts[:-1, 2]).all()
    assert starts[-1, 2] == corpus.tokens


def test_pairs_look_as_in_the_paper(tmp_path):
    corpus = open_corpus([write(tmp_path / "a.txt", documents(60))], BERT, tmp_path / "shards")
    found = plan(corpus, "train", [0], room=29, pairs=True, seed=(0,))
    for window in windows(found, np.arange(len(found)), BERT, pairs=True):
        assert window.ids[0] == BERT.cls_id
        ends = np.flatnonzero(window.ids == BERT.sep_id)
        assert len(ends) == 2
        assert ends[1] == len(window.ids) - 1
        assert window.type_ids.tolist() == [0] * (ends[0] + 1) + [1] * (len(window.ids) - ends[0] - 1)


@pytest.mark.parametrize(
    ("line", "parts"),
    [
        ("One sentence.", ["One sentence."]),
        ("It cost $3.50. He paid.", ["It cost $3.50.", " He paid."]),
        ('"Why?" she said. "No!" He left.', ['"Why?" she said.', ' "No!"', " He left."]),
        ("no capital. here", ["no capital. here"]),
        ("你好。再见！", ["你好。", "再见！"]),
        ("  ", []),
    ],
)
def test_sentences(line, parts):
    assert sentences(line) == parts


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "00000.train.ids.npy").write_bytes(b"short"), "has 5 bytes, manifest.json lists"),
        (lambda folder: (folder / "00000.dev.ends.npy").unlink(), "is not there, manifest.json lists"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json: damaged"),
        (lambda folder: (folder / "manifest.json").write_text(json.dumps({"shards": 3})), "manifest.json: damaged"),
    ],
)
def test_damaged_shards_are_refused(text, tmp_path, spoil, message):
    open_corpus([text], BERT, tmp_path / "shards")
    spoil(tmp_path / "shards")
    with pytest.raises(CheckpointError, match=message):
        open_corpus([text], BERT, tmp_path / "shards")


def test_another_corpus_or_vocabulary_is_refused(text, tmp_path):
    open_corpus([text], BERT, tmp_path / "shards")
    with pytest.raises(CheckpointError, match="made with a different vocabulary;"):
        open_corpus([text], ROBERTA, tmp_path / "shards")
    text.write_text("Something else.\n\nAnd more.\n")
    with pytest.raises(CheckpointError, match="made with a different corpus;"):
        open_corpus([text], BERT, tmp_path / "shards")


@pytest.mark.parametrize("content", [b"", b"\n\n  \n\n"])
def test_an_empty_corpus_is_refused(tmp_path, content):
    path = tmp_path / "empty.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match="no text to train on"):
        open_corpus([path], BERT, tmp_path / "shards")


def test_files_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(DataError, match="expected a text file"):
        open_corpus([tmp_path / "none.txt"], BERT, tmp_path / "shards")
    binary = tmp_path / "binary.txt"
    binary.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(DataError, match=r"binary\.txt:1"):
        open_corpus([binary], BERT, tmp_path / "shards")
