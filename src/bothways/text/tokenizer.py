"""Tokenize texts and text pairs into windows, with token ids and offsets into the original text."""

from __future__ import annotations

import hashlib
import json
import math
import re
import reprlib
import tempfile
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from bothways.errors import CheckpointError, DataError, ModelNotFoundError, OptionError
from bothways.text.backend import (
    FLAGS,
    library_errors,
    load_backend,
    shifting_beginnings,
    special_tokens_of,
    template,
    token_of,
    transformers_class,
)
from bothways.text.modelfiles import read_json

Ints = npt.NDArray[np.int32]
Index = npt.NDArray[np.int64]

PACKAGED: Final = Path(__file__).parent / "vocabularies"
TEXTS_PER_CALL: Final = 2048  # bounds the memory of the library's `Encoding` objects
NO_LIMIT: Final = 2**40
BERT_PAIR: Final = [(-1, 0), (0, 0), (-1, 0), (1, 1), (-1, 1)]  # [CLS] A [SEP] B [SEP]: text, type id
ROBERTA_PAIR: Final = [(-1, 0), (0, 0), (-1, 0), (-1, 0), (1, 0), (-1, 0)]  # <s> A </s></s> B </s>
LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")
ORDINARY, WHITESPACE, EXTENDING, DROPPED = range(4)
FIRST: Final = np.zeros(1, np.int64)
PROBE: Final = (  # tokenizers differ in case, accents, marks, digits, scripts, controls, spaces, quotes
    "The naïve CAFÉ in Äöü İstanbul didn't re-open at 3,500.25 USD (50%)!",
    "  two  spaces\tand\na line\r\n\x00\x01\u200b\ufeff ``quoted'' «texts» — ½ ﬁ Ⅳ",
    "東京に行った ภาษาไทย हिन्दी עברית العربية кириллица e\u0301 \U0001f600\U0010fffd",
    "https://example.org/a_b?c=d#e @name #tag user@mail.org C++ e.g. O'Neill",
)


@dataclass(frozen=True, slots=True, eq=False)
class Encoded:
    """One window, ready for the model; T tokens, special tokens included.

    `offsets` are (start, exclusive end) in characters of the original text, (0, 0) for special tokens. `word_ids` are
    indices of the words of `str.split()` in the token's text, -1 for special tokens. A token of only white space has
    an empty span and belongs to the word that starts there, or to none (-1). `sequence_ids` is the index of the
    token's text (0 or 1), -1 for special tokens. `example` is the example's index in the call, `window` the window's
    index in the example. `truncated` is the number of the example's tokens that are in no window, `skipped` the
    number of tokens of the sliding text before this window. For tasks, `head_positions` are the tokens that the
    model's head reads, and `target` their training target. The arrays are views into shared arrays of the call.
    """

    ids: Ints  # (T,)
    type_ids: Ints  # (T,)
    offsets: Ints  # (T, 2)
    word_ids: Ints  # (T,)
    sequence_ids: npt.NDArray[np.int8]  # (T,)
    example: int
    window: int
    truncated: int = 0
    skipped: int = 0
    head_positions: Index = field(default_factory=lambda: FIRST)  # (K,)
    target: Any = None


class Slot(NamedTuple):
    """A slot in a window's layout: a special token (`text` -1) or the tokens of text 0 or 1."""

    text: int
    id: int
    type_id: int


@dataclass(frozen=True, slots=True)
class TokenizedTexts:
    """The concatenated tokens of many texts; text i has `count[i]` tokens from `first[i]` on."""

    ids: Ints  # (P,)
    offsets: Ints  # (P, 2)
    words: Ints  # (P,)
    first: Index
    count: Index


class Tokenizer:
    """A vocabulary with its tokenization rules and its layout of special tokens.

    Special tokens in a text, as in "Paris is the [MASK] of France", are recognized: mask filling needs this, and
    `transformers` does the same.
    """

    def __init__(
        self, backend: tokenizers.Tokenizer, config: Mapping[str, Any] | None = None, *, where: str = "this tokenizer"
    ) -> None:
        """Wrap (and complete) a tokenizer of the `tokenizers` library; `config` is tokenizer_config.json.

        Raises CheckpointError, starting with `where`, if the vocabulary lacks a special token or `config` is invalid.
        """
        self.config = dict(config or {})
        self.backend = backend
        self._where = where
        backend.no_truncation()  # some published files truncate to 128 tokens, or pad, by default
        backend.no_padding()
        self.specials = special_tokens_of(self.config, backend.token_to_id, where)
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        for role, (token, _) in self.specials.items():
            if token not in known:
                named = self.config.get(f"{role}_token") or token
                backend.add_special_tokens([token_of(named, where, special=True)])
        if backend.num_special_tokens_to_add(False) == 0:
            backend.post_processor = template(self.specials["cls"], self.specials["sep"])
        self.pad_id, self.unk_id, self.cls_id, self.sep_id = (
            self.specials[role][1] for role in ("pad", "unk", "cls", "sep")
        )
        self.mask_id = self.specials["mask"][1] if "mask" in self.specials else None
        self.vocab_size = _vocab_size(backend)
        longest = self.config.get("model_max_length")  # transformers writes 1e30 for "unknown"
        if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int | float) or longest < 1):
            raise CheckpointError(f"{where}: model_max_length is {longest!r}, expected a number of tokens")
        self.model_max_length = int(longest) if longest is not None and longest < 1e9 else None
        with library_errors(where):  # some damaged files fail only when they encode text
            self._layouts = {1: _layout(backend, where, "a"), 2: _layout(backend, where, "a", "a")}
            self._shifting = shifting_beginnings(backend, [token for token, _ in self.specials.values()])
            backend.encode_batch(PROBE)

    @classmethod
    def from_directory(cls, path: Path) -> Tokenizer:
        """Load tokenizer.json, or else build the tokenizer from the vocabulary files of its family.

        tokenizer_config.json and special_tokens_map.json are applied if they exist. Raises CheckpointError if there
        is no vocabulary or it is damaged.
        """
        path = Path(path)
        config = read_json(path / "special_tokens_map.json") | read_json(path / "tokenizer_config.json")
        return cls(load_backend(path, config), config, where=str(path))

    @classmethod
    def packaged(cls, name: str) -> Tokenizer:
        """Load a vocabulary that is included in bothways, such as "bert-base-uncased".

        Raises ModelNotFoundError for any other name.
        """
        names = sorted(folder.name for folder in PACKAGED.iterdir() if folder.is_dir())
        if name not in names:
            raise ModelNotFoundError(f"no packaged vocabulary {name!r}; there are {', '.join(names)}")
        return cls.from_directory(PACKAGED / name)

    def save(self, directory: Path) -> None:
        """Write the files that `transformers` loads: tokenizer.json, its config, and the older vocabulary files.

        Each file is replaced atomically.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        pair = [(slot.text, slot.type_id) for slot in self._layouts[2]]
        family, options = transformers_class(self.backend, pair == BERT_PAIR, pair == ROBERTA_PAIR)
        config = {"tokenizer_class": family} | self.config | options
        config |= {f"{role}_token": token for role, (token, _) in self.specials.items()}
        if self.mask_id is not None and self.backend.get_added_tokens_decoder()[self.mask_id].lstrip:
            config["mask_token"] = {"__type": "AddedToken", "content": config["mask_token"], "lstrip": True}
        config.pop("added_tokens_decoder", None)
        added = self.backend.get_added_tokens_decoder()
        if added.keys() - {id for _, id in self.specials.values()}:  # for readers of the older files
            config["added_tokens_decoder"] = {
                str(id): {name: getattr(token, name) for name in ("content", *FLAGS)}
                for id, token in sorted(added.items())
            }
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            if family in ("BertTokenizer", "RobertaTokenizer", "MPNetTokenizer"):
                self.backend.model.save(scratch)
            text = json.dumps(config, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
            Path(scratch, "tokenizer_config.json").write_text(text, encoding="utf-8")
            Path(scratch, "tokenizer.json").write_text(self.backend.to_str(pretty=True), encoding="utf-8")
            for file in sorted(Path(scratch).iterdir()):
                file.replace(directory / file.name)

    def fingerprint(self) -> str:
        """Return a sha256 of everything that determines the ids: vocabulary, rules, special tokens and their layout.

        It is unchanged by saving and loading with any version of `tokenizers`, because the rules are represented by
        the ids of `PROBE` and not by their spelling in a file.
        """
        model = json.loads(self.backend.to_str())["model"]
        rules: Any = None
        if model["type"] == "BPE":  # older versions write merges as strings
            rules = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        elif model["type"] == "Unigram":  # JSON loses the last bits of a score; no score is near a rounding edge
            rules = [math.floor(score * 2**16 + 0.3) for _, score in model["vocab"]]
        facts = [
            sorted(self.backend.get_vocab().items()),
            rules,
            sorted((token.content, id) for id, token in self.backend.get_added_tokens_decoder().items()),
            sorted(self.specials.items()),
            sorted(self._layouts.items()),
            [self.encode(text).ids.tolist() for text in PROBE],
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def layout(self, texts: Literal[1, 2]) -> tuple[Slot, ...]:
        """Return the layout of special tokens around one text or two."""
        return self._layouts[texts]

    def makes(self, id: int) -> bool:
        """Whether a window may contain an id: not padding, not unused, and for BPE not the unknown token."""
        spare = [self.pad_id] + [self.unk_id] * isinstance(self.backend.model, tokenizers.models.BPE)
        return id not in spare and self.backend.id_to_token(id) is not None

    def convert_ids_to_tokens(self, ids: Iterable[int]) -> list[str]:
        """Convert ids to token strings as spelled in the vocabulary ("##ing", "Ġthe", "▁the").

        Raises OptionError for an id outside the vocabulary.
        """
        found = []
        for id in ids:
            token = self.backend.id_to_token(int(id)) if id >= 0 else None
            if token is None:
                raise OptionError(f"id {id} is not in this vocabulary of {self.vocab_size} tokens")
            found.append(token)
        return found

    def encode(self, text: str, pair: str | None = None) -> Encoded:
        """Encode a text or pair as one window of any length.

        >>> Tokenizer.packaged("bert-base-uncased").encode("The cat sat.").ids.tolist()
        [101, 1996, 4937, 2938, 1012, 102]
        """
        texts = (text,) if pair is None else (text, pair)
        return self.windows([texts], max_length=NO_LIMIT, stride=0)[0]

    def unknown_words(self, texts: Sequence[str]) -> tuple[int, int]:
        """Return the number of words with unknown tokens, and the number of all words.

        Many unknown words indicate a vocabulary of another language, or of a tokenizer with other rules. In WordPiece,
        words of more than 100 characters are unknown too.

        >>> Tokenizer.packaged("bert-base-uncased").unknown_words(["a cat", "ᚠᚢᚦ " + "x" * 101])
        (2, 4)
        """
        unknown = words = 0
        for window in self.windows([(text,) for text in texts], max_length=NO_LIMIT, stride=0):
            unknown += len(np.unique(window.word_ids[(window.ids == self.unk_id) & (window.word_ids >= 0)]))
            words += int(window.word_ids.max(initial=-1)) + 1
        return unknown, words

    def windows(
        self,
        examples: Sequence[Sequence[str]],
        *,
        max_length: int,
        stride: int,
        truncation: bool = False,
        sliding: Literal[0, 1] | None = None,
    ) -> list[Encoded]:
        """Encode examples of one or two texts, each as one window or as several, in order.

        A window has at most `max_length` tokens, special tokens included. Longer texts are split into full windows
        that overlap by at least `stride` tokens; the last one is shifted back to end with the text. Of a pair, the text
        `sliding` is windowed, by default the longer one (if equal, the second). The other text is kept up to half of
        the room: less if the sliding text would get fewer than `stride` + 1 tokens, more if the sliding text is so
        short that it fits in the rest. `truncation` keeps the first window only. `truncated` counts the tokens that are
        in no window.

        Raises OptionError if `max_length` has no room for a token of each text, or if `stride` is too large, and
        DataError if an example is not a tuple of one or two texts.
        """
        chosen: dict[int, list[int]] = {1: [], 2: []}
        for n, texts in enumerate(examples):
            if isinstance(texts, str) or len(texts) not in chosen:
                raise DataError(f"example {n} is not a tuple of one or two texts: {reprlib.repr(texts)}")
            chosen[len(texts)].append(n)
        rooms = {size: max_length - (len(self._layouts[size]) - size) for size in chosen if chosen[size]}
        for size, room in rooms.items():
            if room < size:
                raise OptionError(f"max_length={max_length} is too small; the minimum is {max_length - room + size}")
            if not 0 <= stride <= room - size:  # room for a step, and for a token of the other text
                raise OptionError(f"stride={stride} must be from 0 to {room - size} if max_length={max_length}")
        if not rooms:
            return []
        number = {text: n for n, text in enumerate(dict.fromkeys(chain.from_iterable(examples)))}
        cut = self._cut(list(number))
        found: list[Encoded] = []
        for size, room in rooms.items():
            sources = np.array([[number[text] for text in examples[n]] for n in chosen[size]])
            found += _windows(self._layouts[size], cut, sources, chosen[size], room, stride, truncation, sliding)
        return sorted(found, key=lambda one: one.example)  # stable: windows stay in order

    def _cut(self, texts: list[str]) -> TokenizedTexts:
        """Tokenize texts, with the offset corrections of `_mended_offsets`."""
        texts = [text if text.isascii() else LONE_SURROGATE.sub("\ufffd", text) for text in texts]
        parts = []
        for begin in range(0, len(texts), TEXTS_PER_CALL):
            few = texts[begin : begin + TEXTS_PER_CALL]
            clean = few
            if self._shifting:
                clean = [self._shifting.sub(lambda at: at[1] + " " * len(at[2]), text) for text in few]
            with library_errors(self._where):
                encodings = self.backend.encode_batch(clean, add_special_tokens=False)
            count = np.fromiter(map(len, encodings), np.int64, len(few))
            P = int(count.sum())
            ids = np.fromiter(chain.from_iterable(one.ids for one in encodings), np.int32, P)
            spans = chain.from_iterable(chain.from_iterable(one.offsets for one in encodings))
            offsets, words = _mended_offsets(few, clean, count, np.fromiter(spans, np.int64, 2 * P).reshape(-1, 2))
            parts.append((ids, offsets, words, count))
        joined = parts[0] if len(parts) == 1 else [np.concatenate(column) for column in zip(*parts, strict=True)]
        ids, offsets, words, count = joined
        return TokenizedTexts(ids, offsets, words, np.cumsum(count) - count, count)


def _vocab_size(backend: tokenizers.Tokenizer) -> int:
    """Return the number of rows of the embedding table: the largest id + 1."""
    count = backend.get_vocab_size()
    if None not in map(backend.id_to_token, range(count)):  # ids have no gaps; the dict takes three times as long
        return count
    return max(backend.get_vocab().values()) + 1


def _layout(backend: tokenizers.Tokenizer, where: str, *texts: str) -> tuple[Slot, ...]:
    """Read the layout of special tokens from the tokenizer's output for a probe text or pair."""
    probe = backend.encode(texts[0], texts[1] if len(texts) > 1 else None)
    slots: list[Slot] = []
    for text, id, type_id in zip(probe.sequence_ids, probe.ids, probe.type_ids, strict=True):
        if text is None:
            slots.append(Slot(-1, id, type_id))
        elif not slots or slots[-1].text != text:
            slots.append(Slot(text, id, type_id))
    if [slot.text for slot in slots if slot.text >= 0] != list(range(len(texts))):
        raise CheckpointError(f"{where}: its template does not show each text once and in order")
    return tuple(slots)


def _mended_offsets(texts: list[str], clean: list[str], count: Index, offsets: Index) -> tuple[Ints, Ints]:
    """Return corrected offsets (P, 2), and the word index of each token (P,), -1 for a token of white space.

    The library's offsets miss characters that normalization merged or dropped (huggingface/tokenizers issues 892,
    1201), such as a mark after its letter or the first of two quotes. Here a token is extended by uncovered marks
    after it and uncovered ordinary characters before it, and loses leading white space. `clean` are the texts that
    the library encoded.

    text      n a i \u0308 v e     "naive" with a mark after its letter: six characters
    library   0:3 "nai", 4:6 "ve"   the mark (3) is in no token
    here      0:4 "nai\u0308", 4:6 "ve"
    """
    codes = _codes(texts)
    kinds = ASCII_KINDS
    if (highest := int(codes.max())) >= len(kinds):
        kinds = np.zeros(highest + 1, np.uint8)
        for character in {"\n"}.union(*texts):
            kinds[ord(character)] = _kind(character)
    kind = kinds[codes]
    shift = np.ones(1, np.int64)  # start of each token's text
    if len(texts) > 1:
        length = np.fromiter(map(len, texts), np.int64, len(texts))
        shift = np.repeat(1 + np.cumsum(length + 1) - length - 1, count)
    start, end = offsets[:, 0] + shift, offsets[:, 1] + shift

    space = kind == WHITESPACE
    blank = space if clean is texts else space | (_codes(clean) == ord(" "))
    if blank[start[start < end]].any():
        start = np.minimum(_next(~blank)[start], end)
    filled = start < end
    if (kind == EXTENDING).any():
        last = _next(np.append(end[1:] != end[:-1], True))  # last of the tokens with the same end
        following = np.append(start[1:], len(codes))[last]
        reach = np.minimum(_next(kind != EXTENDING)[end], following)
        end = np.where(filled, np.maximum(end, reach), end)
    before = np.zeros_like(end)  # end of the previous token, unless both have the same start
    before[1:] = np.where(start[1:] == start[:-1], 0, end[:-1])
    covered = np.maximum.accumulate(before)
    gap = filled & (covered < start) & (kind[start - 1] == ORDINARY)
    if gap.any():
        run = np.maximum.accumulate(np.where(kind != ORDINARY, np.arange(len(kind)), 0)) + 1
        start = np.where(gap, np.maximum(covered, run[start - 1]), start)

    begins = ~space
    begins[1:] &= space[:-1]
    begun = np.cumsum(begins)  # number of words up to each character
    words = np.where(space[start], -1, begun[start] - begun[shift - 1] - 1)
    return (np.stack([start, end], axis=1) - shift[:, None]).astype(np.int32), words.astype(np.int32)


def _kind(character: str) -> int:
    """Classify a character: `str.split` splits at WHITESPACE; EXTENDING combines with the previous character."""
    if character.isspace():
        return WHITESPACE
    category = unicodedata.category(character)
    if category[0] == "M" or "\u1160" <= character <= "\u11ff" or character in "\uff9e\uff9f":
        return EXTENDING
    return DROPPED if category[0] == "C" or character == "\ufffd" else ORDINARY


ASCII_KINDS: Final = np.array([_kind(chr(code)) for code in range(128)], np.uint8)


def _codes(texts: list[str]) -> npt.NDArray[np.uint32]:
    return np.frombuffer(("\n" + "\n".join(texts) + "\n").encode("utf-32-le"), np.uint32)


def _next(wanted: npt.NDArray[np.bool_]) -> Index:
    """Return for each position the first wanted position at or after it; if none, the last position."""
    at = np.where(wanted, np.arange(len(wanted)), len(wanted) - 1)
    return np.minimum.accumulate(at[::-1])[::-1]


def _whole(layout: tuple[Slot, ...], cut: TokenizedTexts, sources: list[int], example: int) -> Encoded:
    """Return the only window of an example that fits into one; same as `_windows`, in a fifth of the time."""
    places = [(int(cut.first[source]), int(cut.first[source] + cut.count[source])) for source in sources]
    T = len(layout) - len(places) + sum(end - begin for begin, end in places)
    ids, type_ids, offsets = np.empty(T, np.int32), np.empty(T, np.int32), np.zeros((T, 2), np.int32)
    words, texts = np.full(T, -1, np.int32), np.full(T, -1, np.int8)
    at = 0
    for text, id, type_id in layout:
        begin, end = (0, 1) if text < 0 else places[text]
        here = slice(at, at + end - begin)
        type_ids[here], texts[here] = type_id, text
        if text < 0:
            ids[at] = id
        else:
            ids[here], offsets[here], words[here] = cut.ids[begin:end], cut.offsets[begin:end], cut.words[begin:end]
        at = here.stop
    return Encoded(ids, type_ids, offsets, words, texts, example, window=0)


def _windows(
    layout: tuple[Slot, ...],
    cut: TokenizedTexts,
    sources: Index,
    examples: list[int],
    room: int,
    stride: int,
    truncation: bool,
    sliding: int | None,
) -> list[Encoded]:
    """Return the windows of E examples of S texts; `sources` (E, S) are their indices in `cut`.

    A text of nine tokens with room for five and a stride of two (a step of three):

    [CLS] a b c d e [SEP]     skipped 0
    [CLS] d e f g h [SEP]     skipped 3
    [CLS] e f g h i [SEP]     skipped 4: the last window is shifted back to end with the text
    """
    count = cut.count[sources]  # (E, S)
    if len(count) == 1 and count.sum() <= room:
        return [_whole(layout, cut, sources[0].tolist(), examples[0])]
    S, L = sources.shape[1], len(layout)
    longer = (count[:, 0] <= count[:, -1]) * (S - 1)
    if sliding is not None:
        longer[:] = min(sliding, S - 1)
    most = count[np.arange(len(count)), longer]
    rest = count.sum(axis=1) - most
    share = min(room // 2, room - stride - 1) if S > 1 else 0  # minimum for the other text, if both are long
    kept = np.minimum(rest, np.maximum(share, room - most))
    space = room - kept
    unseen = np.maximum(most - space, 0)
    if truncation:
        further, truncated = np.zeros_like(unseen), rest - kept + unseen
    else:
        step = np.maximum(space - stride, 1)
        further, truncated = -(-unseen // step), rest - kept
    example = np.repeat(np.arange(len(sources)), further + 1)  # (W,)
    window = np.arange(len(example)) - np.repeat(np.cumsum(further + 1) - further - 1, further + 1)

    slides = (np.arange(S) == longer[:, None])[example]  # (W, S)
    skipped = np.minimum(window * np.maximum(space - stride, 1)[example], unseen[example])
    first = cut.first[sources][example] + np.where(slides, skipped[:, None], 0)
    shown = np.where(slides, np.minimum(most, space)[example, None], kept[example, None])

    text, special_ids, types = np.array(layout, np.int32).T  # (L,) each
    behind = len(cut.ids) + np.arange(L)  # special tokens are stored after all others
    begin = np.where(text < 0, behind, first[:, text]).ravel()  # (W * L,)
    size = np.where(text < 0, 1, shown[:, text]).ravel()
    ends = np.cumsum(size)
    slot = np.repeat(np.arange(len(size)) % L, size)  # (all tokens of all windows,)
    source = np.arange(len(slot)) + np.repeat(begin - (ends - size), size)

    ids = np.concatenate((cut.ids, special_ids))[source]
    type_ids, texts = types[slot], text.astype(np.int8)[slot]
    offsets = np.concatenate((cut.offsets, np.zeros((L, 2), np.int32)))[source]
    words = np.concatenate((cut.words, np.full(L, -1, np.int32)))[source]
    opens, closes = (ends - size)[::L], ends[L - 1 :: L]
    columns = (opens, closes, np.array(examples)[example], window, truncated[example], skipped)
    return [
        Encoded(ids[a:b], type_ids[a:b], offsets[a:b], words[a:b], texts[a:b], *numbers)
        for a, b, *numbers in zip(*(column.tolist() for column in columns), strict=True)
    ]
