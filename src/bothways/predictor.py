"""The only inference path: encode, sort, batch, run, put back in order, decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bothways.batch import budgeted, make_batch
from bothways.errors import DataError
from bothways.runtime.artifact import Artifact
from bothways.runtime.engines import Engine, open_engine
from bothways.tasks import Task
from bothways.tasks.task import Example, Prediction
from bothways.terminal import Bar, Reporter
from bothways.text.tokenizer import Encoded, Tokenizer

CHUNK = 4096  # examples sorted together: many enough to fill batches with equal lengths, few enough for memory
CHUNK_CHARACTERS = 4_000_000  # of which there are no more than about so many characters
Progress = Callable[[float], None]  # told the share that is done


class Predictor:
    """A task, its tokenizer and an engine; training evaluates with the same one that serves."""

    def __init__(self, task: Task, tokenizer: Tokenizer, engine: Engine, artifact: Artifact | None = None) -> None:
        self.task, self.tokenizer, self.engine, self.artifact = task, tokenizer, engine, artifact

    def __call__(self, inputs: Iterable[Any]) -> list[Any]:
        """Predictions for inputs (texts; for pairs and questions, tuples of two), in their order."""
        if isinstance(inputs, str):
            raise DataError("a single string was given, expected a list of texts: model([text])")
        return self.predict([self.task.example(one) for one in inputs])

    def predict(self, examples: Sequence[Example], reporter: Reporter | None = None) -> list[Any]:
        """Predictions for examples, in their order."""
        return list(self.stream(examples, total=len(examples), reporter=reporter))

    def stream(self, examples: Iterable[Example], *, total: int = 0, reporter: Reporter | None = None) -> Iterator[Any]:
        """Predictions one by one, in order; only a chunk of the examples is held at a time."""
        done = 0
        with (reporter or Reporter(quiet=True)).bar("predicting", total or 1) as bar:
            for chunk in _chunks(examples):
                yield from self._chunk(chunk, partial(_advance, bar, done, len(chunk)))
                done += len(chunk)

    def _chunk(self, examples: Sequence[Example], progress: Progress) -> Iterator[Prediction]:
        problems = [self.task.problem(example) for example in examples]
        readable = [example for example, problem in zip(examples, problems, strict=True) if problem is None]
        windows = self.task.encode(readable, self.tokenizer) if readable else []
        answers = iter(self._decoded(readable, windows, self._run(windows, progress)))
        for problem in problems:
            yield next(answers) if problem is None else self.task.failure(problem)

    def _decoded(
        self, examples: Sequence[Example], windows: Sequence[Encoded], parts: Sequence[Any]
    ) -> Iterator[Prediction]:
        edges = np.searchsorted([window.example for window in windows], np.arange(len(examples) + 1))
        for example, (start, stop) in zip(examples, pairwise(edges), strict=True):
            yield self.task.decode(example, parts[start:stop], windows[start:stop], self.tokenizer.pieces)

    def _run(self, windows: Sequence[Encoded], progress: Progress) -> list[Any]:
        """What the task keeps of each window, run longest first under the engine's token budget."""
        parts: list[Any] = [None] * len(windows)
        lengths = [len(window.ids) for window in windows]
        done, total = 0, sum(lengths)
        for group in budgeted(lengths, self.engine.max_tokens):
            batch = make_batch([windows[index] for index in group])
            rows = np.split(self.engine.run(batch), np.cumsum(batch.counts)[:-1])
            for member, own in zip(batch.members.tolist(), rows, strict=True):
                parts[group[member]] = self.task.reduce(own, windows[group[member]])
            done += int(batch.lengths.sum())
            progress(done / total)
        return parts


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    chunk: list[Example] = []
    characters = 0
    for example in examples:
        chunk.append(example)
        characters += sum(map(len, example.texts))
        if len(chunk) == CHUNK or characters > CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _advance(bar: Bar, done: int, size: int, share: float) -> None:
    bar.update(done + share * size)


def load(
    directory: str | Path,
    *,
    task: str | None = None,
    precision: Literal["bf16", "fp32"] | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Predictor:
    """The trained model in a directory, ready to predict.

    `task` is what it shall do where the directory does not say, or where it can do several things: "pairs" for
    a directory that `transformers` wrote and that reads two texts, "embed", "zero_shot" with a model of pairs.
    `settings` change those of the task, such as `strategy`, `top_k` or `threshold`.

    Raises `CheckpointError` for a directory without a trained model, `OptionError` for an unknown setting.
    """
    from bothways.model.catalogue import find_model

    artifact = Artifact.read(find_model(directory), task, settings)
    engine = open_engine(artifact, reporter or Reporter(quiet=True), precision=precision)
    return Predictor(artifact.task, artifact.tokenizer, engine, artifact)
