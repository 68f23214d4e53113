"""The only inference path: encode, sort, batch, run, restore the order, decode."""

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

CHUNK = 4096  # examples sorted together: enough to fill batches of equal lengths, few enough for memory
FIRST_CHUNK = 1024  # the first chunk is smaller, for early answers; each chunk is twice the previous one
FIRST_OF_STREAM = 64  # the same for streams
SMALL = 128  # tokens: minimum budget of a batch
PADDED = 1.05  # expected ratio of tokens with padding to tokens without
AHEAD = 128  # longest examples of a chunk, computed while the others are encoded
CHUNK_CHARACTERS = 1_000_000  # soft limit on the characters in a chunk
Progress = Callable[[float], None]  # called with the completed fraction


class Predictor:
    """A task, its tokenizer and an engine; evaluation during training and serving use the same class.

    It is thread-safe, can be pickled, and can be used after a fork (but see `OpenVinoEngine`).
    """

    def __init__(
        self, task: Task, tokenizer: Tokenizer, engine: Engine, model_directory: ModelDirectory | None = None
    ) -> None:
        self.task, self.tokenizer, self.engine, self.model_directory = task, tokenizer, engine, model_directory
        self._workers = Workers(engine.workers)

    def with_task(self, task: Task) -> Predictor:
        """Return the same model for a task with other settings; both share worker threads."""
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
        """The labels of the model, in the order of `predict_proba`; empty for a task without labels."""
        return tuple(getattr(self.task, "labels", ()))

    def __call__(self, inputs: Iterable[Any]) -> list[Any]:
        """Return predictions for inputs (texts; for pairs and questions, tuples of two), in their order.

        A text without an answer, such as an empty one, gets a prediction with an `error`. Raises `DataError` with the
        index (from 0) of an input of the wrong kind.
        """
        return self.predict_examples(self._examples(inputs))

    def predict(self, inputs: Iterable[Any]) -> list[Any]:
        """Return only the answers, in the order of the inputs; None if there is an error (see `model(inputs)`).

        An answer is a label, a tuple of labels (multi-label models), a number (regression), a list of dicts (entities),
        the answer text (questions), the best token for each mask (masked tokens) or a vector (embeddings).
        """
        return [None if one.error is not None else _plain(one) for one in self(inputs)]

    def predict_proba(self, inputs: Iterable[Any]) -> np.ndarray:
        """Return (N, L) probabilities in the order of `labels`; those of a multi-label model do not sum to 1.

        Raises `OptionError` for a task without classes, and `DataError` for an input without an answer.
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
                raise DataError(f"input {place} (from 0): {one.error}; remove it, or call the model to get the rest")
        rows = [[one.scores[label] for label in labels] for one in found]
        return np.array(rows, dtype=np.float64).reshape(len(rows), len(labels))

    def predict_examples(self, examples: Sequence[Example], reporter: Reporter | None = None) -> list[Any]:
        """Return predictions for examples, in their order."""
        if len(examples) == 1 and reporter is None:  # avoid the overhead of a stream
            chunk = _Chunk(self, examples, Jobs(self._workers_here()))
            try:
                return list(chunk.start().finish(None))
            finally:
                chunk.shared.close()
        return list(self.stream(examples, total=len(examples), reporter=reporter))

    def stream(
        self, inputs: Iterable[Any], *, total: int = 0, chunk: int | None = None, reporter: Reporter | None = None
    ) -> Iterator[Any]:
        """Yield predictions in order, for examples or for inputs as in a call.

        An input is answered without waiting for further inputs, unless they arrive within a few milliseconds. An input
        of the wrong kind gets a prediction with an `error`. An exception of the source is raised after the answers to
        earlier inputs. At most two chunks of inputs are held at a time.

        The source is read on a separate thread, unless it is a sequence. With `chunk`, the calling thread reads that
        many inputs, and they are answered before the next ones are read.
        """
        if isinstance(inputs, str | bytes | Mapping) or not isinstance(inputs, Iterable):
            raise DataError(f"found {reprlib.repr(inputs)}, expected a list or an iterator of texts")
        if chunk is not None and (type(chunk) is not int or chunk < 1):
            raise OptionError(f"chunk is {chunk!r}, expected a whole number from 1")
        return self._stream(inputs, total, chunk, reporter or Reporter(quiet=True))

    def _stream(self, inputs: Iterable[Any], total: int, chunk: int | None, reporter: Reporter) -> Iterator[Any]:
        """While one chunk is computed, the next one is encoded and the previous one is decoded."""
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
        """Return the engine's threads in this process; after a fork, new ones."""
        if self._workers.process != os.getpid() or self._workers.count != self.engine.workers:
            self._workers = Workers(self.engine.workers)
        return self._workers

    def _example(self, given: Any) -> Example:
        try:
            return self.task.example(given)
        except DataError as error:
            return Example(("",) * max(1, len(self.task.texts)), error=str(error))

    def _examples(self, inputs: Iterable[Any]) -> list[Example]:
        """Return the examples of a call; raises `DataError` for inputs that are not a list or of the wrong kind."""
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
    """Return only the answer of a prediction."""
    answer = prediction.answer(all_scores=False)
    if answer.get("labels") is not None:
        return tuple(answer["labels"])
    if "masks" in answer:
        return [guesses[0]["token_str"] for guesses in answer["masks"]]
    if "embedding" in answer:
        return prediction.vector
    return next(answer[key] for key in ("label", "entities", "answer", "score") if key in answer)


class _Chunk:
    """Examples whose batches are being computed; equal examples are computed once."""

    def __init__(self, predictor: Predictor, examples: Sequence[Example], shared: Jobs) -> None:
        self.predictor, self.size, self.shared = predictor, len(examples), shared
        task = predictor.task
        self.problems = [example.error or task.problem(example) for example in examples]
        places: dict[Any, int] = {}  # index of each distinct example in `readable`
        self.readable: list[Example] = []
        self.which: list[int] = []
        for example, problem in zip(examples, self.problems, strict=True):
            if problem is None:
                place = places.setdefault((example.texts, example.details), len(self.readable))
                if place == len(self.readable):
                    self.readable.append(example)
                self.which.append(place)
        self.windows: list[Encoded] = []
        self.owners: list[int] = []  # the readable example of each window
        self.groups: list[list[int]] = []
        self.jobs: list[Job] = []

    def start(self) -> Self:
        """Encode the longest examples first, so that the workers are busy while the others are encoded."""
        order = sorted(range(len(self.readable)), key=lambda place: -sum(map(len, self.readable[place].texts)))
        waiting: list[int] = []
        parts = [part for part in (order[:AHEAD], order[AHEAD:]) if part]
        for part in parts:
            *full, waiting = self.grouped(waiting + self.encode(part))  # the last batch may have room for more
            self.submit(full, more=True)
        self.submit([waiting] if waiting else [], more=False)
        return self

    def encode(self, places: Sequence[int]) -> list[int]:
        """Add the windows of some readable examples; returns their indices."""
        made = self.predictor.task.encode([self.readable[place] for place in places], self.predictor.tokenizer)
        self.owners += [places[window.example] for window in made]
        self.windows += made
        return list(range(len(self.windows) - len(made), len(self.windows)))

    def grouped(self, windows: Sequence[int]) -> Iterator[list[int]]:
        """Yield batches of windows, the same number for each worker, so that all finish at about the same time.

        A batch never mixes windows of two engines, so a window runs on the same engine alone and in a batch.
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
        """Submit batches; `more` means that others follow."""
        self.groups += groups
        self.jobs += self.shared.submit([partial(self.run, group) for group in groups], more=more)

    def run(self, group: Sequence[int]) -> list[Any]:
        """Run one batch; returns the task's reduced result for each window."""
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
        """Decode examples while batches are computed, then yield the predictions in the order of the examples."""
        task, tokenizer = self.predictor.task, self.predictor.tokenizer
        own: list[list[int]] = [[] for _ in self.readable]  # the windows of each example
        for index, owner in enumerate(self.owners):
            own[owner].append(index)
        waiting = list(map(len, own))  # how many of them are not computed
        parts: list[Any] = [None] * len(self.windows)
        answers: list[Any] = [None] * len(self.readable)
        done, total = 0, sum(len(window.ids) for window in self.windows)
        for group, job in zip(self.groups, self.jobs, strict=True):
            for index, part in zip(group, self.shared.result(job), strict=True):
                parts[index] = part
                done += len(self.windows[index].ids)
                owner = self.owners[index]
                waiting[owner] -= 1
                if not waiting[owner]:
                    kept, windows = [parts[one] for one in own[owner]], [self.windows[one] for one in own[owner]]
                    answers[owner] = task.decode(self.readable[owner], kept, windows, tokenizer)
            if progress is not None:
                progress(done / total)
        which = iter(self.which)
        for problem in self.problems:
            yield answers[next(which)] if problem is None else task.failure(problem)


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
    """Load a trained model for prediction.

    `task` selects the task if the directory does not record one, or if the model supports several: "pairs" for a
    `transformers` directory of a sentence-pair model, "embed", or "zero_shot" with a sentence-pair model.
    `engine` (onnxruntime, openvino, torch) and `precision` (int8, int8-static, bf16, fp32) select how to run it; the
    default is the result of `bothways tune`, else the choice of `open_engine`. `plan` also sets workers and batch size.
    `threads` is the number of cores (default: all that this process may use); `device` "cuda" runs PyTorch on the GPU.
    `offline` disables downloads. `settings` override task settings such as `aggregation_strategy`, `top_k` or
    `threshold`.

    Raises `CheckpointError` if the directory has no trained model or is being replaced, and `OptionError` for a setting
    that is unknown or fixed by the weights.
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
