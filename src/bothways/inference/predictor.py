"""The only inference path: encode, sort, batch, run, put back in order, decode."""

from __future__ import annotations

import os
import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from bothways.batch import budgeted, make_batch
from bothways.data.examples import Example
from bothways.errors import CheckpointError, DataError, OptionError
from bothways.hardware import Device
from bothways.inference.choice import open_engine
from bothways.inference.engines.by_length import part_for
from bothways.inference.engines.engine import Engine, Name, Precision, finite_logits
from bothways.inference.model_directory import ModelDirectory
from bothways.inference.plan import Plan
from bothways.inference.workers import Direct, Job, Jobs, Reader, Workers
from bothways.progress import Bar, Reporter
from bothways.tasks import Task
from bothways.tasks.task import Prediction
from bothways.text.tokenizer import Encoded, Tokenizer

CHUNK = 4096  # examples sorted together: many enough to fill batches with equal lengths, few enough for memory
FIRST_CHUNK = 1024  # and at first, so that answers come soon; each chunk is twice the one before
FIRST_OF_STREAM = 64  # the same for inputs that come one by one
SMALL = 128  # tokens: fewer are not worth a batch
PADDED = 1.05  # tokens with padding, of those without
AHEAD = 128  # examples of a chunk, the longest, that are computed while the others are encoded
CHUNK_CHARACTERS = 1_000_000  # soft limit on the characters in a chunk
Progress = Callable[[float], None]  # told the share that is done


class Predictor:
    """A task, its tokenizer and an engine; training evaluates with the same one that serves.

    It can be used by several threads at once, pickled, and used after a fork (but see `OpenVinoEngine`).
    """

    def __init__(
        self, task: Task, tokenizer: Tokenizer, engine: Engine, model_directory: ModelDirectory | None = None
    ) -> None:
        self.task, self.tokenizer, self.engine, self.model_directory = task, tokenizer, engine, model_directory
        self._workers = Workers(engine.workers)

    def with_task(self, task: Task) -> Predictor:
        """The same model for a task with other settings; both share their threads."""
        made = Predictor(task, self.tokenizer, self.engine, self.model_directory)
        made._workers = self._workers
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_workers"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._workers = Workers(self.engine.workers)

    def __repr__(self) -> str:
        shown, rest = ", ".join(self.labels[:4]), len(self.labels) - 4
        about = f"{self.task.name}: {shown}{f' and {rest} more' if rest > 0 else ''}" if shown else self.task.name
        where = "" if self.model_directory is None else f"; {self.model_directory.path}"
        return f"<Predictor {about[:200]}{where}; {self.engine.describe()}>"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the model, in the order of `predict_proba`; empty for a task that has none."""
        return tuple(getattr(self.task, "labels", ()))

    def __call__(self, inputs: Iterable[Any]) -> list[Any]:
        """Predictions for inputs (texts; for pairs and questions, tuples of two), in their order.

        A text that cannot be answered, such as an empty one, has a prediction with an `error`. Raises `DataError` for
        an input that is none, with its place from 0.
        """
        return self.predict_examples(self._examples(inputs))

    def predict(self, inputs: Iterable[Any]) -> list[Any]:
        """The answers alone, in the order of the inputs; None where there is none (`model(inputs)` says why).

        For classes a label, or a tuple of labels of a multi-label model; for regression a number; for entities a list
        of dicts; for questions the text of the answer; for masked tokens the best of each mask; for embeddings a
        vector.
        """
        return [None if one.error is not None else _plain(one) for one in self(inputs)]

    def predict_proba(self, inputs: Iterable[Any]) -> np.ndarray:
        """(N, L) probabilities of the labels, in the order of `labels`; those of a multi-label model do not add up.

        Raises `OptionError` for a task without classes, `DataError` for an input that cannot be answered.
        """
        labels = self.labels
        if not labels or getattr(self.task, "kind", None) not in ("single", "multi"):
            what = "numbers" if getattr(self.task, "kind", None) == "regression" else "no classes"
            if not labels and self.task.name == "zero_shot":
                what = "no labels of its own (give them to load: labels=[...])"
            raise OptionError(f"predict_proba is for classes, and this {self.task.name} model has {what}; use predict")
        found = self(inputs)
        for place, one in enumerate(found):
            if one.error is not None:
                raise DataError(f"input {place} (from 0): {one.error}; leave it out, or call the model, which goes on")
        rows = [[one.scores[label] for label in labels] for one in found]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(labels))

    def predict_examples(self, examples: Sequence[Example], reporter: Reporter | None = None) -> list[Any]:
        """Predictions for examples, in their order."""
        if len(examples) == 1 and reporter is None:  # without a stream, which takes longer to begin and to end
            chunk = _Chunk(self, examples, Jobs(self._workers_here()))
            try:
                return list(chunk.start().finish(None))
            finally:
                chunk.shared.close()
        return list(self.stream(examples, total=len(examples), reporter=reporter))

    def stream(
        self, inputs: Iterable[Any], *, total: int = 0, chunk: int | None = None, reporter: Reporter | None = None
    ) -> Iterator[Any]:
        """Predictions one by one, in order, for examples or for inputs as in a call.

        Answers come as they are ready: an input is answered without waiting for further ones, unless they come within
        some milliseconds. An input of the wrong kind has a prediction with an `error`. What the source raises comes
        after the answers to what it gave before. No more than two chunks of inputs are held at a time.

        The source is read on a separate thread, unless it is a sequence. With `chunk`, that many inputs are read, on
        the calling thread, and answered before the next ones are read.
        """
        if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
            raise DataError(f"found {reprlib.repr(inputs)}, expected inputs one by one: a list or an iterator of texts")
        if chunk is not None and (type(chunk) is not int or chunk < 1):
            raise OptionError(f"chunk is {chunk!r}, expected a whole number from 1")
        return self._stream(inputs, total, chunk, reporter or Reporter(quiet=True))

    def _stream(self, inputs: Iterable[Any], total: int, chunk: int | None, reporter: Reporter) -> Iterator[Any]:
        """While one chunk is computed, the next one is encoded and the one before is decoded."""
        examples = (one if isinstance(one, Example) else self._example(one) for one in inputs)
        direct = chunk is not None or isinstance(inputs, Sequence)
        source = Direct(examples, self.task.size) if direct else Reader(examples, self.task.size).start()
        jobs = Jobs(self._workers_here())
        running: deque[_Chunk] = deque()
        done, most = 0, chunk or (FIRST_CHUNK if direct else min(FIRST_OF_STREAM, FIRST_CHUNK))
        try:
            with reporter.bar("predicting", total) if total else nullcontext() as bar:
                while running or not source.ended:
                    if len(running) < (2 if chunk is None else 1) and not source.ended:
                        taken = source.take(most, CHUNK_CHARACTERS, wait=not running)
                        if taken:
                            running.append(_Chunk(self, taken, jobs).start())
                            most = chunk or (min(2 * most, CHUNK) if len(taken) == most else most)
                            continue
                    if running:
                        first = running.popleft()
                        yield from first.finish(None if bar is None else partial(_advance, bar, done, first.size))
                        done += first.size
            if source.error is not None:
                raise source.error
        finally:
            source.close()
            jobs.close()

    def _workers_here(self) -> Workers:
        """The threads for the engine in this process; after a fork they are others."""
        if self._workers.process != os.getpid() or self._workers.count != self.engine.workers:
            self._workers = Workers(self.engine.workers)
        return self._workers

    def _example(self, given: Any) -> Example:
        try:
            return self.task.example(given)
        except DataError as error:
            return Example(("",) * max(1, len(self.task.texts)), error=str(error))

    def _examples(self, inputs: Iterable[Any]) -> list[Example]:
        """The examples of a call; raises `DataError` for what is not a list of inputs, or holds one that is none."""
        if isinstance(inputs, str | bytes):
            raise DataError("a single string was given, expected a list of texts: model([text])")
        if hasattr(inputs, "columns"):
            raise DataError("a table was given, expected one of its columns: model(frame['text'])")
        if isinstance(inputs, Mapping | set | frozenset) or not isinstance(inputs, Iterable):
            raise DataError(f"found {reprlib.repr(inputs)}, expected texts in an order: a list, a column, a generator")
        examples = []
        for place, one in enumerate(inputs):
            try:
                examples.append(one if isinstance(one, Example) else self.task.example(one))
            except DataError as error:
                raise DataError(f"input {place} (from 0): {error}") from None
        return examples


def _plain(prediction: Any) -> Any:
    """The answer of a prediction without what else it says."""
    answer = prediction.answer(all_scores=False)
    if answer.get("labels") is not None:
        return tuple(answer["labels"])
    if "masks" in answer:
        return [guesses[0]["token_str"] for guesses in answer["masks"]]
    if "embedding" in answer:
        return prediction.vector
    return next(answer[key] for key in ("label", "entities", "answer", "score") if key in answer)


class _Chunk:
    """Examples whose batches are being computed; those with the same texts are computed once."""

    def __init__(self, predictor: Predictor, examples: Sequence[Example], shared: Jobs) -> None:
        self.predictor, self.size, self.shared = predictor, len(examples), shared
        task = predictor.task
        self.problems = [example.error or task.problem(example) for example in examples]
        places: dict[Any, int] = {}  # of each different readable example among the readable
        self.readable: list[Example] = []
        self.which: list[int] = []
        for example, problem in zip(examples, self.problems, strict=True):
            if problem is None:
                place = places.setdefault((example.texts, example.details), len(self.readable))
                if place == len(self.readable):
                    self.readable.append(example)
                self.which.append(place)
        self.windows: list[Encoded] = []
        self.owners: list[int] = []  # which readable example each window is of
        self.groups: list[list[int]] = []
        self.jobs: list[Job] = []

    def start(self) -> Self:
        """Encode the longest examples first, so that the workers are busy while the others are encoded."""
        order = sorted(range(len(self.readable)), key=lambda place: -sum(map(len, self.readable[place].texts)))
        waiting: list[int] = []
        parts = [part for part in (order[:AHEAD], order[AHEAD:]) if part]
        for part in parts:
            *full, waiting = self.grouped(waiting + self.encode(part))  # the last may have room for more
            self.submit(full, more=True)
        self.submit([waiting] if waiting else [], more=False)
        return self

    def encode(self, places: Sequence[int]) -> list[int]:
        """Add the windows of some readable examples; gives their numbers."""
        made = self.predictor.task.encode([self.readable[place] for place in places], self.predictor.tokenizer)
        self.owners += [places[window.example] for window in made]
        self.windows += made
        return list(range(len(self.windows) - len(made), len(self.windows)))

    def grouped(self, windows: Sequence[int]) -> Iterator[list[int]]:
        """The batches of some windows: as many for each stream, so that none waits for the last one of another.

        No batch has windows of two engines, so that a window is run by the same one alone and among others.
        """
        parts: dict[int, tuple[Engine, list[int]]] = {}
        for number in sorted(windows, key=lambda number: -len(self.windows[number].ids)):
            engine = part_for(self.predictor.engine, len(self.windows[number].ids))
            parts.setdefault(id(engine), (engine, []))[1].append(number)
        for engine, numbers in parts.values():
            lengths = [len(self.windows[number].ids) for number in numbers]
            most = engine.max_tokens * engine.workers
            batches = -(-sum(lengths) // most) * engine.workers
            even = max(SMALL, int(PADDED * sum(lengths) / batches))
            for group in budgeted(lengths, min(even, engine.max_tokens), engine.unbatched_from):
                yield [numbers[place] for place in group]

    def submit(self, groups: Sequence[list[int]], *, more: bool) -> None:
        """Let batches be computed; `more` says that others follow."""
        self.groups += groups
        self.jobs += self.shared.submit([partial(self.run, group) for group in groups], more=more)

    def run(self, group: Sequence[int]) -> list[Any]:
        """What the task keeps of each window of a group."""
        batch = make_batch([self.windows[index] for index in group])
        logits = finite_logits(self.predictor.engine, batch)
        if len(group) == 1:
            return [self.predictor.task.reduce(logits, self.windows[group[0]])]
        rows = np.split(logits, np.cumsum(batch.counts)[:-1])
        kept: list[Any] = [None] * len(group)
        for member, own in zip(batch.members.tolist(), rows, strict=True):
            kept[member] = self.predictor.task.reduce(own, self.windows[group[member]])
        return kept

    def finish(self, progress: Progress | None) -> Iterator[Prediction]:
        """The predictions, in the order of the examples, when all is computed."""
        parts: list[Any] = [None] * len(self.windows)
        done, total = 0, sum(len(window.ids) for window in self.windows)
        for group, job in zip(self.groups, self.jobs, strict=True):
            for index, part in zip(group, self.shared.result(job), strict=True):
                parts[index] = part
                done += len(self.windows[index].ids)
            if progress is not None:
                progress(done / total)
        answers, which = list(self.decoded(parts)), iter(self.which)
        for problem in self.problems:
            yield answers[next(which)] if problem is None else self.predictor.task.failure(problem)

    def decoded(self, parts: Sequence[Any]) -> Iterator[Prediction]:
        own: list[tuple[list[Any], list[Encoded]]] = [([], []) for _ in self.readable]
        for owner, part, window in zip(self.owners, parts, self.windows, strict=True):
            own[owner][0].append(part)
            own[owner][1].append(window)
        task, tokenizer = self.predictor.task, self.predictor.tokenizer
        for example, (kept, windows) in zip(self.readable, own, strict=True):
            yield task.decode(example, kept, windows, tokenizer)


def _advance(bar: Bar, done: int, size: int, share: float) -> None:
    bar.update(done + share * size)


def load(
    directory: str | Path,
    *,
    task: str | None = None,
    engine: Name | None = None,
    precision: Precision | None = None,
    device: Device | None = None,
    threads: int | None = None,
    plan: Plan | None = None,
    offline: bool = False,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Predictor:
    """The trained model in a directory, ready to predict.

    `task` selects the task if the directory does not record one, or the model supports several: "pairs" for
    a directory that `transformers` wrote and that reads two texts, "embed", "zero_shot" with a model of pairs.
    `engine` (onnxruntime, openvino, torch) and `precision` (int8, int8-static, bf16, fp32) say how to run it; without
    them, as `bothways tune` found best, else as `open_engine` says; `plan` says workers and batch size too. `threads`
    is the number of cores to use (else all that this process may use), `device` "cuda" runs PyTorch on the GPU.
    `offline` downloads nothing.
    `settings` change those of the task, such as `aggregation_strategy`, `top_k` or `threshold`.

    Raises `CheckpointError` for a directory without a trained model, or one that is being replaced, `OptionError` for
    an unknown setting or one that belongs to the weights.
    """
    from bothways.model.catalogue import find_model

    reporter = reporter or Reporter(quiet=True)
    found = find_model(directory, offline=offline, reporter=reporter)
    before = ModelDirectory.stamps(found)
    model_directory = ModelDirectory.read(found, task, settings)
    opened = open_engine(
        model_directory, reporter, engine=engine, precision=precision, plan=plan, threads=threads, device=device
    )
    if ModelDirectory.stamps(found) != before:
        raise CheckpointError(f"{found}: its files were replaced while it was loaded; load it again")
    return Predictor(model_directory.task, model_directory.tokenizer, opened, model_directory)
