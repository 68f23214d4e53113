"""A corpus as tokens on disk: tokenized once, then memory-mapped, so it may be larger than the memory.

A shard has three arrays for training and three for evaluation: the concatenated token ids, the end of each *unit*
(a sentence, or up to 100 tokens of one) and its document number. The manifest is rewritten after each shard, so an
interrupted build can resume.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np

from bothways.errors import CheckpointError, DataError
from bothways.progress import Reporter
from bothways.storage import replacing, write_text
from bothways.text.tokenizer import Tokenizer
from bothways.text.vocabulary import read_lines

MANIFEST = "manifest.json"
FORMAT = 2
SHARD_TOKENS = 4_000_000
UNIT_TOKENS = 100  # longer sentences are split into several units
BLOCK_LINES, BLOCK_CHARACTERS = 200, 50_000  # longer documents are split into several blocks
BLOCKS_AT_ONCE = 256
HELD_OUT = (100, 9)  # of every 100 blocks, number 9 is held out
SENTENCE_END = re.compile(r"""(?<=[.!?])(?:["'”’»)\]]*)\s+(?=["'“‘«(\[]*[^\W_a-z])|(?<=[。！？])""")
PARTS = ("train", "dev")


@dataclass(frozen=True, slots=True)
class Text:
    """The tokens of one part of a shard."""

    ids: np.ndarray  # (P,) uint16 or uint32
    ends: np.ndarray  # (U,) int64: the end of each unit
    documents: np.ndarray  # (U,) int64: the document of each unit


@dataclass(frozen=True, slots=True)
class Corpus:
    """A tokenized corpus in shards."""

    directory: Path
    shards: tuple[dict[str, Any], ...]
    identity: str
    documents: int

    @property
    def tokens(self) -> int:
        """The number of training tokens."""
        return sum(int(shard["train"]["tokens"]) for shard in self.shards)

    def text(self, shard: int, part: str) -> Text:
        """Return one part of one shard, memory-mapped."""
        arrays = (np.load(self.directory / name, mmap_mode="r") for name in _names(shard, part))
        return Text(*arrays)

    def held_out(self) -> bool:
        """Whether any text is held out."""
        return any(shard["dev"]["tokens"] for shard in self.shards)


def open_corpus(
    files: Sequence[str | Path],
    tokenizer: Tokenizer,
    directory: str | Path,
    reporter: Reporter | None = None,
    *,
    identity: dict[str, str] | None = None,
) -> Corpus:
    """Open a corpus of text files (.gz and .xz too): one paragraph or sentence per line, blank lines between documents.

    Existing shards in `directory` are reused; missing ones are tokenized. `identity` is the result of
    `corpus_identity`, if already computed. Raises `DataError` for a file that is not text, and `CheckpointError` if
    the directory holds another corpus or damaged shards.
    """
    directory, reporter = Path(directory), reporter or Reporter(quiet=True)
    identity = identity or corpus_identity(files, tokenizer)
    manifest = _manifest(directory, identity)
    if not manifest["done"]:
        _build(files, tokenizer, directory, manifest, reporter)
    return Corpus(directory, tuple(manifest["shards"]), json.dumps(identity), manifest["documents"])


def blocks(files: Iterable[str | Path]) -> Iterator[tuple[int, int, list[str]]]:
    """Yield (file number, document number, lines) for each document; long documents are split into several blocks.

    All lines of a document but the first start with a space, which some vocabularies encode.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.txt")
    ...     _ = path.write_text("One.\\nTwo.\\n\\n\\nThree.")
    ...     list(blocks([path]))
    [(0, 0, ['One.', ' Two.']), (0, 1, ['Three.'])]
    """
    document = 0
    for file, path in enumerate(files):
        lines: list[str] = []
        begun, characters = False, 0
        for line in chain((line.strip() for line in read_lines(path)), [""]):
            if line:
                lines.append(f" {line}" if begun else line)
                begun, characters = True, characters + len(line)
            if lines and (not line or len(lines) == BLOCK_LINES or characters > BLOCK_CHARACTERS):
                yield file, document, lines
                lines, characters = [], 0
            if not line and begun:
                document, begun = document + 1, False


def sentences(line: str) -> list[str]:
    """Split a line into sentences; all but the first keep the space before them, which some vocabularies encode.

    >>> sentences('It is 3.5 km. "Why?" he asked. Mr. X left.')
    ['It is 3.5 km.', ' "Why?" he asked.', ' Mr.', ' X left.']
    """
    parts, start = [], 0
    for match in SENTENCE_END.finditer(line):
        end = match.end() - len(match[0]) + len(match[0].rstrip())
        if end > start:
            parts.append(line[start:end])
            start = end
    parts.append(line[start:])
    return [re.sub(r"^\s+", " ", part) for part in parts if part.strip()]


def _build(
    files: Sequence[str | Path], tokenizer: Tokenizer, directory: Path, manifest: dict[str, Any], reporter: Reporter
) -> None:
    done = sum(shard["blocks"] for shard in manifest["shards"])
    if done:
        reporter.say(f"continuing with the shards in {directory}: {len(manifest['shards'])} are there")
    stream = enumerate(blocks(files))
    for _ in islice(stream, done):
        pass
    sizes = [Path(path).stat().st_size for path in files]
    gathered: dict[str, list[tuple[np.ndarray, int]]] = {part: [] for part in PARTS}
    tokens = taken = documents = 0
    with reporter.bar("tokenizing the corpus", 1.0) as bar:
        while group := list(islice(stream, BLOCKS_AT_ONCE)):
            texts = [[part for line in lines for part in sentences(line)] for _, (_, _, lines) in group]
            encodings = iter(
                tokenizer.backend.encode_batch_fast(list(chain.from_iterable(texts)), add_special_tokens=False)
            )
            for (number, (_, document, _)), parts in zip(group, texts, strict=True):
                where = "dev" if number % HELD_OUT[0] == HELD_OUT[1] else "train"
                for encoding in islice(encodings, len(parts)):
                    ids = np.array(encoding.ids, tokenizer_dtype(tokenizer))
                    gathered[where] += [
                        (ids[at : at + UNIT_TOKENS], document) for at in range(0, len(ids), UNIT_TOKENS)
                    ]
                    tokens += len(ids)
                documents = document + 1
            taken += len(group)
            file = group[-1][1][0]
            share = (sum(sizes[:file]) + sizes[file] / 2) / sum(sizes)  # the position in a compressed file is unknown
            bar.update(share, f"{manifest['tokens'] + tokens:,} tokens")
            if tokens >= SHARD_TOKENS:
                _write_shard(directory, manifest, gathered, taken, documents)
                gathered, tokens, taken = {part: [] for part in PARTS}, 0, 0
    if taken:
        _write_shard(directory, manifest, gathered, taken, documents)
    if not any(shard["train"]["tokens"] for shard in manifest["shards"]):
        raise DataError(
            f"{', '.join(map(str, files))}: no text to train on; expected sentences or paragraphs, a line each"
        )
    manifest["done"] = True
    _save(directory, manifest)
    reporter.say(f"{manifest['documents']:,} documents, {manifest['tokens']:,} tokens in {directory}")


def _write_shard(
    directory: Path,
    manifest: dict[str, Any],
    gathered: dict[str, list[tuple[np.ndarray, int]]],
    taken: int,
    documents: int,
) -> None:
    number = len(manifest["shards"])
    shard: dict[str, Any] = {"blocks": taken}
    for part, units in gathered.items():
        ids = np.concatenate([unit for unit, _ in units]) if units else np.zeros(0, np.uint16)
        ends = np.cumsum([len(unit) for unit, _ in units], dtype=np.int64)
        owners = np.array([document for _, document in units], np.int64)
        sizes = []
        for name, array in zip(_names(number, part), (ids, ends, owners), strict=True):
            with replacing(directory / name) as temporary, temporary.open("wb") as file:
                np.save(file, array)
            sizes.append((directory / name).stat().st_size)
        shard[part] = {"tokens": len(ids), "units": len(ends), "bytes": sizes}
    manifest["shards"].append(shard)
    manifest["tokens"] += sum(shard[part]["tokens"] for part in PARTS)
    manifest["documents"] = documents
    _save(directory, manifest)


def _manifest(directory: Path, identity: dict[str, str]) -> dict[str, Any]:
    """Return the manifest of a directory, checked against its shards, or a new one."""
    path = directory / MANIFEST
    if not path.is_file():
        return {"format": FORMAT, "identity": identity, "documents": 0, "tokens": 0, "done": False, "shards": []}
    try:
        manifest: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found, shards = dict(manifest["identity"]), manifest["shards"]
        expected = {
            directory / name: size
            for number, shard in enumerate(shards)
            for part in PARTS
            for name, size in zip(_names(number, part), shard[part]["bytes"], strict=True)
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); remove {directory} to make it again") from error
    other = [name for name, value in identity.items() if found.get(name) != value]
    if other:
        raise CheckpointError(
            f"{directory}: holds tokens made with a different {' and a different '.join(other)}; choose another "
            "directory with --shards, or remove this one"
        )
    for name, size in expected.items():
        there = name.stat().st_size if name.is_file() else None
        if there != size:
            state = "is not there" if there is None else f"has {there:,} bytes"
            raise CheckpointError(
                f"{name}: {state}, {MANIFEST} lists {size:,} bytes; remove {directory} to tokenize the corpus again"
            )
    return manifest


def _save(directory: Path, manifest: dict[str, Any]) -> None:
    write_text(directory / MANIFEST, json.dumps(manifest) + "\n")


def corpus_identity(files: Sequence[str | Path], tokenizer: Tokenizer) -> dict[str, str]:
    """Return hashes of everything the shards depend on; raises `DataError` for unreadable or non-regular files."""
    texts = hashlib.sha256()
    for path in files:
        if Path(path).exists() and not Path(path).is_file():
            raise DataError(f"{path}: not a file; a corpus is read twice, so it cannot be a pipe or a directory")
        try:
            with Path(path).open("rb") as file:
                texts.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}; expected a text file, or one in .gz or .xz") from error
    settings = [FORMAT, SHARD_TOKENS, UNIT_TOKENS, BLOCK_LINES, BLOCK_CHARACTERS, HELD_OUT, SENTENCE_END.pattern]
    return {
        "corpus": texts.hexdigest(),
        "vocabulary": hashlib.sha256(tokenizer.backend.to_str().encode()).hexdigest(),
        "version of bothways": hashlib.sha256(json.dumps(settings).encode()).hexdigest(),
    }


def tokenizer_dtype(tokenizer: Tokenizer) -> type[np.unsignedinteger[Any]]:
    """Return the smallest type that holds every id."""
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32


def _names(shard: int, part: str) -> list[str]:
    return [f"{shard:05d}.{part}.{array}.npy" for array in ("ids", "ends", "documents")]
