"""The only inference path: encode, sort, batch, run, put back in order, decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from bothways.batch import budgeted, make_batch
from bothways.errors import DataError
from bothways.runtime.artifact import Artifact
from bothways.runtime.engines import Engine, open_engine
from bothways.tasks.classify import Classify
from bothways.tasks.task import Example, Prediction
from bothways.terminal import Bar, Reporter
from bothways.text.tokenizer import Encoded, Tokenizer

CHUNK = 4096  # examples sorted together: many enough to fill batches with equal lengths, few enough for memory
Text = str | tuple[str, str]
Progress = Callable[[float], None]  # told the share that is done


class Predictor:
    """A task, its tokenizer and an engine; training evaluates with the same one that serves."""

    def __init__(self, task: Classify, tokenizer: Tokenizer, engine: Engine, artifact: Artifact | None = None) -> None:
        self.task, self.tokenizer, self.engine, self.artifact = task, tokenizer, engine, artifact

    def __call__(self, texts: Iterable[Text]) -> list[Prediction]:
        """Predictions for texts (for pairs, tuples of two), in their order."""
        if isinstance(texts, str):
            raise DataError("a single string was given, expected a list of texts: model([text])")
        return self.predict([as_example(text, self.task) for text in texts])

    def predict(self, examples: Sequence[Example], reporter: Reporter | None = None) -> list[Prediction]:
        """Predictions for examples, in their order."""
        return list(self.stream(examples, total=len(examples), reporter=reporter))

    def stream(
        self, examples: Iterable[Example], *, total: int = 0, reporter: Reporter | None = None
    ) -> Iterator[Prediction]:
        """Predictions one by one, in order; no more than `CHUNK` examples are held at a time."""
        examples, done = iter(examples), 0
        with (reporter or Reporter(quiet=True)).bar("predicting", total or 1) as bar:
            while chunk := list(islice(examples, CHUNK)):
                yield from self._chunk(chunk, partial(_advance, bar, done, len(chunk)))
                done += len(chunk)

    def _chunk(self, examples: Sequence[Example], progress: Progress) -> Iterator[Prediction]:
        readable = [example for example in examples if any(text.strip() for text in example.texts)]
        windows = self.task.encode(readable, self.tokenizer) if readable else []
        logits = self.logits(windows, progress)
        answers = iter(self._decoded(windows, logits, len(readable)))
        for example in examples:
            if any(text.strip() for text in example.texts):
                yield next(answers)
            else:
                yield Prediction("", float("nan"), error="the text is empty", windows=0)

    def _decoded(self, windows: Sequence[Encoded], logits: np.ndarray, count: int) -> Iterator[Prediction]:
        edges = np.searchsorted([window.example for window in windows], np.arange(count + 1))
        for start, stop in pairwise(edges):
            yield self.task.decode(logits[start:stop], windows[start:stop])

    def logits(self, windows: Sequence[Encoded], progress: Progress | None = None) -> np.ndarray:
        """(B, L) logits of windows in their order, run longest first under the engine's token budget."""
        if not windows:
            return np.empty((0, len(self.task.labels)), dtype=np.float32)
        answer = np.empty((len(windows), len(self.task.labels)), dtype=np.float32)
        lengths = [len(window.ids) for window in windows]
        done, total = 0, sum(lengths)
        for group in budgeted(lengths, self.engine.max_tokens):
            batch = make_batch([windows[index] for index in group])
            answer[np.array(group)[batch.members]] = self.engine.run(batch)
            done += int(batch.lengths.sum())
            if progress is not None:
                progress(done / total)
        return answer


def _advance(bar: Bar, done: int, size: int, share: float) -> None:
    bar.update(done + share * size)


def as_example(text: Text, task: Classify) -> Example:
    """A text, or a tuple of as many texts as the task reads, as an example."""
    texts = (text,) if isinstance(text, str) else tuple(text)
    if len(texts) != len(task.texts) or not all(isinstance(part, str) for part in texts):
        raise DataError(f"found {text!r}, expected {len(task.texts)} text(s) for the task {task.name}")
    return Example(texts)


def load(
    directory: str | Path,
    *,
    task: str | None = None,
    precision: Literal["bf16", "fp32"] | None = None,
    reporter: Reporter | None = None,
) -> Predictor:
    """The trained model in a directory, ready to predict.

    `task` "pairs" is for a directory that `transformers` wrote and that reads two texts. Raises
    `CheckpointError` for a directory without a trained model.
    """
    from bothways.model.catalogue import find_model

    artifact = Artifact.read(find_model(directory), task)
    engine = open_engine(artifact, reporter or Reporter(quiet=True), precision=precision)
    return Predictor(artifact.task, artifact.tokenizer, engine, artifact)
