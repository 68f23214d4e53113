"""Fine-tuning from a file of labeled texts to a model, its evaluation, its ONNX model and its report."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from bothways.data.examples import Example
from bothways.data.split import set_aside, shared
from bothways.data.tables import Columns, Source
from bothways.errors import BothwaysError, OptionError
from bothways.evaluation.accuracy_check import export_checked
from bothways.evaluation.compare import Comparison, compare_on
from bothways.evaluation.summary import card_of, facts_of, report_of
from bothways.evaluation.verdicts import FEW_STEPS, collapsed
from bothways.inference.model_directory import CHECKPOINT, ModelDirectory, continued
from bothways.inference.predictor import Predictor
from bothways.jobs.directory import check_run_directory, guarded, publish, refuse_if_in_use, resumable
from bothways.jobs.frame import facts_of_base, require, training_frame
from bothways.jobs.settings import budget, hash_of, name_of, options_from
from bothways.jobs.sources import unknown_words
from bothways.model.catalogue import find_model
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.progress import Reporter
from bothways.render.report import Lengths, write_report
from bothways.storage import write_text
from bothways.tasks import TRAINED, Trainable, task_name
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.recipe import Recipe

DEV_SHARE = 0.1
# Arguments of `finetune` that are not fields of a record, for the hint after a misspelled one.
ARGUMENTS = (
    *("train", "dev", "out", "base", "time_budget", "resume", "overwrite", "tensorboard", "export"),
    *("report_texts", "reporter"),
)
EVALUATION, REPORT = "evaluation.json", "report.html"


@dataclass(frozen=True, slots=True)
class FineTuningRun:
    """A finished fine-tuning: where the model is, how it compares on dev, how long it took.

    `comparison` is None if it could not be made, and, of several processes that train one model, for all but the
    first.
    """

    directory: Path
    comparison: Comparison | None
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    first: bool = True  # of the processes that trained it

    def __repr__(self) -> str:
        found = "not compared" if self.comparison is None else repr(self.comparison)
        return f"<Run in {self.directory}, {self.seconds:.0f} s: {found}>"


def finetune(
    task: str,
    train: Source,
    dev: Source | None = None,
    *,
    out: str | Path,
    base: str | Path = "minilm-l6",
    recipe: Recipe | None = None,
    columns: Columns | None = None,
    time_budget: float | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    export: bool = True,
    report_texts: bool = True,
    reporter: Reporter | None = None,
    **options: Any,
) -> FineTuningRun:
    """Fit `base` to labeled texts, keep the weights that are best on dev, and compare them with the baseline.

    Fields of `Recipe` and `Columns` can be given as they are: `finetune(..., epochs=3, text_column="body")`; they
    replace those of `recipe` and `columns`. Without `dev`, a tenth of `train` is set aside for it, by label.
    `time_budget` is in seconds (or "5m") and replaces `epochs`. The directory `out` then holds the model, its
    evaluation and a report, and with `export` an int8 ONNX model that runs without PyTorch, if its
    accuracy on dev holds; else one in fp32. Without `report_texts` the report shows no dev text. With `overwrite`, a
    model in `out` stays until the new one is complete.

    Raises `DataError` for the texts, `OptionError` for the options, or if another run is writing to `out`,
    `InterruptedRunError` after Ctrl-C or SIGTERM.
    """
    recipe, columns = options_from(options, recipe or Recipe(), columns or Columns(), also=ARGUMENTS)
    assert isinstance(recipe, Recipe)
    assert isinstance(columns, Columns)
    reporter, out = reporter or Reporter(), Path(out)
    require("fine-tuning", "torch", "onnx", "sklearn", "matplotlib", "jinja2")
    task = task_name(task)
    if task not in TRAINED:
        raise OptionError(f"task {task!r} is not one of {', '.join(TRAINED)}")
    if not isinstance(export, bool):
        raise OptionError(f"export is {export!r}, expected True or False")
    time_budget = budget(time_budget)
    refuse_if_in_use(out)
    check_run_directory(out, resume=resume, overwrite=overwrite)
    began = time.monotonic()

    kept = TRAINED[task].read(train, columns)
    made = TRAINED[task].learn(kept)
    if dev is None:
        kept, dev_examples = set_aside(kept, DEV_SHARE, recipe.seed, split_by=made.split_by)
        dev_name = f"{100 * DEV_SHARE:.0f} % of the training texts set aside, seed {recipe.seed}"
    else:
        columns_of_dev = replace(columns, kind=columns.kind or getattr(made, "kind", None))  # as train has been read
        dev_examples, dev_name = TRAINED[task].read(dev, columns_of_dev), name_of(dev)
    made.check(dev_examples)
    base_directory = find_model(base)
    facts: dict[str, Any] = {"task": task} | facts_of_base(base, base_directory, out)
    config, _, _ = EncoderConfig.read(base_directory)
    tokenizer = Tokenizer.from_directory(base_directory)
    config.check_vocabulary(tokenizer.vocab_size, base_directory)
    wanted = made.window[0] if recipe.max_length is None else recipe.max_length
    max_length = min(wanted, config.max_length)
    stride = max_length * made.window[1] // made.window[0] if recipe.stride is None else recipe.stride
    changes: dict[str, Any] = {"max_length": max_length, "stride": stride, "truncation": recipe.truncation}
    made, head_fits = continued(replace(made, **changes), base_directory)  # type: ignore[type-var]
    encoded = made.encode(kept, tokenizer)
    windows = [window for window in encoded if window.target is not None and len(window.head_positions)]
    facts |= {
        "train": name_of(train),
        "train_sha256": hash_of(train),
        "dev": dev_name,
        "dev_sha256": hash_of(dev),
        "n_train": len(kept),
        "n_dev": len(dev_examples),
        "recipe": recipe.as_json(),
        "columns": asdict(columns),
        "time_budget": time_budget,
    }

    # PyTorch is imported here, so that what is wrong with the texts is said before those seconds are spent.
    import torch

    from bothways.inference.engines.torch import TorchEngine
    from bothways.model.checkpoint import load_model
    from bothways.training.finetune import FineTuning, FineTuningJob
    from bothways.training.train import train as train_model

    generator = torch.Generator().manual_seed(recipe.seed)
    model, report = load_model(base_directory, made.head, made.outputs, generator, new_head=not head_fits)
    with ExitStack() as held:
        with training_frame(held, out, reporter, resume=resume, overwrite=overwrite) as frame:
            reporter, work = frame.reporter, frame.work
            if frame.first and not resume:  # nothing is written before the base is known to be whole
                frame.begin(facts)
            reporter.say(
                f"{len(kept):,} training texts in {len(windows):,} windows, {len(dev_examples):,} dev texts "
                f"({dev_name}); {made.describe()}"
            )
            for line in (*made.training_notes(kept), *shared(kept, dev_examples)):
                reporter.note(line)
            if unknown := unknown_words(tokenizer, kept):
                reporter.note(f"{unknown}; the vocabulary of {name_of(base)} may be of another language")
            if max_length < wanted:
                reporter.note(f"{base} has a maximum length of {max_length} tokens, so windows are no longer than that")
            if time_budget is not None:
                reporter.say(
                    f"training for {time_budget:g} s; the time budget replaces epochs ({recipe.epochs:g}), and the "
                    "export and the comparison come after it"
                )
            for line in report.lines():
                reporter.say(line)
            predictor = Predictor(made, tokenizer, TorchEngine(model))
            references = [example.reference for example in dev_examples if example.reference is not None]

            def evaluate() -> dict[str, float]:
                predictions = predictor.predict_examples(dev_examples, reporter)
                scores = made.score(predictions, references, rng=np.random.default_rng(recipe.seed), resamples=10)
                return {name: interval.value for name, interval in scores.metrics.items()}

            precision = frame.precision(recipe)
            facts |= {"precision": precision, "processes": frame.devices.size}
            identity = _identity(facts, made, windows, dev_examples, base_directory)
            job = FineTuningJob(
                windows,
                made.loss,
                evaluate,
                made.headline,
                recipe,
                work,
                identity,
                precision,
                time_budget,
                tensorboard,
                head_is_new=any(name.startswith("head.") for name in report.new),
                pooler_is_new=any(name.startswith("encoder.pooler.") for name in report.new),
            )
            tuning = FineTuning(model, job, frame.devices)
            state = train_model(tuning, tuning.plan(), reporter, resume=resume)
        if not frame.first:
            return FineTuningRun(out, None, time.monotonic() - began, state.history, first=False)
        with resumable(out):
            made = (
                made.tune_on(predictor.predict_examples(dev_examples, reporter), references) if made.tunable else made
            )
            facts |= frame.save_weights(model, state, identity | {"task": made.as_json()})
            facts |= {
                "trained_parameters": sum(part.numel() for part in model.parameters() if part.requires_grad),
                "best_step": state.best_step,
                "onnx_model": "none",
            }
            ModelDirectory(work, model.config, made, tokenizer).write()
            facts["tokenizer_sha256"] = hash_of(work / "tokenizer.json")
            model_directory = ModelDirectory(work, model.config, made, tokenizer, facts)
            model_directory.write()
            if export:
                with guarded(f"the ONNX model could not be written; the model is in {out}", reporter):
                    facts["onnx_model"] = _export_onnx(model_directory, dev_examples, reporter)
                model_directory.write()
            frame.record(facts)
            publish(work, out, reporter)
            comparison: Comparison | None = None
            with guarded(f"the comparison could not be made; the model is in {out}", reporter):
                comparison = compare_on(dev_examples, [out], kept, dev=True, seed=recipe.seed, reporter=reporter)
                write_text(out / EVALUATION, json.dumps(comparison.as_json(), indent=2) + "\n")
            if comparison is not None:
                with guarded(f"the model card could not be written; the model is in {out}", reporter):
                    write_text(out / "README.md", card_of(comparison, facts))
                with guarded(f"the report could not be written; the model is in {out}", reporter):
                    page = report_of(
                        f"{facts['base']} fine-tuned: {task}",
                        comparison,
                        dev_examples,
                        facts_of(facts),
                        losses=[(line["step"], line["loss"]) for line in state.history if "loss" in line],
                        dev=[(line["step"], line["dev"][made.headline]) for line in state.history if "dev" in line],
                        lengths=_lengths(made, kept, encoded, tokenizer),
                        texts=report_texts,
                    )
                    write_report(out / REPORT, page)
                    if page.mistakes:
                        reporter.say(f"{REPORT} shows dev texts (--no-report-texts leaves them out)")
        (out / CHECKPOINT).unlink(missing_ok=True)
    answers = predictor.predict_examples(dev_examples) if comparison is None else comparison.rows[-1].predictions
    nothing = collapsed(made, answers, references)
    alone = (f"the model {nothing} on the dev set",) if nothing else ()
    for line in alone if comparison is None else comparison.verdicts:
        (reporter.note if nothing else reporter.say)(line)
    if (comparison is None or not comparison.verdicts) and state.step < FEW_STEPS and time_budget is None:
        reporter.note(f"the model was trained for {state.step} steps only; more epochs usually help")
    return FineTuningRun(out, comparison, time.monotonic() - began, state.history)


def _export_onnx(model_directory: ModelDirectory, dev: Sequence[Example], reporter: Reporter) -> str:
    """Write the int8 ONNX model, or if its accuracy does not hold one in fp32; what came of it in a few words."""
    onnx_model = export_checked(model_directory, "int8", dev, reporter).models["int8"]
    if onnx_model.rejected is None:
        return f"int8, {onnx_model.measured()}"
    try:
        export_checked(model_directory, "fp32", (), reporter)
    except BothwaysError as error:
        return f"none; int8 was rejected: {onnx_model.rejected}; {error}"
    return f"fp32; int8 was rejected: {onnx_model.rejected}"


def _identity(
    facts: dict[str, Any], task: Trainable, windows: Sequence[Encoded], dev: Sequence[Example], base: Path
) -> dict[str, Any]:
    """Everything that the trained weights depend on, by name; large things as hashes."""
    train, evaluated = hashlib.sha256(), hashlib.sha256()
    for window in windows:
        for part in (window.ids, window.type_ids, window.head_positions, np.asarray(window.target)):
            train.update(part.tobytes())
    for example in dev:
        evaluated.update(repr((example.texts, example.reference)).encode())
    return {
        "task": json.dumps(task.as_json()),
        "training texts": train.hexdigest(),
        "dev texts": evaluated.hexdigest(),
        "base": hash_of(base / WEIGHTS),
        "config of the base": hash_of(base / "config.json"),
        **{name: facts[name] for name in ("time_budget", "precision", "processes")},
        **facts["recipe"],
    }


def _lengths(task: Trainable, examples: Sequence[Example], windows: Sequence[Encoded], tokenizer: Tokenizer) -> Lengths:
    whole = replace(task, max_length=10**9, stride=0).encode(examples, tokenizer)  # type: ignore[type-var]
    firsts = [window for window in windows if window.window == 0]
    return Lengths(
        tokens=[len(window.ids) for window in whole],
        limit=task.max_length,
        windowed=sum(window.window == 1 for window in windows),
        truncated=sum(window.truncated for window in firsts),
    )
