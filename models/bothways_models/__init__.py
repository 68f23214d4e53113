"""The models that come with bothways, as int8 ONNX models; `bothways.load("sentiment")` finds them by name."""

from pathlib import Path


def path(name: str) -> Path:
    """The directory of a model: sentiment, ner, question-answering, zero-shot, fill-mask or next-sentence."""
    return Path(__file__).parent / name
