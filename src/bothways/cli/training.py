"""The commands that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bothways.cli.parts import Json, Out, Overwrite, Resume, TimeBudget, annotate, print_json, print_table
from bothways.options import with_options
from bothways.terminal import Reporter
from bothways.text.files import Columns
from bothways.training.recipe import PretrainRecipe, Recipe, parse_seconds


@with_options(annotate, Recipe, Columns)
def finetune_command(
    task: Annotated[str, typer.Argument(help="classify, pairs, tag or answer.")],
    train: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet; CoNLL columns; SQuAD JSON.")],
    recipe: Recipe,
    columns: Columns,
    out: Out,
    dev: Annotated[Path | None, typer.Option(help="The dev file; without it a tenth of TRAIN is set aside.")] = None,
    base: Annotated[str, typer.Option(help="A name that `bothways models` lists, or a directory.")] = "minilm-l6",
    time_budget: TimeBudget = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard files too.")] = False,
    export: Annotated[bool, typer.Option(help="Write a graph in 8 bits, if its answers hold on dev.")] = True,
    as_json: Json = False,
) -> None:
    """Fit a pretrained encoder to labelled texts, and compare it with a simple baseline."""
    from bothways.jobs.finetune import REPORT, finetune

    run = finetune(
        task,
        train,
        dev,
        out=out,
        base=base,
        recipe=recipe,
        columns=columns,
        time_budget=None if time_budget is None else parse_seconds(time_budget),
        resume=resume,
        overwrite=overwrite,
        tensorboard=tensorboard,
        export="int8" if export else "none",
        reporter=Reporter(),
    )
    if not run.first:  # the first process tells
        return
    if run.comparison is None:  # a note said why
        if as_json:
            print_json({"directory": str(out), "seconds": run.seconds})
        return
    if as_json:
        print_json(run.comparison.as_json() | {"directory": str(out), "seconds": run.seconds})
        return
    from bothways.analysis.tables import comparison_table

    print_table(comparison_table(run.comparison))
    typer.echo(f"model: {out}   report: {out / REPORT}", err=True)


def vocab_command(
    corpus: Annotated[list[Path], typer.Argument(help="Plain text files; .gz and .xz too.")],
    out: Out,
    kind: Annotated[str, typer.Option(help="wordpiece (as BERT), bpe (RoBERTa) or unigram (ALBERT).")] = "wordpiece",
    size: Annotated[int, typer.Option(help="How many pieces.", min=1)] = 30522,
    cased: Annotated[
        bool | None, typer.Option("--cased/--uncased", help="Whether A and a differ; without it as usual for the kind.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Learn a vocabulary from plain text."""
    from bothways.text.learn import learn_vocabulary

    chosen: Any = kind
    learn_vocabulary(corpus, out, kind=chosen, size=size, cased=cased, overwrite=overwrite, reporter=Reporter())


@with_options(annotate, PretrainRecipe)
def pretrain_command(
    corpus: Annotated[list[Path], typer.Argument(help="Plain text files; .gz and .xz too.")],
    recipe: PretrainRecipe,
    out: Out,
    vocab: Annotated[
        str | None, typer.Option(help="Directory of a vocabulary, or a name that `bothways models` lists.")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="tiny, mini (as without it), small, medium, base, large, or a config.json.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--from", help="Go on from this model: a directory, or a name of `bothways models`.")
    ] = None,
    shards: Annotated[Path | None, typer.Option(help="Where the corpus is kept in pieces, to be used again.")] = None,
    time_budget: TimeBudget = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Pretrain a model on plain text: guess hidden pieces, tell next sentences. torchrun starts it on many devices."""
    from bothways.jobs.pretrain import REPORT, pretrain

    run = pretrain(
        corpus,
        out=out,
        vocab=vocab,
        size=size,
        base=base,
        shards=shards,
        recipe=recipe,
        time_budget=None if time_budget is None else parse_seconds(time_budget),
        resume=resume,
        overwrite=overwrite,
        reporter=Reporter(),
    )
    if not run.first:
        return
    if as_json:
        print_json(run.as_json())
        return
    for name, value in run.dev.items():
        typer.echo(f"held-out {name.replace('_', ' ')}: {value:.4f}")
    typer.echo(f"model: {out}   report: {out / REPORT}", err=True)
