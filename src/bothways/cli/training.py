"""The commands `finetune`, `average`, `vocab` and `pretrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from bothways.cli.parts import (
    Json,
    Out,
    Overwrite,
    ReportTexts,
    Resume,
    TrainingDevice,
    annotate,
    print_json,
    print_line,
    print_tables,
)
from bothways.data.tables import Columns
from bothways.options import with_options
from bothways.progress import Reporter
from bothways.training.recipe import PretrainRecipe, Recipe

Corpus = Annotated[
    list[Path], typer.Argument(help="Plain text files, optionally compressed (.gz, .xz).", metavar="FILE...")
]


@with_options(annotate, Recipe, Columns)
def finetune_command(
    task: Annotated[
        str,
        typer.Argument(
            help="classify, pairs, tag or answer (or a name such as ner, question-answering).", metavar="TASK"
        ),
    ],
    train: Annotated[
        Path,
        typer.Argument(help="Training file (CSV, TSV, JSONL, Parquet; CoNLL columns; SQuAD JSON).", metavar="TRAIN"),
    ],
    recipe: Recipe,
    columns: Columns,
    out: Out,
    dev: Annotated[
        Path | None, typer.Option(help="Validation file. Default: 10 % of TRAIN, stratified by label.")
    ] = None,
    base: Annotated[
        str,
        typer.Option(
            help="Base model: a name from `bothways models`, a directory, or hf:OWNER/NAME on the Hugging Face hub."
        ),
    ] = "minilm-l6",
    teacher: Annotated[
        str | None,
        typer.Option(
            help="Also train on the logits of this model, fine-tuned for the same task: a directory or a name."
        ),
    ] = None,
    unlabelled: Annotated[
        Path | None,
        typer.Option(help="File of unlabeled texts to train on with the teacher's logits only."),
    ] = None,
    device: TrainingDevice = "auto",
    time_budget: Annotated[
        str | None, typer.Option(help="Stop training after this time (90s, 5m, 1.5h) instead of after --epochs.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write TensorBoard files.")] = False,
    export: Annotated[
        bool, typer.Option(help="Also export an int8 ONNX model if it passes the accuracy check (else fp32).")
    ] = True,
    report_texts: ReportTexts = True,
    as_json: Json = False,
) -> None:
    """Fine-tune a pretrained model on labeled texts and compare it with simple baselines."""
    from bothways.jobs.finetune import REPORT, finetune

    reporter = Reporter()
    run = finetune(
        task,
        train,
        dev,
        out=out,
        base=base,
        recipe=recipe,
        columns=columns,
        teacher=teacher,
        unlabelled=unlabelled,
        device=device,
        time_budget=time_budget,
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        export=export,
        report_texts=report_texts,
        reporter=reporter,
    )
    if not run.first:  # only the first process prints
        return
    if run.comparison is None:  # a note has given the reason
        if as_json:
            print_json({"directory": str(out), "seconds": run.seconds})
        return
    if as_json:
        print_json(run.comparison.as_json() | {"directory": str(out), "seconds": run.seconds})
        return
    from bothways.evaluation.tables import comparison_tables

    comparison = run.comparison
    print_tables(lambda width: comparison_tables(comparison, width))
    reporter.say(f"model: {out}   report: {out / REPORT}")


@with_options(annotate, Columns)
def average_command(
    runs: Annotated[
        list[Path], typer.Argument(help="Directories of models fine-tuned from the same base.", metavar="RUN...")
    ],
    columns: Columns,
    out: Annotated[Path, typer.Option(help="Output directory; must be new or empty unless --overwrite is given.")],
    dev: Annotated[
        Path | None,
        typer.Option(help="Validation file to compare the models, set the threshold and check int8 accuracy."),
    ] = None,
    overwrite: Overwrite = False,
    export: Annotated[
        bool, typer.Option(help="Also export an int8 ONNX model if it passes the accuracy check (without --dev: fp32).")
    ] = True,
    as_json: Json = False,
) -> None:
    """Average the weights of fine-tuned models of the same base, task and labels (model soup)."""
    from bothways.jobs.average import average

    reporter = Reporter()
    made = average(runs, out=out, dev=dev, columns=columns, overwrite=overwrite, export=export, reporter=reporter)
    comparison = made.comparison
    if as_json:
        print_json((comparison.as_json() if comparison else {}) | {"directory": str(out)})
        return
    if comparison is not None:
        from bothways.evaluation.tables import comparison_tables

        print_tables(lambda width: comparison_tables(comparison, width))
        for verdict in comparison.verdicts:
            print_line(verdict)
    reporter.say(f"model: {out}")


def vocab_command(
    corpus: Corpus,
    out: Out,
    algorithm: Annotated[
        Literal["wordpiece", "bpe", "unigram"],
        typer.Option(help="wordpiece (as in BERT), bpe (RoBERTa) or unigram (ALBERT)."),
    ] = "wordpiece",
    size: Annotated[int, typer.Option(help="Vocabulary size.", min=1)] = 30522,
    cased: Annotated[
        bool | None,
        typer.Option("--cased/--uncased", help="Keep case. Default: uncased for wordpiece and unigram, cased for bpe."),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Train a tokenizer vocabulary on plain text."""
    from bothways.text.vocabulary import train_vocabulary

    train_vocabulary(corpus, out, algorithm=algorithm, size=size, cased=cased, overwrite=overwrite, reporter=Reporter())


@with_options(annotate, PretrainRecipe)
def pretrain_command(
    corpus: Corpus,
    recipe: PretrainRecipe,
    out: Out,
    vocab: Annotated[
        str | None,
        typer.Option(help="Vocabulary: a directory that `bothways vocab` wrote, or a name from `bothways models`."),
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Model size: tiny, mini (default), small, medium, base, large, or a config.json.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Continue pretraining this model: a directory, or a name from `bothways models`."),
    ] = None,
    shards: Annotated[
        Path | None, typer.Option(help="Directory for the tokenized corpus (reused by later runs).")
    ] = None,
    device: TrainingDevice = "auto",
    time_budget: Annotated[
        str | None, typer.Option(help="Stop training after this time (90s, 5m, 1.5h) instead of after --steps.")
    ] = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Pretrain with masked language modeling and next-sentence prediction (on several devices with torchrun)."""
    from bothways.jobs.pretrain import REPORT, pretrain

    reporter = Reporter()
    run = pretrain(
        corpus,
        out=out,
        vocab=vocab,
        size=size,
        base=base,
        shards=shards,
        recipe=recipe,
        device=device,
        time_budget=time_budget,
        resume=resume,
        overwrite=overwrite,
        reporter=reporter,
    )
    if not run.first:
        return
    if as_json:
        print_json(run.as_json())
        return
    for name, value in run.dev.items():
        print_line(f"held-out {name.replace('_', ' ')}: {value:.4f}")
    reporter.say(f"model: {out}   report: {out / REPORT}")
