"""Averages the weights of several fine-tuned models (model soup; Wortsman et al. 2022)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways import __version__
from bothways.data.tables import Columns, Source
from bothways.errors import OptionError
from bothways.evaluation.accuracy_check import export_accepted
from bothways.evaluation.compare import Comparison, compare_on
from bothways.evaluation.summary import card_of
from bothways.inference.choice import open_engine
from bothways.inference.model_directory import RUN, ModelDirectory
from bothways.inference.predictor import Predictor
from bothways.jobs.directory import (
    check_run_directory,
    claimed,
    clear_run_directory,
    guarded,
    publish,
    refuse_if_in_use,
    terminable,
    work_directory,
)
from bothways.jobs.settings import ancestors_of, circumstances, hash_of, name_of, run_id
from bothways.jobs.sources import columns_for
from bothways.model.catalogue import find_model
from bothways.model.config import WEIGHTS, EncoderConfig
from bothways.progress import Reporter
from bothways.storage import write_text
from bothways.tasks import TRAINED, Trainable, as_trainable

if TYPE_CHECKING:
    from torch import Tensor

EVALUATION = "evaluation.json"
# Config fields that may differ between averaged models.
_FREE = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": None}


@dataclass(frozen=True, slots=True)
class Average:
    """An averaged model: its directory, and its comparison with the runs if there was a dev file."""

    directory: Path
    comparison: Comparison | None
    facts: Mapping[str, Any]

    def __repr__(self) -> str:
        found = "not compared" if self.comparison is None else repr(self.comparison)
        return f"<Average in {self.directory}: {found}>"


def average(
    runs: Sequence[str | Path],
    *,
    out: str | Path,
    dev: Source | None = None,
    columns: Columns | None = None,
    overwrite: bool = False,
    export: bool = True,
    reporter: Reporter | None = None,
) -> Average:
    """Write a model with the mean weights of `runs` to `out`; everything else is from the last run.

    The runs must be fine-tuned from the same base for the same task and labels; one of them may be the base of the
    others. The labeled file `dev` is used to set the threshold of the task, to compare the runs with their average, and
    to check the int8 ONNX model; without it, the ONNX model is fp32.

    Raises `OptionError` for runs that cannot be averaged, `DataError` for the dev file.
    """
    reporter, out = reporter or Reporter(quiet=True), Path(out)
    refuse_if_in_use(out)
    check_run_directory(out, resume=False, overwrite=overwrite)
    directories = [find_model(run) for run in runs]
    _check_paths(directories, out)
    members = [ModelDirectory.read(directory) for directory in directories]
    task = as_trainable(members[-1].task)
    if task.name not in TRAINED:
        raise OptionError(f"{directories[-1]} is not fine-tuned (task {task.name}); expected runs of bothways finetune")
    hashes = [hash_of(directory / WEIGHTS) for directory in directories]
    _check_members(members)
    ancestor = _common_ancestor(members, hashes)
    examples = [] if dev is None else task.read(dev, columns_for(members[-1], columns))
    task.check(examples)

    from bothways.model.checkpoint import write_safetensors

    facts: dict[str, Any] = {
        **_facts_of_base(members, hashes, ancestor),
        "averaged": [{"name": name_of(run), "sha256": digest} for run, digest in zip(runs, hashes, strict=True)],
        **{name: members[-1].facts[name] for name in ("recipe", "columns") if name in members[-1].facts},
        "bothways": __version__,
        "dev": None if dev is None else name_of(dev),
        "n_dev": len(examples),
        "onnx_model": "none",
    }
    comparison: Comparison | None = None
    with ExitStack() as held:
        held.enter_context(terminable())
        held.enter_context(claimed(out))
        check_run_directory(out, resume=False, overwrite=overwrite)
        work = work_directory(out, resume=False)
        tensors = mean_of(directories)  # before anything is written, since this may raise
        clear_run_directory(out, work)
        write_text(work / RUN, json.dumps(facts, indent=2) + "\n")
        facts["run"] = run_id(facts, tensors)
        facts |= circumstances()
        write_safetensors(work / WEIGHTS, tensors, {"format": "pt", "run": facts["run"]})
        facts["sha256"] = hash_of(work / WEIGHTS)
        made = ModelDirectory(work, members[-1].config, task, members[-1].tokenizer, facts, members[-1].default_task)
        made.write()
        if examples and task.tunable:
            engine = open_engine(made, Reporter(quiet=True), engine="torch", precision="fp32")
            predictions = Predictor(task, made.tokenizer, engine, made).predict_examples(examples, reporter)
            references = [example.reference for example in examples if example.reference is not None]
            made = replace(made, task=task.tune_on(predictions, references))
            made.write()
        if export:
            with guarded(f"the ONNX model could not be written; the model is in {out}", reporter):
                facts["onnx_model"] = export_accepted(made, examples, reporter)
            made.write()
        write_text(work / RUN, json.dumps(facts, indent=2) + "\n")
        publish(work, out, reporter)
        if examples:
            with guarded(f"the comparison could not be made; the model is in {out}", reporter):
                comparison = compare_on(examples, [*directories, out], dev=True, reporter=reporter)
                write_text(out / EVALUATION, json.dumps(comparison.as_json(), indent=2) + "\n")
                write_text(out / "README.md", card_of(comparison, facts))
    return Average(out, comparison, facts)


def mean_of(directories: Sequence[Path]) -> dict[str, Tensor]:
    """Return the mean of each tensor in fp32; raises `OptionError` if models have different tensors."""
    from bothways.model.checkpoint import read_tensors

    total: dict[str, Tensor] = {}
    for directory in directories:
        found = read_tensors(directory)
        if not total:
            total = {name: tensor.double() for name, tensor in found.items()}
            continue
        for name in sorted({*total, *found}):
            shapes = [tuple(each[name].shape) if name in each else "not there" for each in (total, found)]
            if shapes[0] != shapes[1]:
                raise OptionError(
                    f"{directory} and {directories[0]} do not have the same weights ({name}: {shapes[1]}, "
                    f"{shapes[0]}), so they cannot be averaged"
                )
            total[name] += found[name]
    return {name: (tensor / len(directories)).float() for name, tensor in total.items()}


def _check_paths(directories: Sequence[Path], out: Path) -> None:
    if len(directories) < 2:
        raise OptionError("found one model, expected at least two; give the directories of fine-tuned models")
    paths = [directory.resolve() for directory in directories]
    for place, path in enumerate(paths):
        if path in paths[:place]:
            raise OptionError(f"{directories[place]} is given twice; name each model once")
    if out.resolve() in paths:
        raise OptionError(f"{out} is both a model to average and the output; choose another output directory")


def _check_members(members: Sequence[ModelDirectory]) -> None:
    """Raise `OptionError` unless all models have the same task, labels, architecture and tokenizer."""
    first = members[0]
    for other in members[1:]:
        pair = f"{other.path} and {first.path}"
        one, two = as_trainable(first.task), as_trainable(other.task)
        if (one.name, one.loss) != (two.name, two.loss):
            named = " and ".join(_task_name(each) for each in (two, one))
            raise OptionError(f"{pair} have different tasks ({named}), so they cannot be averaged")
        if one.labels != two.labels:
            how = "the same labels in another order" if set(one.labels) == set(two.labels) else "different labels"
            raise OptionError(f"{pair} have {how}, so they cannot be averaged; train both on the same labels")
        if _architecture(first.config) != _architecture(other.config):
            raise OptionError(f"{pair} have different shapes (config.json), so they cannot be averaged")
        if first.tokenizer.fingerprint() != other.tokenizer.fingerprint():
            raise OptionError(f"{pair} have different tokenizers, so they cannot be averaged")


def _task_name(task: Trainable) -> str:
    kind = getattr(task, "kind", "")
    return f"{task.name}, {kind}" if kind else task.name


def _architecture(config: EncoderConfig) -> EncoderConfig:
    return config.replace(**_FREE)


def _common_ancestor(members: Sequence[ModelDirectory], hashes: Sequence[str | None]) -> str:
    """Return the hash of the model that all were fine-tuned from; it may be one of them.

    Raises `OptionError` if there is none: averaging models from different initial weights does not work.
    """
    first = [str(hashes[0]), *ancestors_of(members[0].path)]
    for member, own in zip(members[1:], hashes[1:], strict=True):
        others = {own, *ancestors_of(member.path)}
        common = [one for one in first if one in others]
        if not common:
            raise OptionError(
                f"{member.path} and {members[0].path} were not fine-tuned from the same base, so they cannot be "
                "averaged"
            )
        first = common
    return first[0]


def _facts_of_base(members: Sequence[ModelDirectory], hashes: Sequence[str | None], ancestor: str) -> dict[str, Any]:
    """Return the facts about the common base: name, revision, hash, ancestors."""
    for member, own in zip(members, hashes, strict=True):
        if own == ancestor:
            return {"base": name_of(member.path), "base_sha256": own, "base_ancestors": ancestors_of(member.path)}
    for member in members:
        facts = member.facts
        if facts.get("base_sha256") == ancestor:
            names = ("base", "base_revision", "base_sha256", "base_ancestors")
            return {name: facts[name] for name in names if name in facts}
    return {"base": ancestor, "base_sha256": ancestor}
