"""Read the parts of a SentencePiece model file (a protobuf message) that a tokenizer needs."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from bothways.errors import CheckpointError
from bothways.text.modelfiles import read_bytes

NORMAL: Final = 1
UNKNOWN: Final = 2
CONTROL: Final = 3
USER_DEFINED: Final = 4
UNIGRAM: Final = 1


class Piece(NamedTuple):
    """A vocabulary entry: its text, its log-probability, and its kind (NORMAL, UNKNOWN, CONTROL, ...)."""

    text: str
    score: float
    kind: int


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """The pieces in id order, the compiled character map, and the algorithm (1 is UNIGRAM)."""

    pieces: tuple[Piece, ...]
    charsmap: bytes
    algorithm: int


def read_spiece(path: Path) -> SentencePieceModel:
    """Read `spiece.model`; field numbers are from sentencepiece_model.proto.

    Raises CheckpointError if the file is truncated or not a SentencePiece model.
    """
    pieces: list[Piece] = []
    parts: dict[int, dict[int, tuple[int, bytes]]] = {}
    try:
        for number, _, raw in _fields(read_bytes(path)):
            if number == 1:
                pieces.append(_piece(raw))
            elif number in (2, 3):
                parts[number] = {field: (integer, value) for field, integer, value in _fields(raw)}
        training, normalizing = parts[2], parts[3]
    except (ValueError, KeyError, struct.error) as problem:
        raise CheckpointError(
            f"{path}: not a complete SentencePiece model (unreadable after {len(pieces)} tokens); copy it again"
        ) from problem
    algorithm, charsmap = training.get(3, (UNIGRAM, b""))[0], normalizing.get(2, (0, b""))[1]
    return SentencePieceModel(tuple(pieces), charsmap, algorithm)


def _piece(message: bytes) -> Piece:
    found = {number: (integer, raw) for number, integer, raw in _fields(message)}
    score = struct.unpack("<f", found[2][1])[0] if 2 in found else 0.0
    return Piece(found[1][1].decode(), score, found.get(3, (NORMAL, b""))[0])


def _fields(message: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (number, integer, b"") or (number, 0, bytes) for each field."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, wire = key >> 3, key & 7
        if wire == 0:
            integer, at = _varint(message, at)
            yield number, integer, b""
        elif wire in (1, 2, 5):
            size, at = _varint(message, at) if wire == 2 else (8 if wire == 1 else 4, at)
            if at + size > len(message):
                raise ValueError(f"{size} bytes announced, {len(message) - at} left")
            yield number, 0, message[at : at + size]
            at += size
        else:
            raise ValueError(f"wire type {wire}")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """Decode the integer at byte `at`, seven bits per byte, lowest first; return it and the offset after it."""
    integer = 0
    for count, byte in enumerate(message[at : at + 10]):
        integer |= (byte & 0x7F) << 7 * count
        if byte < 0x80:
            return integer, at + count + 1
    raise ValueError("an integer without an end")
