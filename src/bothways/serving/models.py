"""The models of a server: loading and reloading them, and turning requests into calls of their pipelines."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bothways import __version__
from bothways.errors import BothwaysError, CheckpointError, OptionError
from bothways.inference.attentions import find_attentions
from bothways.inference.engines.engine import Name, Precision
from bothways.inference.model_directory import SETTINGS
from bothways.inference.predictor import Predictor, load
from bothways.model.catalogue import find_model
from bothways.pipelines import Call, Pipeline, pipeline
from bothways.progress import Reporter
from bothways.serving.batcher import Batcher, QueueFullError, Work
from bothways.serving.limits import Limits
from bothways.serving.problems import ProblemError, of_error
from bothways.tasks import task_name
from bothways.text.modelfiles import read_json

ROUTES: dict[str, dict[str, str]] = {  # task -> {route under /v1: pipeline}
    "classify": {"classify": "text-classification"},
    "pairs": {"classify": "text-classification"},
    "next_sentence": {"classify": "next-sentence-prediction"},
    "tag": {"tag": "token-classification"},
    "answer": {"answer": "question-answering"},
    "zero_shot": {"zero-shot": "zero-shot-classification"},
    "fill": {"fill": "fill-mask"},
    "embed": {"embed": "feature-extraction", "similarity": "sentence-similarity"},
}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MOST_CARD = 200_000  # characters
MOST_GUESSES = 20_000_000  # characters that fill-mask returns: masks x top_k x text
MOST_PAIRED = 2_000_000  # characters: longest text x labels
MOST_ATTENTIONS = 1_000_000  # probabilities per text: layers x heads x tokens²
MOST_TOKEN_VECTORS = 20_000  # characters in a request with pooling "none"
REMEMBERED = 64  # pipelines cached per model


class Spec(NamedTuple):
    """A model to serve: its name, its source, and its task (None: the model's own)."""

    name: str
    source: str
    task: str | None = None

    @classmethod
    def parse(cls, text: str, tasks: Mapping[str, str]) -> Spec:
        """Parse `NAME=MODEL`, or MODEL, named after the last part of its path. `tasks` maps names to tasks.

        >>> Spec.parse("reviews=runs/7", {}).name, Spec.parse("runs/lr=3/best", {}).name
        ('reviews', 'best')
        """
        name, sign, source = text.partition("=")
        if not sign or not NAME.fullmatch(name) or not source:
            source = text
            name = Path(text.rstrip("/").removeprefix("hf:").partition("@")[0]).resolve().name
        if not NAME.fullmatch(name):
            raise OptionError(f"{name!r} cannot be the name of a model in an address; give it one: NAME={source}")
        return cls(name, source, task_name(tasks[name]) if name in tasks else None)


def specs_of(texts: Sequence[str], tasks: Sequence[str]) -> list[Spec]:
    """The models of the command line; `tasks` are NAME=TASK.

    Raises `OptionError` for a duplicate name and for a task whose NAME is not a model.
    """
    pairs = dict(each.partition("=")[::2] for each in tasks)
    specs = [Spec.parse(text, pairs) for text in texts]
    names = [spec.name for spec in specs]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"two models are called {name!r}; give them names: first=DIRECTORY second=DIRECTORY")
    for name, task in pairs.items():
        if name not in names or not task:
            raise OptionError(f"--task {name}={task}: expected NAME=TASK, with the name of a model: {', '.join(names)}")
    return specs


@dataclass(frozen=True, slots=True)
class Loading:
    """Options of `load` that all models share."""

    engine: Name | None = None
    precision: Precision | None = None
    threads: int | None = None
    offline: bool = False


class Prepared(NamedTuple):
    """A request that is ready to queue, and the notes about its options."""

    call: Call
    notes: list[str]


class ServedModel:
    """A loaded model with its predictor, batcher and pipelines."""

    def __init__(self, spec: Spec, predictor: Predictor, batcher: Batcher, limits: Limits) -> None:
        self.spec, self.predictor, self.batcher, self.limits = spec, predictor, batcher, limits
        self.routes = ROUTES[predictor.task.name]
        self.created = int(time.time())
        self.version = _version(predictor)
        self.card = _card(predictor)
        directory = predictor.model_directory
        self._attentions = None if directory is None else find_attentions(directory)
        self._pipeline = lru_cache(maxsize=REMEMBERED)(self._new_pipeline)

    @property
    def name(self) -> str:
        """Its name in URLs."""
        return self.spec.name

    @property
    def mask_token(self) -> str | None:
        """The mask token of a fill-mask model, else None."""
        tokenizer = self.predictor.tokenizer
        if self.predictor.task.name != "fill" or tokenizer.mask_id is None:
            return None
        return tokenizer.convert_ids_to_tokens([tokenizer.mask_id])[0]

    def facts(self) -> dict[str, Any]:
        """Its entry in /v1/models."""
        predictor = self.predictor
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "bothways",
            "task": predictor.task.name,
            "pipelines": list(self.routes.values()),
            "routes": [f"/v1/{route}" for route in self.routes] + (["/v1/embeddings"] if self.embeds else []),
            "labels": list(predictor.labels),
            "mask_token": self.mask_token,
            "max_length": predictor.task.max_length,
            "engine": predictor.engine.describe(),
            "parameters": predictor.engine.parameters,
            "attentions": self.attentions,
            "version": self.version,
            "bothways": __version__,
            "card": self.card,
        }

    @property
    def embeds(self) -> bool:
        """Whether it is an embedding model."""
        return self.predictor.task.name == "embed"

    @property
    def attentions(self) -> dict[str, int] | None:
        """Layers, heads and maximum tokens of its attention probabilities; None if it was exported without them."""
        model = self._attentions
        if model is None:
            return None
        most = math.isqrt(MOST_ATTENTIONS // (model.layers * model.heads))
        most = min(most, self.predictor.task.max_length)
        return {"layers": model.layers, "heads": model.heads, "max_tokens": most}

    def prepare(self, route: str, inputs: Sequence[Any], options: Mapping[str, Any]) -> Prepared:
        """Turn a request into a call of the route's pipeline; raises `ProblemError` for invalid or too much input."""
        self._check(inputs, options)
        settings = {name: value for name, value in options.items() if name != "candidate_labels"}
        try:
            made, notes = self._pipeline(self.routes[route], json.dumps(settings, sort_keys=True))
            labels = {"candidate_labels": options["candidate_labels"]} if "candidate_labels" in options else {}
            return Prepared(made.prepare(inputs, **labels), notes)
        except BothwaysError as error:
            raise of_error(error) from None

    def submit(self, call: Call, on_done: Callable[[], None], client: Hashable) -> Work:
        """Queue a call; raises `ProblemError` 429 if the queue is full."""
        try:
            return self.batcher.submit(call.predictor.task, call.examples, on_done, client=client)
        except QueueFullError as full:
            raise ProblemError(429, str(full), {"Retry-After": str(full.retry_after)}) from None

    def tokens(self, text: str, pair: str | None, *, attentions: bool = False) -> dict[str, Any]:
        """The tokens of a text or pair, as one window, and the number of windows that the model reads.

        With `attentions` also the attention probabilities. Raises `ProblemError` if the model was exported without
        them, or if the text is too long for them.
        """
        tokenizer, task = self.predictor.tokenizer, self.predictor.task
        encoded = tokenizer.encode(text, pair)
        shares = self._shares(encoded.ids, encoded.type_ids) if attentions else None
        columns = (encoded.ids, encoded.type_ids, encoded.sequence_ids, encoded.offsets)
        rows = zip(tokenizer.convert_ids_to_tokens(encoded.ids), *(column.tolist() for column in columns), strict=True)
        texts = (text,) if pair is None else (text, pair)
        windows = tokenizer.windows([texts], max_length=task.max_length, stride=task.stride, truncation=task.truncation)
        return {
            "model": self.name,
            "tokens": [
                {
                    "token": token,
                    "id": id,
                    "type_id": type_id,
                    "start": start,
                    "end": end,
                    "text": place if place >= 0 else None,
                }
                for token, id, type_id, place, (start, end) in rows
            ],
            "windows": len(windows),
            "max_length": task.max_length,
            "attentions": shares,
        }

    def _shares(self, ids: np.ndarray, type_ids: np.ndarray) -> Any:
        """(T,) ids -> (layers, heads, T, T) attention probabilities as lists, rounded to 3 digits."""
        facts, model = self.attentions, self._attentions
        if facts is None or model is None:
            raise ProblemError(
                422, "the model was exported without attentions; bothways export DIR --attentions adds them"
            )
        if len(ids) > facts["max_tokens"]:
            raise _too_much("tokens for attentions", len(ids), facts["max_tokens"], "a shorter text")
        try:
            return model.run(ids, type_ids).astype(np.float64).round(3).tolist()
        except CheckpointError:
            raise ProblemError(500, "the ONNX model of the attentions is damaged; export it again") from None

    def warm(self) -> None:
        """Open all sessions and run one text of medium length; errors are raised."""
        self.predictor.engine.open()
        task, tokenizer = self.predictor.task, self.predictor.tokenizer
        word = (
            tokenizer.convert_ids_to_tokens([tokenizer.mask_id])[0]
            if self.mask_token and tokenizer.mask_id is not None
            else "warm"
        )
        text = f"{word} up " * (task.max_length // 8)
        given: Any = (text, text) if len(task.texts) == 2 or task.name == "answer" else text
        given = (text, ["warm", "cold"]) if task.name == "zero_shot" else given
        self.predictor([task.example(given)])

    def _new_pipeline(self, kind: str, settings: str) -> tuple[Pipeline, list[str]]:
        options = json.loads(settings)
        task: Any = self.predictor.task
        if kind == "feature-extraction":
            options = {"pooling": "mean" if task.pooling == "none" else task.pooling} | options
            options = {"normalize": task.normalize and options["pooling"] != "none"} | options
        heard = _Heard()
        made = pipeline(kind, self.predictor, reporter=heard, **options)
        changed = made.prepare([], **_labels_for(kind)).predictor.task
        if 2 * changed.stride > changed.max_length and (changed.stride, changed.max_length) != (
            task.stride,
            task.max_length,
        ):
            raise OptionError(
                f"windows of {changed.max_length} tokens that share {changed.stride}: expected an overlap of at most "
                "half a window"
            )
        return made, heard.lines

    def _check(self, inputs: Sequence[Any], options: Mapping[str, Any]) -> None:
        limits = self.limits
        if len(inputs) > limits.max_texts:
            raise _too_much("inputs", len(inputs), limits.max_texts, "several requests")
        texts = [text for one in inputs for text in _texts(one)]
        if len(texts) > 2 * limits.max_texts:
            raise _too_much("sentences", len(texts), 2 * limits.max_texts, "several requests")
        longest = max(map(len, texts))
        if longest > limits.max_characters:
            raise _too_much("characters in a text", longest, limits.max_characters, "parts of it")
        labels = len(options.get("candidate_labels") or ())
        if labels > limits.max_labels:
            raise _too_much("candidate labels", labels, limits.max_labels, "fewer")
        if labels * longest > MOST_PAIRED:
            raise _too_much("characters to read (text x labels)", labels * longest, MOST_PAIRED, "parts of it")
        if self.mask_token is not None:
            size = sum(len(text) * text.count(self.mask_token) for text in texts) * (options.get("top_k") or 5)
            if size > MOST_GUESSES:
                raise _too_much("characters to give back (masks x top_k x text)", size, MOST_GUESSES, "fewer masks")
        if options.get("pooling") == "none" and sum(map(len, texts)) > MOST_TOKEN_VECTORS:
            raise _too_much("characters with a vector for each token", sum(map(len, texts)), MOST_TOKEN_VECTORS, "less")


class Models:
    """The models of a server, by name."""

    def __init__(self, models: Sequence[ServedModel], reopen: Callable[[Spec], ServedModel]) -> None:
        self._models = {model.name: model for model in models}
        self._reopen = reopen
        self._reloading: set[str] = set()

    def __iter__(self) -> Any:
        return iter(self._models.values())

    def named(self, name: str) -> ServedModel:
        """The model of this name; raises `ProblemError` 404 if it is not served."""
        if name not in self._models:
            raise ProblemError(404, f"no model of this name is served; there are {', '.join(self._models)}")
        return self._models[name]

    def answering(self, route: str, name: str | None) -> ServedModel:
        """The model `name`, or without a name the first that has the route; raises `ProblemError` 404 if none has."""
        able = [model for model in self if route in model.routes]
        if name is None:
            if not able:
                raise ProblemError(404, f"no model of this server supports /v1/{route}; /v1/models lists all")
            return able[0]
        found = self.named(name)
        if found not in able:
            raise ProblemError(
                404, f"the model answers {', '.join(found.facts()['routes'])}, not /v1/{route}; /v1/models lists all"
            )
        return found

    async def reload(self, name: str) -> ServedModel:
        """Load a model again. The old one answers requests until the new one is warm; no request is lost.

        Raises `ProblemError`: 409 while it is being reloaded, 422 if the directory cannot be served.
        """
        before = self.named(name)
        if name in self._reloading:
            raise ProblemError(409, "the model is being reloaded")
        self._reloading.add(name)
        try:
            made = await asyncio.to_thread(self._reopen, before.spec)
        except BothwaysError as error:
            raise of_error(error) from None
        finally:
            self._reloading.discard(name)
        self._models[name] = made
        await asyncio.to_thread(before.batcher.close)
        return made

    def close(self) -> None:
        """Close all batchers after they have computed their queues."""
        for model in self:
            model.batcher.close()


def open_model(
    spec: Spec,
    loading: Loading,
    limits: Limits,
    *,
    slots: threading.BoundedSemaphore | None = None,
    on_batch: Callable[[str, int, int], None] | None = None,
    reporter: Reporter | None = None,
) -> ServedModel:
    """Load a model and warm it up. An encoder without a head is served for its embeddings.

    `slots` bounds the number of concurrent batches over all models. Raises what `load` raises.
    """
    reporter = reporter or Reporter(quiet=True)
    directory, task = resolve(spec, loading, reporter)
    predictor = load(
        directory,
        task=task,
        engine=loading.engine,
        precision=loading.precision,
        threads=loading.threads,
        offline=loading.offline,
        reporter=reporter,
    )
    name = spec.name
    observe = None if on_batch is None else lambda tokens, windows: on_batch(name, tokens, windows)
    batcher = Batcher(predictor.engine, predictor.tokenizer, room=limits.max_queue, on_batch=observe, slots=slots)
    made = ServedModel(spec, predictor, batcher, limits)
    made.warm()
    return made


def resolve(spec: Spec, loading: Loading, reporter: Reporter) -> tuple[Path, str | None]:
    """The directory of a model, and the task to load it for (None: its own)."""
    directory = find_model(spec.source, offline=loading.offline, reporter=reporter)
    return directory, "embed" if spec.task is None and _is_bare(directory) else spec.task


def _is_bare(directory: Path) -> bool:
    """Whether a `transformers` directory holds an encoder without a head."""
    if (directory / SETTINGS).is_file():
        return False
    architectures = read_json(directory / "config.json").get("architectures") or ["Model"]
    return str(architectures[0]).endswith("Model")


def _labels_for(kind: str) -> dict[str, Any]:
    return {"candidate_labels": ["a"]} if kind == "zero-shot-classification" else {}


def _texts(one: Any) -> list[str]:
    """All texts of an input."""
    if isinstance(one, Mapping):
        values = [value for value in one.values() if isinstance(value, str | list)]
        return [text for value in values for text in (value if isinstance(value, list) else [value])] or [""]
    return [one]


def _too_much(what: str, found: int, most: int, advice: str) -> ProblemError:
    return ProblemError(422, f"found {found:,} {what}, expected at most {most:,}; send {advice}")


def _version(predictor: Predictor) -> str:
    """A hash of the model's files."""
    digest = hashlib.sha256()
    files = [] if predictor.model_directory is None else predictor.model_directory.files()
    weights = predictor.engine.weights
    for path in [*files, *([weights] if weights is not None else [])]:
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


def _card(predictor: Predictor) -> str | None:
    """The README.md of the model directory, or None."""
    path = None if predictor.model_directory is None else predictor.model_directory.path / "README.md"
    if path is None or not path.is_file():
        return None
    return path.read_text(encoding="utf-8", errors="replace")[:MOST_CARD]


class _Heard(Reporter):
    """Collects notes."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """Append a note."""
        self.lines.append(text)
