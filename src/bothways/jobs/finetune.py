"""Fine-tunes a model on a file of labeled texts, and writes its evaluation, ONNX model and report."""

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
from bothways.errors import OptionError
from bothways.evaluation.accuracy_check import export_accepted
from bothways.evaluation.compare import Comparison, compare_on
from bothways.evaluation.summary import card_of, facts_of, report_of
from bothways.evaluation.verdicts import FEW_STEPS, collapsed
from bothways.hardware import Device
from bothways.inference.model_directory import CHECKPOINT, TEACHER, ModelDirectory, continued
from bothways.inference.predictor import Predictor
from bothways.jobs.directory import (
    check_run_directory,
    guarded,
    publish,
    refuse_if_in_use,
    resumable,
)
from bothways.jobs.frame import facts_of_base, require, training_frame
from bothways.jobs.settings import (
    budget,
    hash_of,
    name_of,
    options_from,
)
from bothways.jobs.sources import unknown_words
from bothways.jobs.teachers import find_teacher, read_unlabelled, write_logits
from bothways.model.catalogue import find_model
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.progress import Reporter
from bothways.render.report import Lengths, write_report
from bothways.storage import write_text
from bothways.tasks import TRAINED, Trainable, task_name
from bothways.text.tokenizer import Encoded, Tokenizer
from bothways.training.recipe import Recipe
from bothways.training.teacher import TeacherLogits

DEV_SHARE = 0.1
OF_TEACHERS = ("temperature", "soft_weight")  # fields of the recipe
EVALUATION, REPORT = "evaluation.json", "report.html"


@dataclass(frozen=True, slots=True)
class FineTuningRun:
    """A finished fine-tuning run: model directory, comparison on dev, time in seconds.

    `comparison` is None if it failed, and in all but the first of several training processes.
    """

    directory: Path
    comparison: Comparison | None
    seconds: float
    history: list[dict[str, Any]] = field(default_factory=list)
    first: bool = True  # whether this is the first training process

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
    teacher: str | Path | None = None,
    unlabelled: Source | None = None,
    device: Device = "auto",
    time_budget: float | str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    export: bool = True,
    report_texts: bool = True,
    reporter: Reporter | None = None,
    **options: Any,
) -> FineTuningRun:
    """Fine-tune `base` on labeled texts, keep the best weights on dev, and compare them with the baselines.

    Fields of `Recipe` and `Columns` can be keyword arguments: `finetune(..., epochs=3, text_column="body")`; they
    override those of `recipe` and `columns`. Without `dev`, a tenth of `train` is held out, stratified by label. For
    training, `device` "auto" is a GPU if PyTorch finds one. `time_budget` is in seconds (or "5m") and replaces
    `epochs`. The model, its evaluation and a report are written to `out`; `export` adds an int8 ONNX model, which runs
    without PyTorch, or an fp32 ONNX model if int8 fails the accuracy check on dev. Without `report_texts`, the report
    shows no dev texts. With `overwrite`, a model in `out` stays until the new one is complete.

    `teacher` is a model fine-tuned for the same task and labels. The loss is then `soft_weight` times the divergence
    from the teacher's probabilities plus `1 - soft_weight` times the loss of the labels (Hinton et al. 2015). Texts in
    `unlabelled` are learned only from the teacher.

    Raises `DataError` for the texts, `OptionError` for the options, or if another run is writing to `out`,
    `InterruptedRunError` after Ctrl-C or SIGTERM.
    """
    files, choices = ("train", "dev", "out", "base", "teacher", "unlabelled"), ("resume", "overwrite", "tensorboard")
    also = (*files, *choices, "device", "time_budget", "export", "report_texts", "reporter")
    recipe, columns = options_from(options, recipe or Recipe(), columns or Columns(), also=also)
    assert isinstance(recipe, Recipe)
    assert isinstance(columns, Columns)
    reporter, out = reporter or Reporter(), Path(out)
    require("fine-tuning", "torch", "onnx", "sklearn", "matplotlib", "jinja2")
    if tensorboard:
        require("--tensorboard", "tensorboard", extra="tensorboard")
    task = task_name(task)
    if task not in TRAINED:
        raise OptionError(f"task {task!r} is not one of {', '.join(TRAINED)}")
    if not isinstance(export, bool):
        raise OptionError(f"export is {export!r}, expected True or False")
    time_budget = budget(time_budget)
    _check_teacher(teacher, unlabelled, recipe)
    refuse_if_in_use(out)
    check_run_directory(out, resume=resume, overwrite=overwrite)
    began = time.monotonic()

    kept = TRAINED[task].read(train, columns)
    made = TRAINED[task].learn(kept)
    if dev is None:
        kept, dev_examples = set_aside(kept, DEV_SHARE, recipe.seed, split_by=made.split_by)
        dev_name = f"{100 * DEV_SHARE:.0f} % of the training texts set aside, seed {recipe.seed}"
    else:
        columns_of_dev = replace(columns, kind=columns.kind or getattr(made, "kind", None))  # as for train
        dev_examples, dev_name = TRAINED[task].read(dev, columns_of_dev), name_of(dev)
    made.check(dev_examples)
    more, notes = ([], []) if unlabelled is None else read_unlabelled(unlabelled, made, columns)
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
    taught = None if teacher is None else find_teacher(teacher, made, base=base_directory, out=out)
    encoded = made.encode([*kept, *more], tokenizer)
    windows = [
        window
        for window in encoded
        if len(window.head_positions) and (window.target is not None or window.example >= len(kept))
    ]
    chosen = recipe.hyperparameters(
        hidden_size=config.hidden_size, loss=made.loss, outputs=made.outputs, windows=len(windows)
    )
    facts |= {
        "train": name_of(train),
        "train_sha256": hash_of(train),
        "dev": dev_name,
        "dev_sha256": hash_of(dev),
        "n_train": len(kept),
        "n_dev": len(dev_examples),
        "recipe": recipe.as_json() | asdict(chosen),
        "columns": asdict(columns),
        "time_budget": time_budget,
    }
    if taught is None:
        facts["recipe"] = {name: value for name, value in facts["recipe"].items() if name not in OF_TEACHERS}
    else:
        facts["recipe"] |= {"teacher": taught.name, "unlabelled": None if unlabelled is None else name_of(unlabelled)}
        facts |= {"teacher_sha256": taught.sha256, "unlabelled_sha256": hash_of(unlabelled), "n_unlabelled": len(more)}

    # Import PyTorch here, which takes seconds, after the texts are validated.
    import torch

    from bothways.inference.engines.torch import TorchEngine
    from bothways.model.checkpoint import load_model
    from bothways.training.finetune import FineTuning, FineTuningJob
    from bothways.training.train import train as train_model

    generator = torch.Generator().manual_seed(recipe.seed)
    model, report = load_model(base_directory, made.head, made.outputs, generator, new_head=not head_fits)
    with ExitStack() as held:
        with training_frame(held, out, reporter, device=device, resume=resume, overwrite=overwrite) as frame:
            devices, reporter, work = frame.devices, frame.reporter, frame.work
            if frame.first and not resume:  # do not write anything until the base is loaded
                frame.begin(facts)
            texts = f"{len(kept):,} training texts" + (f" and {len(more):,} without labels" if more else "")
            reporter.say(
                f"{texts} in {len(windows):,} windows, {len(dev_examples):,} dev texts ({dev_name}); {made.describe()}"
            )
            for line in (*made.training_notes(kept), *notes, *shared([*kept, *more], dev_examples)):
                reporter.note(line)
            if unknown := unknown_words(tokenizer, kept):
                reporter.note(f"{unknown}; the vocabulary of {name_of(base)} may be of another language")
            if max_length < wanted:
                reporter.note(f"{base} has a maximum length of {max_length} tokens, so windows are no longer than that")
            reporter.say(recipe.describe(chosen, len(windows)))
            if time_budget is not None:
                reporter.say(
                    f"training for {time_budget:g} s; the time budget replaces epochs ({chosen.epochs:g}), and the "
                    "export and the comparison come after it"
                )
            for line in report.lines():
                reporter.say(line)
            predictor = Predictor(made, tokenizer, TorchEngine(model))
            references = [example.reference for example in dev_examples if example.reference is not None]

            def evaluate() -> dict[str, float]:
                predictions = predictor.predict_examples(dev_examples, reporter)
                tuned = made.tune_on(
                    predictions, references
                )  # with rare labels, few scores reach 0.5 early in training
                decided = tuned.redecided(predictions)
                scores = tuned.score(decided, references, rng=np.random.default_rng(recipe.seed), resamples=10)
                return {name: interval.value for name, interval in scores.metrics.items()}

            precision = frame.precision(recipe)
            facts |= {"precision": precision, "processes": devices.size, "device": devices.device.type}
            identity = _identity(facts, made, windows, dev_examples, base_directory)
            soft: TeacherLogits | None = None
            if taught is not None:
                logits = work / TEACHER
                if frame.first and not (resume and logits.is_file()):
                    examples = [*kept, *more]
                    place: Device = "cuda" if devices.device.type == "cuda" and taught.has_weights else "cpu"
                    write_logits(logits, taught, made, tokenizer, examples, windows, reporter=reporter, device=place)
                devices.wait()
                soft = TeacherLogits.read(
                    logits, windows, temperature=recipe.temperature, soft_weight=recipe.soft_weight
                )
                identity |= {"teacher": taught.sha256, "logits of the teacher": hash_of(logits)}
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
                teacher=soft,
            )
            tuning = FineTuning(model, job, devices)
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
                    facts["onnx_model"] = export_accepted(model_directory, dev_examples, reporter)
                model_directory.write()
            frame.record(facts)
            publish(work, out, reporter)
            comparison: Comparison | None = None
            with guarded(f"the comparison could not be made; the model is in {out}", reporter):
                comparison = compare_on(
                    dev_examples, [out], kept, base=base_directory, dev=True, seed=recipe.seed, reporter=reporter
                )
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
                        lengths=_lengths(made, [*kept, *more], encoded, tokenizer),
                        texts=report_texts,
                    )
                    write_report(out / REPORT, page)
                    if page.mistakes:
                        reporter.say(f"{REPORT} shows dev texts (--no-report-texts leaves them out)")
        for name in (CHECKPOINT, TEACHER):
            (out / name).unlink(missing_ok=True)
    answers = predictor.predict_examples(dev_examples) if comparison is None else comparison.rows[-1].predictions
    nothing = collapsed(made, answers, references)
    alone = (f"the model {nothing} on the dev set",) if nothing else ()
    for line in alone if comparison is None else comparison.verdicts:
        (reporter.note if nothing else reporter.say)(line)
    if (comparison is None or not comparison.verdicts) and state.step < FEW_STEPS and time_budget is None:
        reporter.note(f"the model was trained for {state.step} steps only; more epochs usually help")
    return FineTuningRun(out, comparison, time.monotonic() - began, state.history)


def _check_teacher(teacher: object, unlabelled: object, recipe: Recipe) -> None:
    """Raise `OptionError` for teacher options without a teacher."""
    if teacher is not None:
        return
    usual = Recipe()
    given = [name for name in OF_TEACHERS if getattr(recipe, name) != getattr(usual, name)]
    for name in [*(["unlabelled"] if unlabelled is not None else []), *given]:
        raise OptionError(f"{name} applies only to training with a teacher: give --teacher DIR, or leave {name} out")


def _identity(
    facts: dict[str, Any], task: Trainable, windows: Sequence[Encoded], dev: Sequence[Example], base: Path
) -> dict[str, Any]:
    """Return everything that the trained weights depend on, by name; large data as hashes."""
    train, evaluated = hashlib.sha256(), hashlib.sha256()
    for window in windows:
        target = () if window.target is None else (np.asarray(window.target),)
        for part in (window.ids, window.type_ids, window.head_positions, *target):
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
