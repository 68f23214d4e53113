"""Builds the Rust library's tokenizer of each family from its vocabulary files."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bothways.errors import CheckpointError
from bothways.text.spiece import UNIGRAM, UNKNOWN, read_spiece

USUAL: Final = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}
"""What each special piece is called where the configuration does not say."""

FILES: Final = "tokenizer.json, vocab.txt, vocab.json with merges.txt, spiece.model"


def load_backend(directory: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Loads tokenizer.json, or else builds the tokenizer from the vocabulary files of its family.

    `config` is tokenizer_config.json. Raises CheckpointError if no vocabulary is there or it is damaged.
    """
    if (path := directory / "tokenizer.json").is_file():
        try:
            backend = tokenizers.Tokenizer.from_file(str(path))
        except Exception as problem:  # the only class that the Rust library raises
            raise CheckpointError(
                f"{path}: unreadable for tokenizers {tokenizers.__version__} ({problem}); copy it, or upgrade"
            ) from problem
        return _overrule(backend, config)
    if (path := directory / "vocab.txt").is_file():
        return _read_wordpiece(path, config)
    if (path := directory / "vocab.json").is_file() and (merges := directory / "merges.txt").is_file():
        return _read_byte_level(path, merges, config)
    if (path := directory / "spiece.model").is_file():
        return _read_unigram(path, config)
    raise CheckpointError(f"{directory}: no vocabulary here; looked for {FILES}")


def _overrule(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Where tokenizer_config.json and tokenizer.json disagree the former holds, as in `transformers`."""
    rules = backend.normalizer
    if isinstance(rules, normalizers.BertNormalizer):
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=rules.clean_text,
            handle_chinese_chars=config.get("tokenize_chinese_chars", rules.handle_chinese_chars),
            strip_accents=config.get("strip_accents", rules.strip_accents),
            lowercase=config.get("do_lower_case", rules.lowercase),
        )
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel) and "add_prefix_space" in config:
        backend.pre_tokenizer.add_prefix_space = config["add_prefix_space"]
        if isinstance(backend.post_processor, processors.RobertaProcessing):
            backend.post_processor.add_prefix_space = config["add_prefix_space"]
    return backend


def special_pieces(
    config: Mapping[str, Any], find: Callable[[str], int | None], where: str
) -> dict[str, tuple[str, int]]:
    """Each role's special piece and id: as the config names it, else the first usual name that `find` knows.

    Raises CheckpointError, beginning with `where`, if one other than "mask" is missing.
    """
    found: dict[str, tuple[str, int]] = {}
    missing = []
    for role, usual in USUAL.items():
        named = config.get(f"{role}_token")
        named = named["content"] if isinstance(named, dict) else named
        names = (named,) if named else usual
        known = [(name, id) for name in names if (id := find(name)) is not None]
        if known:
            found[role] = known[0]
        elif role != "mask":
            missing.append(" or ".join(names))
    if missing:
        raise CheckpointError(f"{where}: the vocabulary lacks the special pieces {', '.join(missing)}")
    return found


def wordpiece(vocabulary: dict[str, int], config: Mapping[str, Any], where: str) -> tokenizers.Tokenizer:
    """BERT's rules around a vocabulary; where the config lacks `do_lower_case`, the pieces tell the case."""
    unk, _ = special_pieces(config, vocabulary.get, where)["unk"]
    cased = any(piece != piece.lower() for piece in vocabulary if not re.fullmatch(r"\[.+\]", piece))
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", not cased),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    return backend


def byte_level(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], config: Mapping[str, Any], where: str
) -> tokenizers.Tokenizer:
    """RoBERTa's rules around a byte-level BPE: `<s> A </s></s> B </s>`; a mask takes the space before it."""
    specials = special_pieces(config, vocabulary.get, where)
    spaced = bool(config.get("add_prefix_space", False))
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(specials["sep"], specials["cls"], True, spaced)
    if "mask" in specials:
        backend.add_special_tokens([AddedToken(specials["mask"][0], lstrip=True, special=True)])
    return backend


def unigram(
    scored: list[tuple[str, float]], unk_id: int, charsmap: bytes, config: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """ALBERT's rules around a Unigram vocabulary of (piece, log-probability).

    As in Google's ALBERT a number and the comma behind it stay apart: the pieces that join them lose 100.
    """
    scored = [(piece, score - 100 * bool(re.search(r"\d,$", piece))) for piece, score in scored]
    backend = tokenizers.Tokenizer(models.Unigram(scored, unk_id, False))
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not config.get("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if config.get("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    if charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    backend.normalizer = normalizers.Sequence(steps)
    splitters = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splitters)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return backend


def template(cls: tuple[str, int], sep: tuple[str, int]) -> processors.TemplateProcessing:
    """BERT's layout, `[CLS] A [SEP] B [SEP]` of types 0 and 1, or RoBERTa's if the first is called `<s>`."""
    first, last = cls[0], sep[0]
    pair = f"{last} {last} $B {last}" if first == "<s>" else f"{last} $B:1 {last}:1"
    return processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {pair}", special_tokens=[cls, sep]
    )


def transformers_class(backend: tokenizers.Tokenizer, like_bert: bool) -> tuple[str, dict[str, Any]]:
    """The class of `transformers` that rebuilds this very tokenizer, and the options that it needs.

    `like_bert`: special pieces and types are laid out as `[CLS] A [SEP] B [SEP]`, 0 and 1.
    """
    rules = json.loads(backend.to_str())
    normalizer, splitter = rules["normalizer"] or {}, rules["pre_tokenizer"] or {}
    kind = (rules["model"]["type"], normalizer.get("type"), splitter.get("type"))
    if kind == ("WordPiece", "BertNormalizer", "BertPreTokenizer") and like_bert:
        return "BertTokenizer", {
            "do_lower_case": normalizer["lowercase"],
            "strip_accents": normalizer["strip_accents"],
            "tokenize_chinese_chars": normalizer["handle_chinese_chars"],
        }
    if kind == ("BPE", None, "ByteLevel") and rules["post_processor"]["type"] == "RobertaProcessing":
        return "RobertaTokenizer", {"add_prefix_space": splitter["add_prefix_space"]}
    steps = [step["type"] for step in normalizer.get("normalizers", ())]
    if kind == ("Unigram", "Sequence", "Sequence") and like_bert and steps[:2] == ["Replace", "Replace"]:
        options = {"do_lower_case": "Lowercase" in steps, "keep_accents": "StripAccents" not in steps}
        return "AlbertTokenizer", options
    return "PreTrainedTokenizerFast", {}


def shifting_beginnings(backend: tokenizers.Tokenizer, specials: list[str]) -> re.Pattern[str] | None:
    """The beginnings after which this tokenizer's offsets come out shifted, if there are any.

    Where SentencePiece's map drops control characters at the beginning of a text, or behind a special piece,
    the library counts on from the wrong place (seen in tokenizers 0.23). Spaces there keep the count right. Where
    spaces there would change the pieces too, the offsets are left as they are.
    """
    control, plain, spaced = (backend.encode(text, add_special_tokens=False) for text in ("\x01a", "a", "  a"))
    if control.offsets[-1:] != [(0, 1)] or spaced.ids != plain.ids:
        return None
    ranges = chain(range(0xA0), range(0x300, 0x1F000), range(0xE0100, 0xE01F0))
    fragile = (c for c in map(chr, ranges) if unicodedata.category(c) in ("Cc", "Mn", "Mc", "Me"))
    dropped = "".join(c for c in fragile if backend.normalizer.normalize_str(c) == "")
    return re.compile(rf"(\A|{'|'.join(map(re.escape, specials))})([{dropped}]+)")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file, empty if there is no such file. Raises CheckpointError if it is damaged."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(_read_text(path))
    except json.JSONDecodeError as problem:
        raise CheckpointError(f"{path}:{problem.lineno}: broken JSON ({problem.msg}); copy it again") from problem
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found a {type(found).__name__}")
    return found


def _read_lines(path: Path) -> list[str]:
    return _read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: not UTF-8 at byte {problem.start}; re-encode or copy it") from problem


def _read_wordpiece(path: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    vocabulary: dict[str, int] = {}
    for id, piece in enumerate(_read_lines(path)):
        if vocabulary.setdefault(piece, id) != id:
            raise CheckpointError(f"{path}:{id + 1}: {piece!r} stands on line {vocabulary[piece] + 1} already")
    return wordpiece(vocabulary, config, str(path))


def _read_byte_level(path: Path, merges: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    vocabulary = read_json(path)
    ids = [id for id in vocabulary.values() if isinstance(id, int)]
    if set(ids) != set(range(len(vocabulary))):
        raise CheckpointError(f"{path}: the ids are not 0 to {len(vocabulary) - 1}, each once; copy it again")
    pairs = []
    for number, line in enumerate(_read_lines(merges), 1):
        left, _, right = line.partition(" ")
        if number == 1 and left == "#version:":
            continue
        if not {left, right, left + right} <= vocabulary.keys():
            raise CheckpointError(f"{merges}:{number}: {line!r} does not merge two pieces of {path.name}")
        pairs.append((left, right))
    return byte_level(vocabulary, pairs, config, str(path))


def _read_unigram(path: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    model = read_spiece(path)
    unknown = [id for id, piece in enumerate(model.pieces) if piece.kind == UNKNOWN]
    if model.algorithm != UNIGRAM or len(unknown) != 1:
        raise CheckpointError(f"{path}: only Unigram models with one unknown piece can be read")
    scored = [(piece.text, piece.score) for piece in model.pieces]
    return unigram(scored, unknown[0], model.charsmap, config)
