"""`pipeline(task, model)` with the task names, arguments and result keys of transformers 4, on top of `Predictor`.

docs/pipelines.md lists the arguments: supported, accepted without effect, or an error.
"""

from __future__ import annotations

import importlib.util
import operator
import os
import re
import reprlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from bothways.data.examples import CandidateLabels, Example
from bothways.errors import DataError, ModelNotFoundError, OptionError
from bothways.hardware import Device
from bothways.inference.engines.engine import Name, Precision
from bothways.inference.model_directory import SETTINGS
from bothways.inference.predictor import Predictor, load
from bothways.model.config import WEIGHTS
from bothways.progress import Reporter
from bothways.tasks.task import Prediction, Task
from bothways.tasks.zero_shot import label_problem


class DictResult(dict[str, Any]):
    """A dict as in transformers, with the number of windows and of truncated tokens, and the error if any."""

    windows: int
    truncated: int
    error: str | None


class ListResult(list[Any]):
    """A list as in transformers, with the attributes of `DictResult`."""

    windows: int
    truncated: int
    error: str | None


Options = Mapping[str, Any]
Settings = Callable[[Options, Task], dict[str, Any]]  # options, loaded task -> settings to change
Shape = Callable[[Any, Any, Options], Any]  # prediction, input, options -> result
Mode = Literal["one", "list", "stream"]  # kind of input; "one" and "list" raise on an error, "list" with the index


class Call(NamedTuple):
    """A prepared call: `results` converts the predictor's predictions for `examples` into results."""

    predictor: Predictor
    examples: list[Example]
    results: Callable[[Sequence[Any]], list[Any]]


class PipelineSpec(NamedTuple):
    """A row of `PIPELINES`: the task, the accepted options, the format of a result.

    `window` has the names of the options for `max_length` and `stride` ("" if there is none).
    """

    task: str
    options: tuple[str, ...]
    settings: Settings
    shape: Shape
    window: tuple[str, str] = ("", "")
    default: str = ""  # the default model


class Pipeline:
    """A callable that returns a result for one input, a list for many, and an iterator for a stream."""

    def __init__(self, name: str, predictor: Predictor, options: Options, reporter: Reporter | None = None) -> None:
        self.name, self.kind = name, PIPELINES[name]
        self.predictor, self.options = predictor, dict(options)
        self.reporter = reporter or Reporter(quiet=True)
        self._noted: set[str] = set()
        if predictor.task.name not in (self.kind.task, *_ALSO.get(name, ())):
            raise OptionError(f"the model was loaded for the task {predictor.task.name}, expected {self.kind.task}")
        # The config of a transformers classifier does not state whether it reads texts or pairs: accept both.
        model_directory = predictor.model_directory
        foreign = model_directory is not None and not (model_directory.path / SETTINGS).is_file()
        self._pairs_too = foreign and name == "text-classification"
        self._usual = self._predictor(self.options)  # raises for wrong options before the first call

    def __repr__(self) -> str:
        model_directory = self.predictor.model_directory
        model = "a loaded model" if model_directory is None else repr(str(model_directory.path))
        options = "".join(f", {name}={reprlib.repr(value)}" for name, value in self.options.items())
        return f"<bothways pipeline {self.name!r}: {model}{options}>"

    def __call__(self, inputs: Any = None, *more: Any, **options: Any) -> Any:
        """Return results in the order of the inputs; options of the call override those of the pipeline.

        Inputs with a length (a list, array, Series or column) return a list, an iterator returns an iterator. An input
        of the wrong type raises `DataError`, with its index in a list; in a stream its result has an `error`. The
        candidate labels (zero-shot) and the context (question answering) may be positional. Raises `OptionError` for
        an unknown option.
        """
        inputs = self._named(inputs, more, options)
        known, notes = _clean(self.name, options)
        self.note(notes)
        given = self.options | known
        predictor = self._predictor(given) if known else self._usual
        several = isinstance(inputs, list | tuple)
        inputs = _python(inputs)
        if _is_one(self.name, inputs, given):
            (result,) = self._results(predictor, [inputs], given, "one")
            if self.name == "text-classification" and isinstance(inputs, str) and "top_k" not in options:
                return _like([result], result)  # as in transformers, which checks only the options of the call
            return result
        source, mode = _source(self.name, inputs)
        results = self._results(predictor, source, given, mode)
        if mode == "stream":
            return results
        found = list(results)
        alone = several and len(found) == 1 and self.name in ("question-answering", "fill-mask")
        return found[0] if alone else found  # as in transformers

    def prepare(self, inputs: Sequence[Any], **options: Any) -> Call:
        """Prepare a call on a list of inputs, for a server that batches several calls.

        As in a stream, an input of the wrong type becomes an example with an `error`. Raises `OptionError` like
        `__call__`.
        """
        known, notes = _clean(self.name, options)
        self.note(notes)
        given = self.options | known
        predictor = self._predictor(given) if known.keys() - {"candidate_labels"} else self._usual
        if self.name == "zero-shot-classification":
            inputs = list(_with_labels(inputs, given.get("candidate_labels"), "list"))
        if self.name == "sentence-similarity":
            groups = [_sentences(one) for one in inputs]
            spans = list(pairwise(accumulate(map(len, groups), initial=0)))
            return Call(
                predictor,
                [Example((text,)) for group in groups for text in group],
                lambda found: [_cosines(found[start:end]) for start, end in spans],
            )
        examples = []
        for one in inputs:
            try:
                examples.append(self._example(predictor.task, one, given))
            except (DataError, OptionError) as error:
                examples.append(Example(("",) * len(predictor.task.texts), error=str(error)))
        return Call(
            predictor,
            examples,
            lambda found: [
                _like(self.kind.shape(prediction, one, given), prediction)
                for prediction, one in zip(found, inputs, strict=True)
            ],
        )

    def note(self, notes: Mapping[str, str]) -> None:
        """Report each note once."""
        for name, text in notes.items():
            if name not in self._noted:
                self._noted.add(name)
                self.reporter.note(text)

    def _named(self, inputs: Any, more: Sequence[Any], options: dict[str, Any]) -> Any:
        """Return the inputs; move other positional arguments into `options`, and inputs given by name out of it."""
        if self.name == "zero-shot-classification":
            inputs = options.pop("sequences", inputs)
            if len(more) == 1 and "candidate_labels" not in options:
                options["candidate_labels"], more = more[0], ()
        if self.name == "question-answering":
            inputs = options.pop("data", options.pop("X", inputs))  # the names in older versions
            if more and isinstance(inputs, Mapping) and all(isinstance(one, Mapping) for one in more):
                inputs, more = [inputs, *more], ()
            elif len(more) == 1 and "question" not in options and "context" not in options:
                options |= {"question": inputs, "context": more[0]}
                inputs, more = None, ()
            inputs = _questions(inputs, options)
        if more:
            raise OptionError(f"{self.name} got {1 + len(more)} arguments without a name, expected the inputs")
        return inputs

    def _predictor(self, options: Options) -> Predictor:
        """Return the predictor with the options applied to its task."""
        old, names = self.predictor, dict(zip(("max_length", "stride"), self.kind.window, strict=True))
        settings = self.kind.settings(options, old.task)
        if "targets" in options:
            settings["targets"] = self._targets(options["targets"])
        sizes = {key: _whole(options, name, 0) for key, name in names.items() if name in options}
        if "max_length" in sizes and "stride" not in sizes:
            sizes["stride"] = min(old.task.stride, sizes["max_length"] // 4)
        most = old.task.max_length if old.model_directory is None else old.model_directory.config.max_length
        if sizes.get("max_length", 0) > most:
            name = names["max_length"]
            raise OptionError(
                f"{name}: found windows of {sizes['max_length']} tokens, expected at most the model's {most}"
            )
        settings |= sizes
        task = replace(old.task, **settings) if settings else old.task  # type: ignore[type-var]
        if task.head != old.task.head:
            raise OptionError("this option selects another head of the model; give it to pipeline(), not to the call")
        if sizes:
            try:
                texts = ("a",) * (2 if self.kind.task in ("zero_shot", "answer") else len(task.texts))
                task.windows([Example(texts)], old.tokenizer)
            except OptionError as error:  # use the names of the caller's options
                text = str(error)
                for ours, theirs in names.items():
                    text = text.replace(ours, theirs or ours)
                raise OptionError(text) from None
        return old.with_task(task)

    def _targets(self, targets: Sequence[Any]) -> tuple[str, ...]:
        """Return fill-mask targets as tokens; a target of several tokens becomes its first token, with a note."""
        backend, found = self.predictor.tokenizer.backend, []
        for target in targets:
            if not isinstance(target, str) or not target.strip():
                raise OptionError(f"found the target {target!r}, expected a word")
            if backend.token_to_id(target) is None:
                ids = backend.encode(target, add_special_tokens=False).ids
                if len(ids) > 1 and ids[0] != self.predictor.tokenizer.unk_id:
                    first = backend.id_to_token(ids[0])
                    self.note({target: f"the target {target!r} is several tokens; its first, {first!r}, is used"})
                    target = first
            found.append(target)
        return tuple(found)

    def _results(self, predictor: Predictor, inputs: Iterable[Any], options: Options, mode: Mode) -> Iterator[Any]:
        """Yield results in order, as they become ready."""
        if self.name == "zero-shot-classification":
            inputs = _with_labels(inputs, options.get("candidate_labels"), mode)
        if self.name == "sentence-similarity":
            return self._similarities(predictor, inputs, mode)
        return self._predicted(predictor, inputs, options, mode)

    def _predicted(self, predictor: Predictor, inputs: Iterable[Any], options: Options, mode: Mode) -> Iterator[Any]:
        waiting: deque[Any] = deque()  # inputs without a result yet

        def read() -> Iterator[Example]:
            for number, one in enumerate(inputs):
                waiting.append(one)
                try:
                    yield self._example(predictor.task, one, options)
                except (DataError, OptionError) as error:
                    if mode != "stream":
                        raise _placed(error, number, mode) from None
                    yield Example(("",) * len(predictor.task.texts), error=str(error))

        predictions: Iterable[Any]
        if mode == "one":
            predictions = predictor.predict_examples(list(read()))
        else:  # a list is validated before anything is computed
            predictions = predictor.stream(read() if mode == "stream" else list(read()))
        for prediction in predictions:
            yield _like(self.kind.shape(prediction, waiting.popleft(), options), prediction)

    def _similarities(self, predictor: Predictor, inputs: Iterable[Any], mode: Mode) -> Iterator[Any]:
        for number, one in enumerate(inputs):
            try:
                yield _similarity(predictor, one)
            except (DataError, OptionError) as error:
                if mode != "stream":
                    raise _placed(error, number, mode) from None
                yield _like([], Prediction(error=str(error), windows=0))

    def _example(self, task: Task, given: Any, options: Options) -> Example:
        """Convert an input to an example of the task."""
        if self.name == "zero-shot-classification":
            text, labels = _plain(given[0]), tuple(map(_label, given[1]))
            if not isinstance(text, str):
                raise DataError(f"found {reprlib.repr(text)}, expected a text for the task {task.name}")
            if not labels:
                raise DataError("there are no labels to choose from")
            return Example((text,), details=CandidateLabels(labels))
        plain = _plain(given)
        if options.get("is_split_into_words") and not isinstance(plain, list | tuple):
            raise DataError(f"found {reprlib.repr(plain)}, expected a list of words, as is_split_into_words is set")
        if self._pairs_too and (isinstance(plain, str) or isinstance(given, Mapping)):
            texts = (plain,) if isinstance(plain, str) else plain
            if isinstance(texts, tuple) and all(isinstance(text, str) for text in texts):
                return Example(texts)
        return task.example(plain)


def pipeline(
    task: str | None = None,
    model: str | Path | Predictor | None = None,
    *,
    engine: Name | None = None,
    precision: Precision | None = None,
    device: Any = None,
    reporter: Reporter | None = None,
    **options: Any,
) -> Pipeline:
    """Return a pipeline for a task of transformers 4, next-sentence-prediction or sentence-similarity.

    `model` is a directory or a name as in `load`, or a `Predictor`; the default is an included model (package
    bothways-models). Without `task`, the model determines it. `engine` and `precision` are as in `load`. With `device`
    "cpu" or -1, PyTorch does not use a GPU; with 0 or "cuda", PyTorch runs the model on the GPU. Without a GPU,
    `device` has no effect except a note, like other arguments that do not change results.

    >>> pipeline("translation")
    Traceback (most recent call last):
        ...
    bothways.errors.OptionError: no pipeline 'translation'; there are ...
    """
    if isinstance(model, Predictor) and (engine is not None or precision is not None):
        raise OptionError(
            "engine and precision apply when a model is loaded, but this one is already loaded; give them to load()"
        )
    if model is not None and not isinstance(model, str | os.PathLike | Predictor):
        raise OptionError(
            f"model is a {type(model).__name__}, expected a directory, a name or a Predictor; save a transformers "
            "model and its tokenizer with save_pretrained, and give that directory"
        )
    if task is None and model is not None:
        if not isinstance(model, Predictor):
            place, _ = _place_of(model, device, engine)
            model = load(model, engine=engine, precision=precision, device=place, reporter=reporter)
        task = next(
            (name for name, kind in PIPELINES.items() if model.task.name in (kind.task, *_ALSO.get(name, ()))), ""
        )
    name = ALIASES.get(str(task), str(task))
    if name not in PIPELINES:
        raise OptionError(f"no pipeline {task!r}; there are {', '.join([*PIPELINES, *ALIASES])}")
    known, notes = _clean(name, options | {"device": device}, model)
    from bothways.model.catalogue import find_model

    try:
        model = find_model(PIPELINES[name].default) if model is None else model
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"no model was given for {task!r} (model=...), and {error}") from None
    if not isinstance(model, Predictor):
        own = (
            None if name == "text-classification" else PIPELINES[name].task
        )  # a classifier may be for texts or for pairs
        settings = {"pooling": known.get("pooling", "none")} if name == "feature-extraction" else {}
        settings |= {"pooling": known["pooling"]} if name == "sentence-similarity" and "pooling" in known else {}
        place, why = _place_of(model, device, engine)
        notes |= {"device": f"device={device!r} has no effect: {why}"} if why else {}
        model = load(model, task=own, engine=engine, precision=precision, device=place, reporter=reporter, **settings)
    made = Pipeline(name, model, known, reporter)
    made.note(notes)
    return made


def _clean(name: str, options: Options, model: Any = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the normalized options of a pipeline, and notes on options without effect or with an old name.

    As in transformers, None means that an option is not given, except `top_k` of classifiers, where it means all.
    Raises `OptionError` for an unknown option.
    """
    kind, found, notes = PIPELINES[name], dict[str, Any](), dict[str, str]()
    options = dict(options)
    for inner in ("tokenize_kwargs", "tokenizer_kwargs"):
        if "truncation" in kind.options and isinstance(options.get(inner), Mapping):
            options |= options.pop(inner)
    for option, value in options.items():
        if value is None and not (option == "top_k" and kind.shape is _classify_shape):
            continue
        if option in kind.options:
            found[option] = _LISTS[option](value) if option in _LISTS else value
        elif option in _OLD and _OLD[option][0] in kind.options:
            new, meaning = _OLD[option]
            found |= {} if meaning(value) is None else {new: meaning(value)}
            notes[option] = f"{option}={value!r} is an old option of transformers; {new} replaced it"
        elif option == "device" or option in _HINTS or (option in ("tokenizer", "config") and value == model):
            why = _device(value) if option == "device" else _HINTS.get(option, "the model's own is always used")
            notes |= {option: f"{option}={reprlib.repr(value)} has no effect: {why}"} if why else {}
        else:
            why = _REFUSED.get(option, "")
            raise OptionError(
                f"pipeline {name} takes no {option!r}{why}; it takes {', '.join(kind.options) or 'no options'}"
            )
    return found, notes


def _place_of(model: str | os.PathLike[str], device: Any, engine: Name | None) -> tuple[Device | None, str]:
    """Return the device to load a model on, and why an available GPU is not used."""
    from bothways.model.catalogue import find_model

    if device is None or _device(device):
        return None, ""
    place = _place(device)
    if place == "cuda" and (engine not in (None, "torch") or not (find_model(Path(model)) / WEIGHTS).is_file()):
        return None, "an ONNX model runs, on the CPU"
    return place, ""


def _place(device: Any) -> Device | None:
    """Convert a device of transformers to ours; None for "auto"."""
    written = str(device)
    return "cpu" if written == "-1" or written.startswith("cpu") else None if written == "auto" else "cuda"


def _device(device: Any) -> str:
    """Return why a device has no effect ("" if it has one); raises `OptionError` for an invalid device."""
    written = str(device)
    if isinstance(device, bool) or not re.fullmatch(r"-1|\d+|auto|(cpu|cuda|mps|xpu|npu|hpu|xla)(:\d+)?", written):
        raise OptionError(f"device is {device!r}, expected 'cpu' or -1, or a GPU such as 0 or 'cuda:0'")
    if _place(device) != "cuda":
        return ""
    if not re.fullmatch(r"(cuda:)?0|cuda", written):
        return "bothways computes on the CPU, or on the first CUDA GPU (device 0)"
    if importlib.util.find_spec("torch") is not None:
        from bothways.inference.engines.torch import has_gpu

        if has_gpu():
            return ""
    return "PyTorch finds no GPU here"


def _python(value: Any) -> Any:
    """Convert arrays, columns, tables and scalars of numpy, pandas, polars, pyarrow and torch to Python objects."""
    for name in ("to_pylist", "to_dicts", "tolist", "to_list", "as_py"):
        method = getattr(value, name, None)
        if callable(method) and (name != "to_list" or hasattr(value, "__len__")):  # an IterableDataset has to_list, too
            return method()
    if hasattr(value, "columns") and hasattr(value, "to_dict"):
        return value.to_dict("records")
    return value


def _source(name: str, inputs: Any) -> tuple[Iterable[Any], Mode]:
    """Return the inputs as an iterable, and whether they are a list or a stream."""
    if isinstance(inputs, str | bytes | Mapping) or not (
        isinstance(inputs, Iterable) or hasattr(inputs, "__getitem__")
    ):
        raise OptionError(f"found {type(inputs).__name__} as the input of {name}, expected texts")
    if not hasattr(inputs, "__len__"):
        return inputs, "stream"
    return inputs if isinstance(inputs, Iterable) else map(inputs.__getitem__, range(len(inputs))), "list"


def _plain(given: Any) -> Any:
    """Return a text, or the texts of a dict with text and text_pair."""
    if isinstance(given, Mapping) and "text" in given:
        text, pair = _python(given["text"]), _python(given.get("text_pair"))
        return text if pair is None else (text, pair)
    return _python(given)


def _like(value: Any, prediction: Any) -> Any:
    """Return a result with the attributes `windows`, `truncated` and `error` of a prediction or result."""
    wrapped: Any = DictResult(value) if isinstance(value, dict) else ListResult(value)
    wrapped.windows, wrapped.truncated, wrapped.error = prediction.windows, prediction.truncated, prediction.error
    return wrapped


def _placed(error: Exception, number: int, mode: Mode) -> Exception:
    return type(error)(f"input {number} (from 0): {error}") if mode == "list" else error


def _is_one(name: str, inputs: Any, options: Options) -> bool:
    if name == "next-sentence-prediction":
        return isinstance(inputs, tuple | Mapping)
    if name == "token-classification" and options.get("is_split_into_words"):
        return isinstance(inputs, list | tuple) and all(isinstance(word, str) for word in inputs)
    return isinstance(inputs, str | Mapping)


def _whole(options: Options, name: str, least: int, usual: int | None = None) -> Any:
    """Return an option that is an integer of at least `least`."""
    value = options.get(name, usual)
    if value is None:
        return value
    try:
        number = least - 1 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = least - 1
    if number < least:
        expected = f"at least {least}, or None for all" if name == "top_k" else f"at least {least}"
        raise OptionError(f"{name} is {value!r}, expected " + ("a number of tokens" if least == 0 else expected))
    return number


def _yes(options: Options, name: str, usual: bool = False) -> bool:
    """Return a boolean option."""
    value = options.get(name, usual)
    if not isinstance(value, bool | np.bool_):
        raise OptionError(f"{name} is {value!r}, expected True or False")
    return bool(value)


def _choice(options: Options, name: str, choices: Iterable[str], usual: str) -> str:
    """Return an option that is one of `choices`, or the transformers enum for it."""
    value = options.get(name, usual)
    word = str(getattr(value, "value", value)).lower()
    if word not in choices:
        raise OptionError(f"{name} is {value!r}, expected one of {', '.join(choices)}")
    return word


def _several(name: str, value: Any) -> list[Any]:
    """Return an option that is a collection as a list."""
    value = _python(value)
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise OptionError(
            f"{name} is {reprlib.repr(value)}, expected a list of {'words' if name == 'targets' else 'labels'}"
        )
    return [_python(one) for one in value]


_TRUNCATION = {"true": True, "longest_first": True, "only_first": True, "only_second": True}
_TRUNCATION |= {"false": False, "do_not_truncate": False}


def _truncation(options: Options) -> dict[str, Any]:
    """Return the task setting `truncation` for a bool or a strategy of transformers."""
    if "truncation" not in options:
        return {}
    value = options["truncation"]
    word = str(value).lower() if isinstance(value, bool | np.bool_) else getattr(value, "value", value)
    if not isinstance(word, str) or word not in _TRUNCATION:
        raise OptionError(
            f"truncation is {value!r}, expected True, False or one of {', '.join(list(_TRUNCATION)[1:4])}"
        )
    return {"truncation": _TRUNCATION[word]}


_FUNCTIONS = {"softmax": "single", "sigmoid": "multi", "none": "regression"}


def _classify_settings(options: Options, task: Task) -> dict[str, Any]:
    _whole(options, "top_k", 1)
    settings = _truncation(options)
    if "function_to_apply" in options:
        settings["kind"] = _FUNCTIONS[_choice(options, "function_to_apply", _FUNCTIONS, "none")]
    return settings


def _classify_shape(prediction: Any, given: Any, options: Options) -> Any:
    if prediction.error is not None:
        answer = {"label": None, "score": None, "error": prediction.error}
        return [answer] if "top_k" in options else answer
    answers = [{"label": label, "score": score} for label, score in prediction.scores.items()]
    if options.get("top_k", 0) is _ALL_IN_ORDER:
        return answers
    answers.sort(key=lambda answer: -answer["score"])
    return answers[: options["top_k"]] if "top_k" in options else answers[0]


def _tag_settings(options: Options, task: Task) -> dict[str, Any]:
    strategy = _choice(options, "aggregation_strategy", ("none", "simple", "first", "average", "max"), "none")
    return {"aggregation_strategy": strategy, "ignore_labels": tuple(options.get("ignore_labels", ("O",)))}


def _tag_shape(prediction: Any, given: Any, options: Options) -> Any:
    # Copy: inputs with the same text share a prediction.
    return [dict(entity) for entity in prediction.answer(all_scores=False)["entities"]]


def _answer_settings(options: Options, task: Task) -> dict[str, Any]:
    settings = {"top_k": _whole(options, "top_k", 1, 1), "max_answer_len": _whole(options, "max_answer_len", 1, 15)}
    settings["align_to_words"] = _yes(options, "align_to_words", True)
    if "handle_impossible_answer" in options:
        settings["handle_impossible_answer"] = _yes(options, "handle_impossible_answer")
    return settings


def _answer_shape(prediction: Any, given: Any, options: Options) -> Any:
    if prediction.error is not None:
        return {"answer": "", "score": 0.0, "start": 0, "end": 0, "error": prediction.error}
    answers = [dict(answer) for answer in prediction.answers[: options.get("top_k", 1)]]
    answers = answers or [dict(prediction.answer(all_scores=False))]
    return answers[0] if len(answers) == 1 else answers  # as in transformers, even if top_k is larger


def _questions(inputs: Any, options: dict[str, Any]) -> Any:
    """Return questions given as dicts, or as question= and context=, each one text or a list."""
    question, context = _python(options.pop("question", None)), _python(options.pop("context", None))
    if (question is None) != (context is None) or (question is None) == (inputs is None):
        raise OptionError("expected question= and context= together, or dicts that hold both")
    if question is None:
        return inputs
    if isinstance(question, str) and isinstance(context, str):
        return {"question": question, "context": context}
    questions = [question] * len(context) if isinstance(question, str) else list(question)
    contexts = [context] * len(questions) if isinstance(context, str) else list(context)
    if len(questions) != len(contexts):
        raise OptionError(f"found {len(questions)} questions and {len(contexts)} contexts; expected as many of each")
    return [{"question": one, "context": other} for one, other in zip(questions, contexts, strict=True)]


def _zero_shot_settings(options: Options, task: Task) -> dict[str, Any]:
    settings = _truncation(options)
    if "hypothesis_template" in options:
        settings["hypothesis_template"] = options["hypothesis_template"]
    if "multi_label" in options:
        settings["kind"] = "multi" if _yes(options, "multi_label") else "single"
    return settings


def _label(label: Any) -> str:
    """Return the text of a candidate label for the template."""
    if isinstance(label, bool) or not isinstance(label, str | int | float) or label != label:
        raise OptionError(f"found the candidate label {label!r}, expected a text")
    return str(label)


def _labels(value: Any) -> list[Any]:
    """Return candidate_labels as a list of labels (texts or numbers), or of one list of labels per text."""
    if isinstance(value, str):  # as in transformers
        value = [label.strip() for label in value.split(",") if label.strip()]
    labels = _several("candidate_labels", value)
    nested = [isinstance(one, Iterable) and not isinstance(one, str | bytes) for one in labels]
    if labels and all(nested):
        return [_several("candidate_labels", one) for one in labels]
    problem = label_problem([_label(one) for one in labels]) if labels else "found none"
    if problem:
        raise OptionError(f"candidate_labels: {problem}; expected the classes to choose from, as a list or with commas")
    return labels


def _with_labels(inputs: Iterable[Any], labels: list[Any] | None, mode: Mode) -> Iterator[tuple[Any, list[Any]]]:
    """Pair each text with its candidate labels: shared, or one list per text."""
    if labels is None:
        raise OptionError("expected candidate_labels: the classes to choose from, as a list or with commas between")
    if not isinstance(labels[0], list):
        return ((text, labels) for text in inputs)
    if mode != "stream":
        inputs = list(inputs)
        if len(inputs) != len(labels):
            raise OptionError(
                f"found {len(inputs)} texts and {len(labels)} lists of candidate_labels; expected as many"
            )
    return _each_with_labels(inputs, labels)


def _each_with_labels(inputs: Iterable[Any], labels: list[Any]) -> Iterator[tuple[Any, list[Any]]]:
    number = 0
    for number, text in enumerate(inputs, start=1):
        if number > len(labels):
            raise OptionError(f"found more texts than the {len(labels)} lists of candidate_labels; expected as many")
        yield text, labels[number - 1]
    if number < len(labels):
        raise OptionError(f"found {number} texts and {len(labels)} lists of candidate_labels; expected as many")


def _zero_shot_shape(prediction: Any, given: Any, options: Options) -> Any:
    text, labels = given
    own = {} if prediction.error is not None else {_label(label): label for label in labels}
    scores = prediction.scores if own else {}
    answer = {"sequence": _plain(text), "labels": [own[label] for label in scores], "scores": list(scores.values())}
    return answer if prediction.error is None else answer | {"error": prediction.error}


def _words(value: Any) -> list[Any]:
    """Return the targets of fill-mask as a list."""
    targets = [value] if isinstance(value, str) else _several("targets", value)
    if not targets:
        raise OptionError("targets is empty, expected at least one word; leave it out for all")
    return targets


def _fill_settings(options: Options, task: Task) -> dict[str, Any]:
    return {"top_k": _whole(options, "top_k", 1, 5)} | _truncation(options)


def _fill_shape(prediction: Any, given: Any, options: Options) -> Any:
    if prediction.error is not None:
        return [{"error": prediction.error}]
    masks = prediction.answer(all_scores=False)["masks"]
    return masks[0] if len(masks) == 1 else masks


def _embed_settings(options: Options, task: Any) -> dict[str, Any]:
    pooling = options.get("pooling", "none")
    settings = _truncation(options) | {"pooling": pooling}
    if "normalize" in options or pooling == "none":
        settings["normalize"] = _yes(options, "normalize")
    return settings


def _embed_shape(prediction: Any, given: Any, options: Options) -> Any:
    vector = prediction.vector.tolist()
    return [vector] if options.get("pooling", "none") == "none" else vector


def _similarity(predictor: Predictor, given: Any) -> Any:
    """{"source_sentence", "sentences"} -> the cosine of each sentence with the source, None for an empty text."""
    return _cosines(predictor(_sentences(given)))


def _sentences(given: Any) -> list[str]:
    """{"source_sentence", "sentences"} -> the texts, the source first."""
    sentences = _python(given.get("sentences")) if isinstance(given, Mapping) else None
    if isinstance(sentences, str) or not isinstance(sentences, Iterable) or "source_sentence" not in given:
        raise OptionError('expected {"source_sentence": ..., "sentences": [...]}')
    texts = [_python(one) for one in (given["source_sentence"], *sentences)]
    wrong = next((text for text in texts if not isinstance(text, str)), "")
    if not isinstance(wrong, str):
        raise DataError(f"found {reprlib.repr(wrong)}, expected a text for the task embed")
    return texts


def _cosines(predictions: Sequence[Any]) -> Any:
    """Predictions for the source and sentences -> the cosine of each sentence with the source, None for an error."""
    source, *others = predictions
    errors = [one.error or source.error for one in others]
    cosines = [
        float(one.vector @ source.vector) if error is None else None for one, error in zip(others, errors, strict=True)
    ]
    read = {"windows": max(one.windows for one in (source, *others)), "truncated": source.truncated}
    read["truncated"] += sum(one.truncated for one in others)
    return _like(cosines, Prediction(**read, error=next((error for error in errors if error), None)))


def _similarity_settings(options: Options, task: Any) -> dict[str, Any]:
    own = "mean" if task.pooling == "none" else task.pooling
    return {"pooling": options.get("pooling", own), "normalize": True}


_ALL_IN_ORDER: Any = 1 << 30  # top_k value: all labels, in the order of the model outputs
_LISTS: dict[str, Callable[[Any], Any]] = {
    "candidate_labels": _labels,
    "targets": _words,
    "ignore_labels": lambda value: _several("ignore_labels", value),
}
_LONG = ("truncation", "max_length", "stride")
_WINDOW = ("max_length", "stride")
PIPELINES: dict[str, PipelineSpec] = {
    "text-classification": PipelineSpec(
        "classify", ("top_k", "function_to_apply", *_LONG), _classify_settings, _classify_shape, _WINDOW, "sentiment"
    ),
    "token-classification": PipelineSpec(
        "tag",
        ("aggregation_strategy", "ignore_labels", "stride", "is_split_into_words"),
        _tag_settings,
        _tag_shape,
        ("", "stride"),
        "ner",
    ),
    "question-answering": PipelineSpec(
        "answer",
        ("top_k", "doc_stride", "max_answer_len", "max_seq_len", "handle_impossible_answer", "align_to_words"),
        _answer_settings,
        _answer_shape,
        ("max_seq_len", "doc_stride"),
        "question-answering",
    ),
    "zero-shot-classification": PipelineSpec(
        "zero_shot",
        ("candidate_labels", "hypothesis_template", "multi_label", *_LONG),
        _zero_shot_settings,
        _zero_shot_shape,
        _WINDOW,
        "zero-shot",
    ),
    "fill-mask": PipelineSpec("fill", ("top_k", "targets", *_LONG), _fill_settings, _fill_shape, _WINDOW, "fill-mask"),
    "feature-extraction": PipelineSpec(
        "embed", ("pooling", "normalize", *_LONG), _embed_settings, _embed_shape, _WINDOW, "minilm-l6"
    ),
    "next-sentence-prediction": PipelineSpec(
        "next_sentence", ("top_k",), _classify_settings, _classify_shape, default="next-sentence"
    ),
    "sentence-similarity": PipelineSpec("embed", ("pooling",), _similarity_settings, _embed_shape, default="minilm-l6"),
}
_ALSO = {"text-classification": ("pairs",)}
ALIASES = {"sentiment-analysis": "text-classification", "ner": "token-classification"}
_HINTS = {
    "batch_size": "batches are made by length, under a token budget",
    "num_workers": "texts are tokenized beside the engine",
    "padding": "batches are padded as needed, which does not change the answers",
    "framework": "use the argument engine",
    "dtype": "the argument precision chooses it",
    "torch_dtype": "the argument precision chooses it",
    "device_map": "use the argument device",
    "use_fast": "the tokenizer is always the fast one",
    "trust_remote_code": "code of a checkpoint is never run",
    "token": "the login of huggingface_hub is used",
    "use_auth_token": "the login of huggingface_hub is used",
}
_OLD: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "topk": ("top_k", lambda value: value),
    "return_all_scores": ("top_k", lambda value: _ALL_IN_ORDER if value else None),
    "multi_class": ("multi_label", lambda value: value),
    "grouped_entities": ("aggregation_strategy", lambda value: "simple" if value else "none"),
}
_REFUSED = {
    "ignore_subwords": " (it was replaced by aggregation_strategy='first')",
    "tokenizer": " (a model's own is always used)",
    "config": " (a model's own is always used)",
    "revision": " (download that revision, and give its directory)",
    "return_tensors": " (np.array(result) makes an array)",
    "normalise": " (it is called normalize)",
    "max_question_len": " (a question is truncated only if it is longer than half a window; see `truncated`)",
}
