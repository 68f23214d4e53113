"""Fine-tuning from a file of labelled texts to a model, its evaluation, its graph and its report."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bothways import __version__
from bothways.analysis.compare import Comparison, compare
from bothways.analysis.gate import export_judged
from bothways.analysis.report import Lengths, write_report
from bothways.analysis.summary import card_of, facts_of, machine, report_of, versions
from bothways.errors import BothwaysError, InterruptedRunError, MissingDependencyError, OptionError
from bothways.jobs.sources import named
from bothways.model.catalogue import find_model
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.predictor import Predictor
from bothways.runtime.artifact import CHECKPOINT, RUN, Artifact, check_run_directory, clear_run_directory
from bothways.storage import write_text
from bothways.tasks import TRAINED, Trainable
from bothways.tasks.split import set_aside, shared
from bothways.tasks.task import Example
from bothways.terminal import Reporter
from bothways.text.files import Columns, Source
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.recipe import Recipe

DEV_SHARE = 0.1
EVALUATION, REPORT = "evaluation.json", "report.html"


@dataclass(frozen=True, slots=True)
class Run:
    """A finished fine-tuning: where the model is, how it compares on dev, how long it took.

    Of several processes that train one model, the first alone has the comparison.
    """

    directory: Path
    comparison: Comparison | None
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)


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
    export: Literal["int8", "none"] = "int8",
    reporter: Reporter | None = None,
) -> Run:
    """Fit `base` to labelled texts, keep the weights that are best on dev, and compare them with the baseline.

    Without `dev`, a tenth of `train` is set aside for it, by label. `time_budget` is in seconds. The directory
    `out` then holds the model, its evaluation and a report, and unless `export` is "none" a graph in 8 bits that runs
    without PyTorch, if its answers hold on dev; else one in fp32.

    Raises `DataError` for the texts, `OptionError` for the options, `InterruptedRunError` after Ctrl-C.
    """
    recipe, columns = recipe or Recipe(), columns or Columns()
    reporter, out = reporter or Reporter(quiet=True), Path(out)
    _check_extras()
    if task not in TRAINED:
        raise OptionError(f"task {task!r} is not one of {', '.join(TRAINED)}")
    if time_budget is not None and time_budget <= 0:
        raise OptionError(f"time_budget is {time_budget} seconds, expected more than 0")
    check_run_directory(out, resume=resume, overwrite=overwrite)
    began = time.monotonic()

    kept = TRAINED[task].read(train, columns)
    made = TRAINED[task].learn(kept)
    if dev is None:
        kept, dev_examples = set_aside(kept, DEV_SHARE, recipe.seed, together=made.together)
        dev_name = f"{100 * DEV_SHARE:.0f} % of the training texts set aside, seed {recipe.seed}"
    else:
        columns_of_dev = replace(columns, kind=columns.kind or getattr(made, "kind", None))  # as train has been read
        dev_examples, dev_name = TRAINED[task].read(dev, columns_of_dev), named(dev)
    made.check(dev_examples)
    base_directory = find_model(base)
    if base_directory.resolve() == out.resolve():
        raise OptionError(f"{out} is both the base and the output; choose another output directory")
    config, _, _ = EncoderConfig.read(base_directory)
    tokenizer = Tokenizer.from_directory(base_directory)
    config.check_vocabulary(tokenizer.vocab_size, base_directory)
    wanted = made.window[0] if recipe.max_pieces is None else recipe.max_pieces
    max_pieces = min(wanted, config.max_pieces)
    overlap = max_pieces * made.window[1] // made.window[0] if recipe.overlap is None else recipe.overlap
    changes: dict[str, Any] = {"max_pieces": max_pieces, "overlap": overlap, "long": recipe.long_texts}
    made = replace(made, **changes)  # type: ignore[type-var]
    encoded = made.encode(kept, tokenizer)
    windows = [window for window in encoded if window.target is not None and len(window.reads)]
    facts: dict[str, Any] = {
        "base": str(base),
        "bothways": __version__,
        "train": named(train),
        "dev": dev_name,
        "n_train": len(kept),
        "n_dev": len(dev_examples),
        "recipe": recipe.as_json(),
        "columns": asdict(columns),
        "time_budget": time_budget,
    }

    # PyTorch is imported here, so that what is wrong with the texts is said before those seconds are spent.
    import torch

    from bothways.model.checkpoint import load_model, model_tensors, write_safetensors
    from bothways.model.engine import TorchEngine, best_precision
    from bothways.training.devices import joined
    from bothways.training.finetune import Job, fit

    model, report = load_model(base_directory, made.head, made.outputs, torch.Generator().manual_seed(recipe.seed))
    with joined() as devices:
        first = devices.rank == 0
        reporter = reporter if first else Reporter(quiet=True)
        devices.wait()  # all have found the directory as it was
        if first and not resume:  # nothing is written before the base is known to be whole
            clear_run_directory(out)
            write_text(out / RUN, json.dumps(facts, indent=2) + "\n")
        reporter.note(
            f"{len(kept):,} training texts in {len(windows):,} windows, {len(dev_examples):,} dev texts ({dev_name}); "
            f"{made.describe()}"
        )
        for line in (*made.noticed(kept), *shared(kept, dev_examples)):
            reporter.note(line)
        if max_pieces < wanted:
            reporter.note(f"{base} reads at most {max_pieces} pieces at once, so windows are no longer than that")
        for line in report.lines():
            reporter.note(line)
        predictor = Predictor(made, tokenizer, TorchEngine(model))
        golds = [example.gold for example in dev_examples if example.gold is not None]

        def judge() -> dict[str, float]:
            predictions = predictor.predict_examples(dev_examples, reporter)
            scores = made.score(predictions, golds, rng=np.random.default_rng(recipe.seed), resamples=10)
            return {name: interval.value for name, interval in scores.metrics.items()}

        precision = best_precision(devices.device) if recipe.precision == "auto" else recipe.precision
        precision = devices.told(precision)
        facts |= {"precision": precision, "processes": devices.size}
        identity = _identity(facts, made, windows, dev_examples, base_directory / WEIGHTS)
        job = Job(windows, made.loss, judge, made.headline, recipe, out, identity, precision, time_budget, tensorboard)
        state = fit(model, job, reporter, resume=resume, devices=devices)
    if not first:
        return Run(out, None, time.monotonic() - began, state.history)
    write_safetensors(out / WEIGHTS, model_tensors(model), {"format": "pt"})
    facts |= {
        "trained_parameters": sum(part.numel() for part in model.parameters() if part.requires_grad),
        "steps": state.step,
        "best_step": state.best_step,
        "training_seconds": round(state.seconds, 1),
        "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
        "machine": machine(),
        "versions": versions(),
    }
    made = made.tuned(predictor.predict_examples(dev_examples, reporter), golds) if made.tunes else made
    artifact = Artifact(out, model.config, made, tokenizer, facts)
    artifact.write()
    try:
        facts["graph"] = "none" if export == "none" else _graph_for(artifact, dev_examples, reporter)
        comparison = compare(dev_examples, [out], kept, seed=recipe.seed, reporter=reporter)
    except KeyboardInterrupt:
        raise InterruptedRunError(
            f"stopped in the comparison; the model is in {out}: the same command with --resume finishes the rest"
        ) from None
    write_text(out / EVALUATION, json.dumps(comparison.as_json(), indent=2) + "\n")
    write_text(out / "README.md", card_of(comparison, facts))
    history = state.history
    page = report_of(
        f"{Path(base).name} fine-tuned: {task}",
        comparison,
        dev_examples,
        facts_of(facts),
        losses=[(line["step"], line["loss"]) for line in history if "loss" in line],
        dev=[(line["step"], line["dev"][made.headline]) for line in history if "dev" in line],
        lengths=_lengths(made, kept, encoded, tokenizer),
    )
    write_report(out / REPORT, page)
    (out / CHECKPOINT).unlink(missing_ok=True)
    for verdict in comparison.verdicts:
        reporter.note(verdict)
    return Run(out, comparison, time.monotonic() - began, history)


def _graph_for(artifact: Artifact, dev: Sequence[Example], reporter: Reporter) -> str:
    """Write the graph in 8 bits, and where it does not answer as well one in fp32; what came of it in a few words."""
    graph = export_judged(artifact, "int8", dev, reporter).graphs["int8"]
    if graph.rejected is None:
        return f"int8, {graph.measured()}"
    try:
        export_judged(artifact, "fp32", (), reporter)
    except BothwaysError as error:
        return f"none; int8 was rejected: {graph.rejected}; {error}"
    return f"fp32; int8 was rejected: {graph.rejected}"


def _check_extras() -> None:
    """Raise `MissingDependencyError` now for what would be missing at the end of a run."""
    for name in ("torch", "onnx", "sklearn", "matplotlib", "jinja2"):
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(f"fine-tuning needs {name}, which is not here: pip install 'bothways[train]'")


def _identity(
    facts: dict[str, Any], task: Trainable, windows: Sequence[Encoded], dev: Sequence[Example], weights: Path
) -> str:
    """A hash of everything that the trained weights depend on."""
    settings = {name: facts[name] for name in ("recipe", "time_budget", "precision", "processes")}
    settings["task"] = task.as_json()
    digest = hashlib.sha256(json.dumps(settings).encode())
    for window in windows:
        digest.update(window.ids.tobytes())
        digest.update(np.asarray(window.target).tobytes())
    for example in dev:
        digest.update(repr((example.texts, example.gold)).encode())
    with weights.open("rb") as file:
        digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _lengths(task: Trainable, examples: Sequence[Example], windows: Sequence[Encoded], tokenizer: Tokenizer) -> Lengths:
    whole = replace(task, max_pieces=10**9, overlap=0).encode(examples, tokenizer)  # type: ignore[type-var]
    firsts = [window for window in windows if window.window == 0]
    return Lengths(
        pieces=[len(window.ids) for window in whole],
        limit=task.max_pieces,
        windowed=sum(window.window == 1 for window in windows),
        truncated=sum(window.truncated for window in firsts),
    )
