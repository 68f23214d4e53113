"""Reads the text and JSON files of a model directory; sizes are bounded, and errors name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from bothways.errors import CheckpointError

MAX_BYTES: Final = 2**29  # XLM-R's tokenizer.json has 17 million
MAX_SETTINGS: Final = 2**26  # of a config, where 100,000 labels take 5 million
_POINTER: Final = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Raises CheckpointError if the file is a git-lfs pointer, which is what a clone without git-lfs leaves."""
    with path.open("rb") as file:
        beginning = file.read(200)
    if beginning.startswith(_POINTER) and b"\noid " in beginning:
        raise CheckpointError(
            f"{path}: found a git-lfs pointer instead of the file; run git lfs pull in that clone, or download the "
            "file itself"
        )


def read_bytes(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a file; raises CheckpointError if it is a git-lfs pointer or longer than `most`."""
    refuse_pointer(path)
    size = path.stat().st_size
    if size > most:
        raise CheckpointError(f"{path}: found {size:,} bytes, expected at most {most:,}; is it another file?")
    return path.read_bytes()


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """The text of a UTF-8 file, without a byte order mark. Raises CheckpointError if it is not UTF-8."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise CheckpointError(f"{path}: not UTF-8 at byte {problem.start}; re-encode or copy it") from problem


def read_json(path: Path, most: int = MAX_SETTINGS) -> dict[str, Any]:
    """The JSON object in a file, empty if there is no such file. Raises CheckpointError if it is damaged."""
    found = parse_json(path, most) if path.is_file() else {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found a {type(found).__name__}")
    return found


def parse_json(path: Path, most: int = MAX_SETTINGS) -> Any:
    """What a JSON file holds. Raises CheckpointError if it is damaged."""
    text = read_text(path, most)
    try:
        return json.loads(text)
    except json.JSONDecodeError as problem:
        raise CheckpointError(f"{path}:{problem.lineno}: broken JSON ({problem.msg}); copy it again") from problem
    except (ValueError, RecursionError) as problem:  # a number of thousands of digits, brackets in brackets
        raise CheckpointError(f"{path}: broken JSON ({problem}); copy it again") from problem
