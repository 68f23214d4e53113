"""What a user asks for in one call: fine-tune, evaluate, compare. The command line is a thin face on these."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bothways import __version__
from bothways.analysis.compare import Comparison, compare
from bothways.analysis.report import Lengths, write_report
from bothways.analysis.summary import card_of, facts_of, machine, report_of, versions
from bothways.errors import DataError, MissingDependencyError, OptionError
from bothways.metrics import Scores
from bothways.model.catalogue import find_model
from bothways.model.config import EncoderConfig
from bothways.predictor import Predictor, load
from bothways.runtime.artifact import CHECKPOINT, SETTINGS, Artifact
from bothways.storage import write_text
from bothways.tasks import TASKS
from bothways.tasks.classify import Classify
from bothways.tasks.task import Example, Prediction
from bothways.terminal import Reporter
from bothways.text.files import Columns, Source
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.recipe import Recipe

DEV_SHARE = 0.1
EVALUATION, REPORT, RUN = "evaluation.json", "report.html", "run.json"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model scored on a file."""

    task: Classify
    examples: tuple[Example, ...]
    predictions: tuple[Prediction, ...]
    scores: Scores

    def as_json(self) -> dict[str, Any]:
        """Task, n, the metrics with their 95 % intervals, each class, and the confusion counts."""
        answer: dict[str, Any] = {
            "task": self.task.name,
            "n": len(self.examples),
            "metrics": {name: interval.as_json() for name, interval in self.scores.metrics.items()},
        }
        if self.scores.per_class:
            answer["per_class"] = {
                row.label: {"precision": row.precision, "recall": row.recall, "f1": row.f1, "support": row.support}
                for row in self.scores.per_class
            }
        if self.scores.confusion is not None:
            answer["confusion"] = {"labels": list(self.scores.labels), "counts": self.scores.confusion.tolist()}
        return answer


@dataclass(frozen=True, slots=True)
class Run:
    """A finished fine-tuning: where the model is, how it compares on dev, how long it took."""

    directory: Path
    comparison: Comparison
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)


def evaluate(
    model: str | Path | Predictor,
    data: Source,
    *,
    columns: Columns | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Evaluation:
    """Score a model on a file with gold: the predictions are those that it would serve.

    Raises `DataError` for a file that does not suit the model.
    """
    predictor = model if isinstance(model, Predictor) else load(model)
    examples = type(predictor.task).read(data, _columns_for(predictor.task, columns))
    predictor.task.check(examples)
    predictions = predictor.predict(examples, reporter)
    golds = [example.gold for example in examples if example.gold is not None]
    scores = predictor.task.score(predictions, golds, rng=np.random.default_rng(seed))
    return Evaluation(predictor.task, tuple(examples), tuple(predictions), scores)


def compare_models(
    test: Source,
    models: Sequence[str | Path],
    train: Source,
    *,
    columns: Columns | None = None,
    report: str | Path | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> Comparison:
    """The table of models on a test file, with the TF-IDF baseline fitted on `train` as its first row.

    `report` is where to write it as HTML, with the last model's confusions and mistakes.
    """
    directories = [find_model(model) for model in models]
    if not directories:
        raise OptionError("no model to compare; give at least one directory")
    task = Artifact.read(directories[0]).task
    columns = _columns_for(task, columns)
    examples = type(task).read(test, columns)
    comparison = compare(examples, directories, type(task).read(train, columns), seed=seed, reporter=reporter)
    if report is not None:
        facts = [("Test texts", f"{len(examples):,} ({_named(test)})"), ("Machine", machine())]
        write_report(Path(report), report_of(f"Comparison: {task.name}", comparison, examples, facts))
    return comparison


def finetune(
    task: str,
    train: Source,
    dev: Source | None = None,
    *,
    out: str | Path,
    base: str | Path = "minilm-l6",
    recipe: Recipe | None = None,
    columns: Columns | None = None,
    time_budget: float | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    reporter: Reporter | None = None,
) -> Run:
    """Fit `base` to labelled texts, keep the weights that are best on dev, and compare them with the baseline.

    Without `dev`, a tenth of `train` is set aside for it, by label. `time_budget` is in seconds. The directory
    `out` then holds the model, its evaluation and a report.

    Raises `DataError` for the texts, `OptionError` for the options, `InterruptedRunError` after Ctrl-C.
    """
    recipe, columns = recipe or Recipe(), columns or Columns()
    reporter = reporter or Reporter(quiet=True)
    out = Path(out)
    if task not in TASKS:
        raise OptionError(f"task {task!r} is not one of {', '.join(TASKS)}")
    _check_directory(out, resume=resume, overwrite=overwrite)
    began = time.monotonic()
    train_examples, dev_examples, note = _read(TASKS[task], train, dev, columns, recipe.seed)
    directory = find_model(base)
    config, _, _ = EncoderConfig.read(directory)
    tokenizer = Tokenizer.from_directory(directory)
    learned = TASKS[task].learn(
        train_examples,
        max_pieces=min(recipe.max_pieces, config.max_pieces),
        overlap=min(recipe.overlap, recipe.max_pieces // 4),
        long=recipe.long_texts,
    )
    learned.check(dev_examples)
    windows = learned.encode(train_examples, tokenizer)
    facts = {
        "base": str(base),
        "bothways": __version__,
        "train": _named(train),
        "dev": _named(dev) if dev is not None else note,
        "n_train": len(train_examples),
        "n_dev": len(dev_examples),
        "recipe": recipe.as_json(),
        "time_budget": time_budget,
    }
    work = _Work(learned, tokenizer, directory, windows, dev_examples, recipe, out, time_budget, tensorboard)

    def begin() -> None:  # only once the base is known to be whole is anything written
        if overwrite:
            _clear(out)
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / RUN, json.dumps(facts, indent=2) + "\n")
        reporter.note(
            f"{len(train_examples):,} training texts in {len(windows):,} windows, {len(dev_examples):,} dev texts "
            f"({note}); {learned.kind}, {len(learned.labels)} label(s)"
        )

    fitted = _fit(work, begin, _identity(facts, windows), reporter, resume=resume)
    facts |= fitted.facts | {"machine": machine(), "versions": versions()}
    Artifact(out, fitted.config, learned, tokenizer, facts).write()
    comparison = compare(dev_examples, [out], train_examples, seed=recipe.seed, reporter=reporter)
    _finish(work, comparison, train_examples, fitted.history, facts)
    (out / CHECKPOINT).unlink(missing_ok=True)
    for verdict in comparison.verdicts:
        reporter.note(verdict)
    return Run(out, comparison, time.monotonic() - began, fitted.history)


@dataclass(frozen=True, slots=True)
class _Fitted:
    config: EncoderConfig
    history: list[dict[str, Any]]
    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is to be fitted to what, and where it goes."""

    task: Classify
    tokenizer: Tokenizer
    base: Path
    windows: Sequence[Encoded]
    dev: Sequence[Example]
    recipe: Recipe
    out: Path
    time_budget: float | None
    tensorboard: bool


def _fit(work: _Work, begin: Callable[[], None], identity: str, reporter: Reporter, *, resume: bool) -> _Fitted:
    """Load the base, run the loop, write the weights."""
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingDependencyError("fine-tuning needs PyTorch: pip install 'bothways[train]'") from error
    from bothways.model.checkpoint import WEIGHTS, classifier_tensors, load_classifier, write_safetensors
    from bothways.model.engine import TorchEngine, best_precision
    from bothways.training.loop import Job, fit

    task, recipe, out = work.task, work.recipe, work.out
    generator = torch.Generator().manual_seed(recipe.seed)
    model, report = load_classifier(work.base, len(task.labels), generator, vocab_size=work.tokenizer.vocab_size)
    begin()
    for line in report.lines():
        reporter.note(line)
    precision = best_precision() if recipe.precision == "auto" else recipe.precision
    predictor = Predictor(task, work.tokenizer, TorchEngine(model))
    golds = [example.gold for example in work.dev if example.gold is not None]

    def judge() -> dict[str, float]:
        predictions = predictor.predict(work.dev, reporter)
        scores = task.score(predictions, golds, rng=np.random.default_rng(recipe.seed), resamples=10)
        return {name: interval.value for name, interval in scores.metrics.items()}

    job = Job(
        work.windows,
        task.kind,
        judge,
        task.headline,
        recipe,
        out,
        identity,
        precision=precision,
        time_budget=work.time_budget,
        tensorboard=work.tensorboard,
    )
    state = fit(model, job, reporter, resume=resume)
    write_safetensors(out / WEIGHTS, classifier_tensors(model), {"format": "pt"})
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    facts = {
        "precision": precision,
        "trained_parameters": trained,
        "steps": state.step,
        "best_step": state.best_step,
        "training_seconds": round(state.seconds, 1),
        "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
    }
    return _Fitted(model.config, state.history, facts)


def _read(
    task: type[Classify], train: Source, dev: Source | None, columns: Columns, seed: int
) -> tuple[list[Example], list[Example], str]:
    examples = task.read(train, columns)
    if dev is not None:
        return examples, task.read(dev, columns), "as given"
    kept, aside = split(examples, seed)
    return kept, aside, f"{100 * DEV_SHARE:.0f} % of the training texts set aside, by label, seed {seed}"


def split(examples: Sequence[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Set a tenth of the examples aside, stratified by their gold: (the rest, the tenth), each in file order.

    Texts that occur twice stay on one side, so that nothing is tested on what it was trained on. Raises
    `DataError` where there are too few.
    """
    groups: dict[Any, dict[tuple[str, ...], list[int]]] = {}
    seen: dict[tuple[str, ...], Any] = {}
    for place, example in enumerate(examples):
        texts = tuple(" ".join(text.lower().split()) for text in example.texts)
        stratum = seen.setdefault(texts, "number" if isinstance(example.gold, float) else example.gold)
        groups.setdefault(stratum, {}).setdefault(texts, []).append(place)
    rng = np.random.default_rng(seed)
    aside: set[int] = set()
    owed = 0.0  # what strata too small for a whole text of their own add up to
    for stratum in sorted(groups, key=repr):
        members = list(groups[stratum].values())
        owed += DEV_SHARE * len(members)
        for index in rng.permutation(len(members))[: min(int(owed), len(members) - 1)]:
            aside.update(members[index])
            owed -= 1
    if not aside:
        raise DataError(f"{len(examples)} rows are too few to set a tenth aside for dev; give a dev file with --dev")
    kept = [example for place, example in enumerate(examples) if place not in aside]
    return kept, [examples[place] for place in sorted(aside)]


def _columns_for(task: Classify, columns: Columns | None) -> Columns:
    """Columns for a trained task: what its labels are is settled."""
    columns = columns or Columns()
    return columns if columns.kind is not None else replace(columns, kind=task.kind)


def _check_directory(out: Path, *, resume: bool, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise OptionError(f"{out} is a file, expected a directory to write the run to")
    if resume and overwrite:
        raise OptionError("--resume goes on with a run and --overwrite throws it away; expected one of them")
    present = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    finished = SETTINGS in present and CHECKPOINT not in present
    if overwrite and present and RUN not in present and SETTINGS not in present:
        raise OptionError(f"{out} holds {present[0]} and no run of bothways, so it is not overwritten; choose another")
    if present and not resume and not overwrite:
        state = "a finished model" if finished else "another run" if RUN in present else "other files"
        raise OptionError(
            f"{out} holds {state} ({', '.join(present[:3])}{' ...' if len(present) > 3 else ''}); "
            "choose another directory, or --resume to go on with it, or --overwrite to replace it"
        )
    if resume and finished:
        raise OptionError(f"{out} holds a finished model, so there is nothing to resume; --overwrite starts anew")


def _clear(out: Path) -> None:
    if out.is_dir():
        shutil.rmtree(out)


def _identity(facts: dict[str, Any], windows: Sequence[Encoded]) -> str:
    """A hash of everything that the weights depend on."""
    digest = hashlib.sha256(json.dumps(facts | {"bothways": None, "train": None, "dev": None}).encode())
    for window in windows:
        digest.update(window.ids.tobytes())
        digest.update(repr(window.target).encode())
    return digest.hexdigest()


def _named(source: Source) -> str:
    return str(source) if isinstance(source, str | Path) else "rows in memory"


def _finish(
    work: _Work,
    comparison: Comparison,
    train: Sequence[Example],
    history: Sequence[dict[str, Any]],
    facts: dict[str, Any],
) -> None:
    """Write the evaluation, the model card and the report."""
    out, task = work.out, comparison.task
    write_text(out / EVALUATION, json.dumps(comparison.as_json(), indent=2) + "\n")
    write_text(out / "README.md", card_of(comparison, facts))
    whole = replace(task, max_pieces=10**9, overlap=0).encode(train, work.tokenizer)
    windowed = Counter(window.example for window in work.windows)
    lengths = Lengths(
        pieces=[len(window.ids) for window in whole],
        limit=task.max_pieces,
        windowed=sum(count > 1 for count in windowed.values()),
        truncated=sum(window.truncated for window in work.windows if window.window == 0),
    )
    losses = [(line["step"], line["loss"]) for line in history if "loss" in line]
    dev = [(line["step"], line["dev"][task.headline]) for line in history if "dev" in line]
    title = f"{Path(facts['base']).name} fine-tuned: {task.name}"
    report = report_of(title, comparison, work.dev, facts_of(facts), losses=losses, dev=dev, lengths=lengths)
    write_report(out / REPORT, report)
