"""The only inference path: encode, sort, batch, run, put back in order, decode."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bothways.batch import budgeted, make_batch
from bothways.errors import DataError
from bothways.runtime.artifact import Artifact
from bothways.runtime.engines import Engine, Name, Precision, open_engine
from bothways.runtime.exports import Plan
from bothways.tasks import Task
from bothways.tasks.task import Example, Prediction
from bothways.terminal import Bar, Reporter
from bothways.text.tokenizer import Encoded, Tokenizer

CHUNK = 4096  # examples sorted together: many enough to fill batches with equal lengths, few enough for memory
FIRST_CHUNK = 1024  # and at first, so that answers come soon; each chunk is twice the one before
SMALL = 128  # tokens: fewer are not worth a batch
PADDED = 1.05  # tokens with padding, of those without
AHEAD = 128  # examples of a chunk, the longest, that are computed while the others are encoded
CHUNK_CHARACTERS = 1_000_000  # of which there are no more than about so many characters
Progress = Callable[[float], None]  # told the share that is done


class Predictor:
    """A task, its tokenizer and an engine; training evaluates with the same one that serves."""

    def __init__(self, task: Task, tokenizer: Tokenizer, engine: Engine, artifact: Artifact | None = None) -> None:
        self.task, self.tokenizer, self.engine, self.artifact = task, tokenizer, engine, artifact

    def __call__(self, inputs: Iterable[Any]) -> list[Any]:
        """Predictions for inputs (texts; for pairs and questions, tuples of two), in their order."""
        if isinstance(inputs, str):
            raise DataError("a single string was given, expected a list of texts: model([text])")
        return self.predict_examples([self.task.example(one) for one in inputs])

    def predict_examples(self, examples: Sequence[Example], reporter: Reporter | None = None) -> list[Any]:
        """Predictions for examples, in their order."""
        return list(self.stream(examples, total=len(examples), reporter=reporter))

    def stream(self, examples: Iterable[Example], *, total: int = 0, reporter: Reporter | None = None) -> Iterator[Any]:
        """Predictions one by one, in order; only two chunks of the examples are held at a time.

        While one chunk is computed, the next one is encoded and the one before is decoded.
        """
        done, before = 0, None
        pool = _Inline() if self.engine.streams == 1 else ThreadPoolExecutor(self.engine.streams, "bothways")
        with (reporter or Reporter(quiet=True)).bar("predicting", total or 1) as bar:
            try:
                for chunk in _chunks(examples):
                    started = _Chunk(self, chunk, pool)
                    if before is not None:
                        yield from before.finish(partial(_advance, bar, done, len(before.examples)))
                        done += len(before.examples)
                    before = started
                if before is not None:
                    yield from before.finish(partial(_advance, bar, done, len(before.examples)))
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


class _Chunk:
    """Examples whose batches are being computed; those with the same texts are computed once."""

    def __init__(self, predictor: Predictor, examples: Sequence[Example], pool: Executor) -> None:
        self.predictor, self.examples = predictor, examples
        task = predictor.task
        self.problems = [example.error or task.problem(example) for example in examples]
        places: dict[Any, int] = {}  # of each different readable example among the readable
        self.readable: list[Example] = []
        self.which: list[int] = []
        for example, problem in zip(examples, self.problems, strict=True):
            if problem is None:
                place = places.setdefault((example.texts, example.given), len(self.readable))
                if place == len(self.readable):
                    self.readable.append(example)
                self.which.append(place)
        self.windows: list[Encoded] = []
        self.owners: list[int] = []  # which readable example each window is of
        self.groups: list[list[int]] = []
        self.running: list[Any] = []
        order = sorted(range(len(self.readable)), key=lambda place: -sum(map(len, self.readable[place].texts)))
        waiting: list[int] = []
        for part in filter(None, (order[:AHEAD], order[AHEAD:])):
            *full, waiting = self.grouped(waiting + self.encode(part))  # the last may have room for more
            self.start(full, pool)
        self.start([waiting] if waiting else [], pool)

    def encode(self, places: Sequence[int]) -> list[int]:
        """Add the windows of some readable examples; gives their numbers."""
        made = self.predictor.task.encode([self.readable[place] for place in places], self.predictor.tokenizer)
        self.owners += [places[window.example] for window in made]
        self.windows += made
        return list(range(len(self.windows) - len(made), len(self.windows)))

    def grouped(self, windows: Sequence[int]) -> Iterator[list[int]]:
        """The batches of some windows: as many for each stream, so that none waits for the last one of another."""
        engine, lengths = self.predictor.engine, [len(self.windows[number].ids) for number in windows]
        most = engine.max_tokens * engine.streams
        batches = -(-sum(lengths) // most) * engine.streams
        even = max(SMALL, int(PADDED * sum(lengths) / batches))
        for group in budgeted(lengths, min(even, engine.max_tokens), engine.alone):
            yield [windows[place] for place in group]

    def start(self, groups: Sequence[list[int]], pool: Executor) -> None:
        """Let batches be computed."""
        self.groups += groups
        self.running += [pool.submit(self.run, group) for group in groups]

    def run(self, group: Sequence[int]) -> list[Any]:
        """What the task keeps of each window of a group."""
        batch = make_batch([self.windows[index] for index in group])
        rows = np.split(self.predictor.engine.run(batch), np.cumsum(batch.counts)[:-1])
        kept: list[Any] = [None] * len(group)
        for member, own in zip(batch.members.tolist(), rows, strict=True):
            kept[member] = self.predictor.task.reduce(own, self.windows[group[member]])
        return kept

    def finish(self, progress: Progress) -> Iterator[Prediction]:
        """The predictions, in the order of the examples, when all is computed."""
        parts: list[Any] = [None] * len(self.windows)
        done, total = 0, sum(len(window.ids) for window in self.windows)
        for group, running in zip(self.groups, self.running, strict=True):
            for index, part in zip(group, running.result(), strict=True):
                parts[index] = part
                done += len(self.windows[index].ids)
            progress(done / total)
        answers, which = list(self.decoded(parts)), iter(self.which)
        for problem in self.problems:
            yield answers[next(which)] if problem is None else self.predictor.task.failure(problem)

    def decoded(self, parts: Sequence[Any]) -> Iterator[Prediction]:
        own: list[tuple[list[Any], list[Encoded]]] = [([], []) for _ in self.readable]
        for owner, part, window in zip(self.owners, parts, self.windows, strict=True):
            own[owner][0].append(part)
            own[owner][1].append(window)
        task, pieces = self.predictor.task, self.predictor.tokenizer.pieces
        for example, (kept, windows) in zip(self.readable, own, strict=True):
            yield task.decode(example, kept, windows, pieces)


class _Inline(Executor):
    """Runs what is submitted when its result is asked for, on the thread that asks: for engines with threads of
    their own.
    """

    def submit(self, call: Any, /, *arguments: Any, **named: Any) -> Any:
        return _Later(partial(call, *arguments, **named))


@dataclass(frozen=True, slots=True)
class _Later:
    result: Callable[[], Any]


def _chunks(examples: Iterable[Example]) -> Iterator[list[Example]]:
    chunk: list[Example] = []
    characters, most = 0, FIRST_CHUNK
    for example in examples:
        chunk.append(example)
        characters += sum(map(len, example.texts))
        if len(chunk) == most or characters > CHUNK_CHARACTERS:
            yield chunk
            chunk, characters, most = [], 0, min(2 * most, CHUNK)
    if chunk:
        yield chunk


def _advance(bar: Bar, done: int, size: int, share: float) -> None:
    bar.update(done + share * size)


def load(
    directory: str | Path,
    *,
    task: str | None = None,
    engine: Name | None = None,
    precision: Precision | None = None,
    plan: Plan | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Predictor:
    """The trained model in a directory, ready to predict.

    `task` is what it shall do where the directory does not say, or where it can do several things: "pairs" for
    a directory that `transformers` wrote and that reads two texts, "embed", "zero_shot" with a model of pairs.
    `engine` (onnxruntime, openvino, torch) and `precision` (int8, int8-static, bf16, fp32) say how to run it; without
    them, as `bothways tune` found best, else as `open_engine` says; `plan` says streams and batches too.
    `settings` change those of the task, such as `strategy`, `top_k` or `threshold`.

    Raises `CheckpointError` for a directory without a trained model, `OptionError` for an unknown setting.
    """
    from bothways.model.catalogue import find_model

    artifact = Artifact.read(find_model(directory), task, settings)
    opened = open_engine(artifact, reporter or Reporter(quiet=True), engine=engine, precision=precision, plan=plan)
    return Predictor(artifact.task, artifact.tokenizer, opened, artifact)
