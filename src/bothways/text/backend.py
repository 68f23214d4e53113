"""Build tokenizers of the Rust library from the vocabulary files of each family."""

from __future__ import annotations

import json
import re
import unicodedata
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from bothways.errors import CheckpointError
from bothways.text.modelfiles import MAX_BYTES, read_bytes, read_json, read_text
from bothways.text.sentence_transformers import lowercases
from bothways.text.spiece import UNIGRAM, UNKNOWN, read_spiece

USUAL: Final = {
    "pad": ("[PAD]", "<pad>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>"),
    "sep": ("[SEP]", "</s>"),
    "mask": ("[MASK]", "<mask>"),
}
"""The usual names of each special token, for configurations that do not set it."""

NOTHING: Final[Mapping[str, int]] = {}
FLAGS: Final = ("single_word", "lstrip", "rstrip", "normalized", "special")
FILES: Final = "tokenizer.json, vocab.txt, vocab.json with merges.txt, spiece.model"


# `transformers` classes (without "Fast" and "Tokenizer") by the file that contains all of their rules. Other classes
# add code that is not in these files, such as a Japanese word splitter or PhoBERT's merges.
# fmt: off
CLASSES: Final = {
    "tokenizer.json": frozenset({
        "Albert", "Barthez", "Bart", "Bert", "BigBird", "Camembert", "ConvBert", "Deberta", "DebertaV2", "DistilBert",
        "Electra", "Ernie", "FNet", "Funnel", "GPT2", "Herbert", "LayoutLM", "Llama", "Longformer", "Lxmert", "MPNet",
        "MobileBert", "Nystromformer", "PreTrained", "RemBert", "RetriBert", "RoFormer", "Roberta", "Splinter",
        "SqueezeBert", "T5", "XLMRoberta", "XLNet",
    }),
    "vocab.txt": frozenset({
        "Bert", "ConvBert", "DistilBert", "Electra", "Ernie", "Funnel", "LayoutLM", "Lxmert", "MPNet", "MobileBert",
        "RetriBert", "SqueezeBert",
    }),
    "vocab.json": frozenset({"Bart", "Longformer", "Roberta"}),
    "spiece.model": frozenset({"Albert"}),
}
# fmt: on
# Settings of tokenizer_config.json that are not implemented, with the values that do not change the ids.
MUST_BE: Final[Mapping[str, tuple[Any, ...]]] = {
    "do_basic_tokenize": (True,),
    "do_word_tokenize": (False, True),
    "do_subword_tokenize": (True,),
    "word_tokenizer_type": ("basic",),
    "subword_tokenizer_type": ("wordpiece",),
    "wordpieces_prefix": ("##",),
    "split_special_tokens": (False,),
}
SWITCHES: Final = (
    *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "clean_text", "keep_accents", "add_prefix_space"),
    *("do_basic_tokenize", "split_special_tokens"),
)


@contextmanager
def library_errors(where: Path | str, advice: str = "copy it again") -> Iterator[None]:
    """Convert errors of the Rust library to a CheckpointError that starts with `where`.

    The library raises plain Exception, and PanicException, which is not a subclass of Exception.
    """
    try:
        yield
    except CheckpointError:
        raise
    except BaseException as problem:
        if not isinstance(problem, Exception) and type(problem).__name__ != "PanicException":
            raise
        reason = " ".join(str(problem).split())
        raise CheckpointError(
            f"{where}: unreadable for tokenizers {tokenizers.__version__} ({reason}); {advice}"
        ) from problem


def load_backend(directory: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Load tokenizer.json, or else build the tokenizer from the vocabulary files of its family.

    `config` is tokenizer_config.json. Raises CheckpointError if there is no vocabulary, it is damaged, or the
    directory names an unsupported tokenizer class or setting.
    """
    found = next((name for name in CLASSES if (directory / name).is_file()), None)
    if found is None:
        raise CheckpointError(f"{directory}: no vocabulary here; looked for {FILES}")
    path = directory / found
    _check_class(path, config)
    added = _added_tokens(directory, config)
    if found == "tokenizer.json":
        with library_errors(path, "copy it, or upgrade"):
            content = read_bytes(path).removeprefix(BOM_UTF8)
            backend = _overrule(tokenizers.Tokenizer.from_buffer(content), config)
    else:
        names = {token.content: id for id, token in added.items()}
        if found == "vocab.txt":
            backend = _read_wordpiece(path, config, names)
        elif found == "vocab.json":
            backend = _read_byte_level(path, directory / "merges.txt", config, names)
        else:
            backend = _read_unigram(path, config)
    if lowercases(directory):
        backend.normalizer = _lowercasing(backend.normalizer)
    _add_tokens(backend, added, _unnumbered(directory, config), str(directory))
    kept = {token.content for token in backend.get_added_tokens_decoder().values()} | set(chain(*USUAL.values()))
    for word in config.get("never_split") or ():
        if word not in kept:
            raise CheckpointError(
                f"{directory / 'tokenizer_config.json'}: never_split has {word!r}, which is no token here; "
                "remove it, or add it to the vocabulary"
            )
    return backend


def _check_class(path: Path, config: Mapping[str, Any]) -> None:
    """Raise CheckpointError if the tokenizer's class or settings are not supported."""
    settings = path.parent / "tokenizer_config.json"
    for key in SWITCHES:
        if not isinstance(config.get(key), bool | None):
            raise CheckpointError(f"{settings}: {key} is {config[key]!r}, expected true, false or null")
    for key, allowed in MUST_BE.items():
        if config.get(key) is not None and config[key] not in allowed:
            raise CheckpointError(
                f"{settings}: {key} is {config[key]!r}, bothways computes only {allowed[0]!r}; "
                "if the model was trained with that, remove the key"
            )
    named = config.get("tokenizer_class") or read_json(path.parent / "config.json").get("tokenizer_class")
    if isinstance(named, list):  # AutoTokenizer's [slow, fast] classes
        named = next((one for one in named if one), None)
    if named is None or named == "TokenizersBackend":
        if path.name == "vocab.txt" and (codes := path.parent / "bpe.codes").is_file():
            raise CheckpointError(
                f"{path}: the merges in {codes.name} belong to a PhobertTokenizer, which is not built here"
            )
        return
    plain = str(named).removesuffix("Fast").removesuffix("Tokenizer")
    if plain not in CLASSES[path.name] and not (path.name == "tokenizer.json" and str(named).endswith("Fast")):
        advice = (
            "if tokenizer.json holds all of its rules, set tokenizer_class to PreTrainedTokenizerFast"
            if path.name == "tokenizer.json"
            else "save it with transformers as tokenizer.json, if it has one"
        )
        raise CheckpointError(
            f"{path.parent}: the tokenizer is a {named}, whose rules are not those of {path.name} alone; {advice}"
        )


def _added_tokens(directory: Path, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Return the added tokens by id, from `added_tokens_decoder` or else from added_tokens.json."""
    found: dict[int, AddedToken] = {}
    if (known := config.get("added_tokens_decoder")) is not None:
        where = directory / "tokenizer_config.json"
        if not isinstance(known, dict):
            raise CheckpointError(f"{where}: added_tokens_decoder is {known!r}, expected an object of tokens by id")
        for id, token in known.items():
            if not str(id).isdecimal() or not isinstance(token, dict):
                raise CheckpointError(
                    f"{where}: added_tokens_decoder has {id!r}: {token!r}, expected an id and a token"
                )
            found[int(id)] = token_of(token, str(where))
        return found
    where = directory / "added_tokens.json"
    special = {token.content for token in _unnumbered(directory, config)}
    for name, id in read_json(where).items():
        if isinstance(id, bool) or not isinstance(id, int) or id < 0:
            raise CheckpointError(f"{where}: {name!r} has the id {id!r}, expected a whole number")
        if id in found:
            raise CheckpointError(f"{where}: {name!r} and {found[id].content!r} have the same id {id}")
        found[id] = AddedToken(name, special=name in special, normalized=name not in special)
    return found


def _unnumbered(directory: Path, config: Mapping[str, Any]) -> list[AddedToken]:
    """Return the additional special tokens that the config lists without ids."""
    found: list[AddedToken] = []
    for key in ("additional_special_tokens", "extra_special_tokens"):
        value = config.get(key) or []
        if isinstance(value, dict) and "content" not in value:  # tokens by custom names
            value = list(value.values())
        for token in value if isinstance(value, list) else [value]:
            found.append(token_of(token, f"{directory / 'tokenizer_config.json'}: {key}", special=True))
    return found


def token_of(token: Any, where: str, **given: bool) -> AddedToken:
    """Parse a token of tokenizer_config.json: a string, or an object with content and flags."""
    flags = {name: value for name, value in token.items() if name in FLAGS} if isinstance(token, dict) else {}
    content = token.get("content") if isinstance(token, dict) else token
    if not isinstance(content, str) or not content or not all(isinstance(flag, bool) for flag in flags.values()):
        raise CheckpointError(f"{where}: found {token!r}, expected a token: a string, or an object with its content")
    return AddedToken(content, **(flags | given))


def _add_tokens(
    backend: tokenizers.Tokenizer, added: Mapping[int, AddedToken], unnumbered: list[AddedToken], where: str
) -> None:
    """Add tokens to a backend; raises CheckpointError if a token would get another id than in the files."""
    for id, token in sorted(added.items()):
        known, taken = backend.token_to_id(token.content), backend.id_to_token(id)
        if taken not in (None, token.content):
            raise CheckpointError(f"{where}: the added token {token.content!r} has the id {id}, which is {taken!r}'s")
        if known not in (None, id):
            raise CheckpointError(
                f"{where}: the added token {token.content!r} has the id {id}, in the vocabulary {known}"
            )
        backend.add_tokens([token])
        if (made := backend.token_to_id(token.content)) != id:
            raise CheckpointError(
                f"{where}: the added token {token.content!r} has the id {id}, but the vocabulary ends before {made}; "
                "the files are not of the same tokenizer"
            )
    marked = {token.content for token in backend.get_added_tokens_decoder().values()}
    backend.add_special_tokens([token for token in unnumbered if token.content not in marked])


def _overrule(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """Apply tokenizer_config.json to the rules of tokenizer.json; the config overrides, as in `transformers`."""
    rules = backend.normalizer
    if isinstance(rules, normalizers.BertNormalizer):
        backend.normalizer = normalizers.BertNormalizer(
            clean_text=rules.clean_text,
            handle_chinese_chars=_switch(config, "tokenize_chinese_chars", rules.handle_chinese_chars),
            strip_accents=config.get("strip_accents", rules.strip_accents),
            lowercase=_switch(config, "do_lower_case", rules.lowercase),
        )
    if isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel) and config.get("add_prefix_space") is not None:
        backend.pre_tokenizer.add_prefix_space = config["add_prefix_space"]
        if isinstance(backend.post_processor, processors.RobertaProcessing):
            backend.post_processor.add_prefix_space = config["add_prefix_space"]
    if isinstance(backend.model, models.BPE):
        backend.model.dropout = None  # dropout makes tokenization random
    return backend


def _lowercasing(rules: normalizers.Normalizer | None) -> normalizers.Normalizer:
    """Add lowercasing to a normalizer, before its other rules; accent handling does not change."""
    if isinstance(rules, normalizers.BertNormalizer):
        if rules.strip_accents is None:
            rules.strip_accents = rules.lowercase
        rules.lowercase = True
        return rules
    return normalizers.Lowercase() if rules is None else normalizers.Sequence([normalizers.Lowercase(), rules])


def _switch(config: Mapping[str, Any], key: str, usual: bool) -> bool:
    """Return a boolean setting; null or missing means `usual`."""
    value = config.get(key)
    return usual if value is None else bool(value)


def special_tokens_of(
    config: Mapping[str, Any], find: Callable[[str], int | None], where: str
) -> dict[str, tuple[str, int]]:
    """Return the special token and id of each role: from the config, else the first usual name that `find` finds.

    Raises CheckpointError, starting with `where`, if a role other than "mask" is missing.
    """
    found: dict[str, tuple[str, int]] = {}
    missing = []
    for role, usual in USUAL.items():
        named = config.get(f"{role}_token")
        names = (token_of(named, f"{where}: {role}_token").content,) if named else usual
        known = [(name, id) for name in names if (id := find(name)) is not None]
        if known:
            found[role] = known[0]
        elif role != "mask":
            missing.append(" or ".join(names))
    if missing:
        raise CheckpointError(f"{where}: the vocabulary lacks the special tokens {', '.join(missing)}")
    return found


def wordpiece(
    vocabulary: dict[str, int], config: Mapping[str, Any], where: str, added: Mapping[str, int] = NOTHING
) -> tokenizers.Tokenizer:
    """Build a WordPiece tokenizer with BERT's rules; the default of `do_lower_case` depends on the tokens' case.

    Special tokens may also be in `added`. A mask token `<mask>` absorbs the space before it (MPNet).
    """
    specials = special_tokens_of(config, {**added, **vocabulary}.get, where)
    unk, _ = specials["unk"]
    if unk not in vocabulary:
        raise CheckpointError(f"{where}: the vocabulary lacks the unknown token {unk}")
    cased = any(token != token.lower() for token in vocabulary if not re.fullmatch(r"\[.+\]", token))
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unk))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=_switch(config, "clean_text", True),
        handle_chinese_chars=_switch(config, "tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=_switch(config, "do_lower_case", not cased),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    if "mask" in specials and specials["mask"][0] == "<mask>" and "<mask>" in vocabulary:
        backend.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    return backend


def byte_level(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    config: Mapping[str, Any],
    where: str,
    added: Mapping[str, int] = NOTHING,
) -> tokenizers.Tokenizer:
    """Build a byte-level BPE with RoBERTa's rules: `<s> A </s></s> B </s>`; a mask absorbs the space before it."""
    specials = special_tokens_of(config, {**added, **vocabulary}.get, where)
    spaced = bool(config.get("add_prefix_space", False))
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(specials["sep"], specials["cls"], True, spaced)
    if "mask" in specials and specials["mask"][0] in vocabulary:
        backend.add_special_tokens([AddedToken(specials["mask"][0], lstrip=True, special=True)])
    return backend


def unigram(
    scored: list[tuple[str, float]], unk_id: int, charsmap: bytes, config: Mapping[str, Any]
) -> tokenizers.Tokenizer:
    """Build a Unigram tokenizer with ALBERT's rules from (token, log-probability) pairs.

    As in Google's ALBERT, a number and a comma after it are separate tokens: tokens that join them lose 100.
    """
    scored = [(token, score - 100 * bool(re.search(r"\d,$", token))) for token, score in scored]
    backend = tokenizers.Tokenizer(models.Unigram(scored, unk_id, False))
    steps: list[normalizers.Normalizer] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not _switch(config, "keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if _switch(config, "do_lower_case", True):
        steps.append(normalizers.Lowercase())
    if charsmap:
        steps.append(normalizers.Precompiled(charsmap))
    backend.normalizer = normalizers.Sequence(steps)
    splitters = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    backend.pre_tokenizer = pre_tokenizers.Sequence(splitters)
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return backend


def template(cls: tuple[str, int], sep: tuple[str, int]) -> processors.TemplateProcessing:
    """Return BERT's layout, `[CLS] A [SEP] B [SEP]` with types 0 and 1, or RoBERTa's if `cls` is `<s>`."""
    first, last = cls[0], sep[0]
    pair = f"{last} {last} $B {last}" if first == "<s>" else f"{last} $B:1 {last}:1"
    return processors.TemplateProcessing(
        single=f"{first} $A {last}", pair=f"{first} $A {pair}", special_tokens=[cls, sep]
    )


def transformers_class(
    backend: tokenizers.Tokenizer, like_bert: bool, like_roberta: bool
) -> tuple[str, dict[str, Any]]:
    """Return the `transformers` class that rebuilds this tokenizer, and its options.

    `like_bert`: the pair layout is `[CLS] A [SEP] B [SEP]` with types 0 and 1; `like_roberta`: it is
    `<s> A </s></s> B </s>` with type 0.
    """
    rules = json.loads(backend.to_str())
    normalizer, splitter = rules["normalizer"] or {}, rules["pre_tokenizer"] or {}
    kind = (rules["model"]["type"], normalizer.get("type"), splitter.get("type"))
    if kind == ("WordPiece", "BertNormalizer", "BertPreTokenizer") and (like_bert or like_roberta):
        return "BertTokenizer" if like_bert else "MPNetTokenizer", {
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
    """Return a pattern of characters that shift this tokenizer's offsets, or None.

    If SentencePiece's character map drops control characters at the start of a text or after a special token, the
    following offsets are wrong (seen in tokenizers 0.23). Replacing them by spaces keeps the offsets right. Returns
    None if the offsets are right, or if spaces would change the tokens.
    """
    control, plain, spaced = (backend.encode(text, add_special_tokens=False) for text in ("\x01a", "a", "  a"))
    if control.offsets[-1:] != [(0, 1)] or spaced.ids != plain.ids:
        return None
    ranges = chain(range(0xA0), range(0x300, 0x1F000), range(0xE0100, 0xE01F0))
    fragile = (c for c in map(chr, ranges) if unicodedata.category(c) in ("Cc", "Mn", "Mc", "Me"))
    dropped = "".join(c for c in fragile if backend.normalizer.normalize_str(c) == "")
    return re.compile(rf"(\A|{'|'.join(map(re.escape, specials))})([{dropped}]+)")


def _read_lines(path: Path) -> list[str]:
    return read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")


def _read_wordpiece(path: Path, config: Mapping[str, Any], added: Mapping[str, int]) -> tokenizers.Tokenizer:
    vocabulary: dict[str, int] = {}
    for id, token in enumerate(_read_lines(path)):
        if vocabulary.setdefault(token, id) != id:
            raise CheckpointError(f"{path}:{id + 1}: {token!r} is on line {vocabulary[token] + 1} already")
    return wordpiece(vocabulary, config, str(path), added)


def _read_byte_level(
    path: Path, merges: Path, config: Mapping[str, Any], added: Mapping[str, int]
) -> tokenizers.Tokenizer:
    if not merges.is_file():
        raise CheckpointError(f"{path.parent}: no {merges.name} beside {path.name}; copy it")
    vocabulary = read_json(path, MAX_BYTES)
    ids = [id for id in vocabulary.values() if isinstance(id, int)]
    if set(ids) != set(range(len(vocabulary))):
        raise CheckpointError(f"{path}: the ids are not 0 to {len(vocabulary) - 1}, each once; copy it again")
    pairs = []
    for number, line in enumerate(_read_lines(merges), 1):
        left, _, right = line.partition(" ")
        if number == 1 and left == "#version:":
            continue
        if not {left, right, left + right} <= vocabulary.keys():
            raise CheckpointError(f"{merges}:{number}: {line!r} does not merge two tokens of {path.name}")
        pairs.append((left, right))
    return byte_level(vocabulary, pairs, config, str(path), added)


def _read_unigram(path: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    model = read_spiece(path)
    unknown = [id for id, token in enumerate(model.pieces) if token.kind == UNKNOWN]
    if model.algorithm != UNIGRAM or len(unknown) != 1:
        raise CheckpointError(f"{path}: only Unigram models with one unknown token can be read")
    scored = [(token.text, token.score) for token in model.pieces]
    return unigram(scored, unknown[0], model.charsmap, config)
