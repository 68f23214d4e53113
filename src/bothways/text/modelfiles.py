"""Read text and JSON files of a model directory, with size limits; errors name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from bothways.errors import CheckpointError

MAX_BYTES: Final = 2**29  # XLM-R's tokenizer.json has 17 million bytes
MAX_SETTINGS: Final = 2**26  # maximum bytes of a config; 100,000 labels take 5 million
_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Raise CheckpointError if the file is a git-lfs pointer, as left by a clone without git-lfs."""
    with path.open("rb") as file:
        beginning = file.read(200)
    if beginning.startswith(_POINTER) and b"\noid " in beginning:
        raise CheckpointError(
            f"{path}: found a git-lfs pointer instead of the file; run git lfs pull in that clone, or download the "
            "file itself"
        )


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """Read the bytes of a file; raises CheckpointError if it is a git-lfs pointer or longer than `most` bytes."""
    refuse_pointer(path)
    size = path.stat().st_size
    if size > most:
        raise CheckpointError(f"{path}: found {size:,} bytes, expected at most {most:,}; is it another file?")
    return path.read_bytes()


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """Read a UTF-8 file, without its byte order mark. Raises CheckpointError if it is not UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: not UTF-8 at byte {problem.start}; re-encode or copy it") from problem


def read_json(path: Path, most: int = MAX_SETTINGS) -> dict[str, Any]:
    """Read a JSON object; {} if the file does not exist. Raises CheckpointError if it is invalid."""
    found = parse_json(path, most) if path.is_file() else {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found a {type(found).__name__}")
    return found


def parse_json(path: Path, most: int = MAX_SETTINGS) -> Any:
    """Read any JSON value from a file. Raises CheckpointError if it is invalid."""
    text = read_text(path, most)
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise CheckpointError(f"{path}:{problem.lineno}: broken JSON ({problem.msg}); copy it again") from problem
    except (ValueError, RecursionError) as problem:  # numbers with thousands of digits, deep nesting
        raise CheckpointError(f"{path}: broken JSON ({problem}); copy it again") from problem
