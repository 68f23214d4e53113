"""Train a vocabulary on plain text, read line by line, with the trainers of the `tokenizers` library."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import tokenizers
from tokenizers import Regex, normalizers, pre_tokenizers, trainers

from bothways.errors import DataError, OptionError
from bothways.progress import Reporter, clock
from bothways.text.backend import byte_level, unigram, wordpiece
from bothways.text.lines import numbered_lines, without_end
from bothways.text.tokenizer import Tokenizer

ALPHABET: Final = 1000  # number of characters that are always kept;
COVERAGE: Final = 0.9995  # more are kept to cover this share of the text, as in SentencePiece (for Chinese)
MIN_COUNT: Final = 2  # minimum count of a pair of tokens to merge
DIGITS: Final = 4  # decimals of log-probabilities
SPARE: Final = 1.1  # Unigram trains this many times `size` tokens, then keeps the best, as in SentencePiece
WHERE: Final = "the vocabulary to train"
FILES: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
OLDER_FILES: Final = ("vocab.txt", "vocab.json", "merges.txt", "spiece.model")


class Corpus(NamedTuple):
    """Text files with their number of lines, and `counts` of each character."""

    files: list[Path]
    lines: int
    counts: Counter[str]


class Algorithm(NamedTuple):
    """A training algorithm: its function, special tokens in order, default case, and older vocabulary files."""

    learn: Callable[[Corpus, int, Mapping[str, str], Mapping[str, Any]], tokenizers.Tokenizer]
    specials: Mapping[str, str]
    cased: bool
    files: tuple[str, ...]


def read_lines(path: str | Path) -> Iterator[str]:
    """Iterate over the lines of a UTF-8 text file (also .gz, .xz), without line ends.

    Only LF or CRLF ends a line. Raises DataError if the file does not exist, is damaged, or is not UTF-8 text.
    """
    for line, text in numbered_lines(str(path)):
        if "\0" in text:
            raise DataError(f"{path}:{line}: a NUL byte, as in binary files; expected plain text, saved as UTF-8")
        yield without_end(text)


def train_vocabulary(
    files: Sequence[str | Path],
    out: str | Path,
    *,
    algorithm: Literal["wordpiece", "bpe", "unigram"] = "wordpiece",
    size: int = 30522,
    cased: bool | None = None,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> Tokenizer:
    """Train a vocabulary of `size` tokens on plain text files and write it to the directory `out`.

    The rules are BERT's (wordpiece), RoBERTa's (bpe: byte-level, always cased) or ALBERT's (unigram). `cased` also
    keeps accents; None means the family's default. The files (also .gz, .xz) are read twice, line by line, so memory
    grows only with the number of distinct words. Training is deterministic, byte for byte (but see `_unigram`). If the
    text is too small for `size`, the vocabulary has fewer tokens, and a note reports it. `overwrite` replaces a
    vocabulary in `out`, but no other files.

    Raises DataError for text that cannot be read or is empty; OptionError if `size` is too small for special tokens
    and alphabet, if `out` is not empty, and for uncased bpe. Sources: Schuster and Nakajima 2012, Wu et al. 2016
    (WordPiece); Sennrich et al. 2016, Radford et al. 2019 (byte-level BPE); Kudo 2018 (Unigram).
    """
    reporter, out, began = reporter or Reporter(), Path(out), time.monotonic()
    if algorithm not in ALGORITHMS:
        raise OptionError(f"algorithm {algorithm!r} is not one of {', '.join(ALGORITHMS)}")
    learn, specials, usual, older_files = ALGORITHMS[algorithm]
    cased = usual if cased is None else cased
    if algorithm == "bpe" and not cased:
        raise OptionError("--uncased (cased=False) is not for bpe, which keeps text as it is; use wordpiece or unigram")
    _check_directory(out, overwrite=overwrite)
    corpus = _survey([Path(file) for file in ([files] if isinstance(files, str | Path) else files)])
    out.mkdir(parents=True, exist_ok=True)  # before training, to fail early
    text = f"{corpus.lines} lines ({corpus.counts.total()} characters)"
    reporter.say(f"training a vocabulary of {size} tokens ({algorithm}, {'cased' if cased else 'uncased'}) from {text}")
    names = {f"{role}_token": token for role, token in specials.items()}
    backend = learn(corpus, size, specials, names | {"do_lower_case": not cased, "keep_accents": cased})
    learned = Tokenizer(backend, names, where=str(out))
    learned.save(out)
    for name in {*FILES[2:], *OLDER_FILES} - set(older_files):  # files of the replaced vocabulary
        (out / name).unlink(missing_ok=True)
    reporter.say(f"{out}: {learned.vocab_size} tokens, trained in {clock(time.monotonic() - began)}")
    if learned.vocab_size < size:
        reporter.note(f"found {learned.vocab_size} tokens, wanted {size}: the corpus holds no more; give it more text")
    return learned


def _check_directory(out: Path, *, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file, expected a directory to write the vocabulary to")
    present = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    others = [name for name in present if name not in FILES + OLDER_FILES]
    if others:
        raise OptionError(f"{out} holds {others[0]}, which is not part of a vocabulary; choose another directory")
    if present and not overwrite:
        raise OptionError(f"{out} holds a vocabulary; choose another directory, or --overwrite to replace it")


def _survey(files: list[Path]) -> Corpus:
    lines, counts = 0, Counter[str]()
    for path in files:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise DataError(f"{path}: found a pipe or device, expected a file, as it is read twice; write it to one")
        for line in read_lines(path):
            lines += 1
            counts.update(line)
    if not any(one.isprintable() and not one.isspace() for one in counts):
        raise DataError(f"{', '.join(map(str, files)) or 'no file'}: no text to learn from; expected lines of words")
    return Corpus(files, lines, counts)


def _alphabet(corpus: Corpus, rules: normalizers.Normalizer) -> list[str]:
    """Return the normalized characters of the text, sorted, without the rare ones of a large alphabet."""
    seen = Counter[str]()
    for character, count in corpus.counts.items():
        # Single and doubled, because ALBERT's rules merge two quotes. Faster than normalizing all lines.
        for one in rules.normalize_str(f"{character} {character}{character}"):
            seen[one] += 0 if one.isspace() else count
    ranked = sorted(+seen, key=lambda one: (-seen[one], one))
    covered = accumulate(seen[one] for one in ranked)
    enough = max(ALPHABET, sum(share <= COVERAGE * seen.total() for share in covered))
    return sorted(ranked[:enough])


def _check_size(size: int, fixed: int) -> None:
    if size < fixed:
        found = f"the special tokens and the alphabet of this text alone take {fixed}"
        raise OptionError(f"size={size} is too small: {found}; choose at least that")


def _train(corpus: Corpus, backend: tokenizers.Tokenizer, trainer: trainers.Trainer) -> dict[str, Any]:
    """Train a model with the rules of `backend`; return it in the format of tokenizer.json."""
    backend.train_from_iterator(chain.from_iterable(map(read_lines, corpus.files)), trainer)
    return json.loads(backend.to_str())["model"]


def _numbered(tokens: Iterable[str]) -> dict[str, int]:
    return {token: id for id, token in enumerate(tokens)}


def _wordpiece(
    corpus: Corpus, size: int, specials: Mapping[str, str], config: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """Train WordPiece deterministically. By default, the trainer assigns ids to "##a" and "##b" in hash map order.

    It breaks ties by id, so its tokens differ between runs (huggingface/tokenizers issue 1794). Here all characters
    are passed as special tokens, with fixed ids, and the trainer adds none; any word of these can be spelled.
    """
    backend = wordpiece(_numbered(specials.values()), config, WHERE)
    alphabet = _alphabet(corpus, backend.normalizer)
    joined = {one: backend.normalizer.normalize_str(f"a{one}") for one in alphabet}
    inner = [one for one in alphabet if len(backend.pre_tokenizer.pre_tokenize_str(joined[one])) == 1]
    first = [*specials.values(), *alphabet, *(f"##{one}" for one in inner)]
    _check_size(size, len(first))
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=MIN_COUNT, special_tokens=first, limit_alphabet=0, show_progress=False
    )
    return wordpiece(_train(corpus, backend, trainer)["vocab"], config, WHERE)


def _bpe(corpus: Corpus, size: int, specials: Mapping[str, str], config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    *first, mask = specials.values()  # the mask comes last, as in RoBERTa
    backend = byte_level(_numbered(first), [], config, WHERE)  # a mask would be split off the text as one word
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _check_size(size, len(specials) + len(alphabet))
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        min_frequency=MIN_COUNT,
        special_tokens=first,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    model = _train(corpus, backend, trainer)
    merges = [(left, right) for left, right in model["merges"]]
    return byte_level(model["vocab"] | {mask: len(model["vocab"])}, merges, config, WHERE)


def _unigram(corpus: Corpus, size: int, specials: Mapping[str, str], config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Train Unigram deterministically. The trainer's log-probabilities differ between runs in their last digits.

    It sums in hash map order. Here it learns more tokens than needed, and the best are selected by rounded
    log-probability, then by spelling; the alphabet is always kept. A tie that the trainer breaks at random could
    still change the result; none has been seen.
    """
    reserved = [(token, 0.0) for token in specials.values()]
    unk_id = list(specials).index("unk")
    backend = unigram(reserved, unk_id, b"", config)
    alphabet = sorted({"▁", *_alphabet(corpus, backend.normalizer)})
    _check_size(size, len(specials) + len(alphabet))
    known = "".join(rf"\x{{{ord(one):x}}}" for one in alphabet)
    rare = normalizers.Replace(Regex(f"[^{known}]"), " ")
    backend.normalizer = normalizers.Sequence([backend.normalizer, rare])
    trainer = trainers.UnigramTrainer(vocab_size=int(SPARE * size), show_progress=False)
    found = dict(_train(corpus, backend, trainer)["vocab"])
    least = min(found.values(), default=0.0)
    # The trainer gives characters that longer tokens replace the minimum score plus steps of 0.0001 in random order.
    loose = least + 0.0001 * len(alphabet)
    scores = {one: found[one] if found.get(one, least) > loose else least for one in alphabet}
    # ALBERT's rules separate a number from a comma after it, so tokens of both are never used.
    longer = {token for token in found if len(token) > 1 and not re.search(r"\d,$", token)} - set(specials.values())
    best = sorted(longer, key=lambda token: (-round(found[token], DIGITS), token))
    scores |= {token: found[token] for token in best[: size - len(specials) - len(alphabet)]}
    rounded = [(token, round(score, DIGITS)) for token, score in scores.items()]
    return unigram([*reserved, *sorted(rounded, key=lambda one: (-one[1], one[0]))], unk_id, b"", config)


BERT: Final = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
ROBERTA: Final = {"cls": "<s>", "pad": "<pad>", "sep": "</s>", "unk": "<unk>", "mask": "<mask>"}
ALGORITHMS: Final = {
    "wordpiece": Algorithm(_wordpiece, BERT, False, ("vocab.txt",)),
    "bpe": Algorithm(_bpe, ROBERTA, True, ("vocab.json", "merges.txt")),
    "unigram": Algorithm(_unigram, BERT | {"pad": "<pad>", "unk": "<unk>"}, False, ()),
}
