"""The base model of bothways: a directory that bothways and transformers load; `--base bothways-base` finds it."""

from pathlib import Path


def path() -> Path:
    """The model directory."""
    return Path(__file__).parent / "model"
