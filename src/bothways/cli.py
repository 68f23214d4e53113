"""The command line: thin commands. Results go to stdout, messages to stderr; 2 means the user can mend it."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bothways.errors import BothwaysError, OptionError
from bothways.options import with_options
from bothways.terminal import Reporter
from bothways.text.files import Columns
from bothways.training.recipe import PretrainRecipe, Recipe, parse_seconds


class Form(StrEnum):
    """How predictions are written."""

    jsonl = "jsonl"
    html = "html"
    ansi = "ansi"
    csv = "csv"


app = typer.Typer(
    help="BERT and its family: text file in, trustworthy model out.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _annotate(kind: Any, name: str, text: str) -> Any:
    flag = "--" + name.replace("_", "-")
    return Annotated[
        kind, typer.Option(f"{flag}/--no-{flag[2:]}" if kind is bool and name in ("header", "nsp") else flag, help=text)
    ]


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Seed = Annotated[int, typer.Option(help="Seed of the bootstrap.", min=0)]
Task = Annotated[
    str | None,
    typer.Option(help="What the model shall do, where it could do several things: pairs, zero_shot, embed, fill ..."),
]
Labels = Annotated[str | None, typer.Option(help="zero_shot: the classes to choose from, with commas between.")]
MaxFall = Annotated[float, typer.Option(help="Points that the metric may fall against fp32.", min=0, max=100)]
Template = Annotated[str | None, typer.Option(help="zero_shot: the hypothesis, with {} for the label.")]
Engine = Annotated[str | None, typer.Option(help="onnxruntime, openvino or torch; without it the best there is.")]
Precision = Annotated[str | None, typer.Option(help="int8, int8-static, bf16 or fp32; without it the best there is.")]
Model = Annotated[str, typer.Argument(help="Directory of a fine-tuned model.", metavar="MODEL")]


@app.command("finetune")
@with_options(_annotate, Recipe, Columns)
def finetune_command(
    task: Annotated[str, typer.Argument(help="classify, pairs, tag or answer.")],
    train: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL, Parquet; CoNLL columns; SQuAD JSON.")],
    recipe: Recipe,
    columns: Columns,
    out: Annotated[Path, typer.Option(help="Directory to write the model to.")],
    dev: Annotated[Path | None, typer.Option(help="The dev file; without it a tenth of TRAIN is set aside.")] = None,
    base: Annotated[str, typer.Option(help="A name that `bothways models` lists, or a directory.")] = "minilm-l6",
    time_budget: Annotated[str | None, typer.Option(help="Train so long, for example 5m; replaces --epochs.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the directory.")] = False,
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
    if run.comparison is None:  # the first process tells
        return
    if as_json:
        _print_json(run.comparison.as_json() | {"directory": str(out), "seconds": run.seconds})
        return
    from bothways.analysis.tables import comparison_table

    _print(comparison_table(run.comparison))
    typer.echo(f"model: {out}   report: {out / REPORT}", err=True)


@app.command("evaluate")
@with_options(_annotate, Columns)
def evaluate_command(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Texts with their labels.")],
    columns: Columns,
    task: Task = None,
    labels: Labels = None,
    template: Template = None,
    engine: Engine = None,
    precision: Precision = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Score a model on a file with gold: every figure with its 95 % interval."""
    from bothways.jobs.judge import evaluate

    named = {"labels": labels and _names(labels), "template": template, "engine": engine, "precision": precision}
    settings: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    evaluation = evaluate(model, file, task=task, columns=columns, seed=seed, reporter=Reporter(), **settings)
    if as_json:
        _print_json(evaluation.as_json())
        return
    from bothways.analysis.tables import evaluation_tables

    for table in evaluation_tables(evaluation.scores):
        _print(table)


@app.command("compare")
@with_options(_annotate, Columns)
def compare_command(
    test: Annotated[Path, typer.Argument(help="Texts with their labels.")],
    columns: Columns,
    models: Annotated[str, typer.Option(help="Model directories, with commas between.")],
    train: Annotated[Path | None, typer.Option(help="What they were trained on, for the baseline of classes.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the table as HTML too.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """The honest table: for classes TF-IDF + linear model first, then each model."""
    from bothways.jobs.judge import compare_models

    names = _names(models)
    comparison = compare_models(test, names, train, columns=columns, report=report, seed=seed, reporter=Reporter())
    if as_json:
        _print_json(comparison.as_json())
        return
    from bothways.analysis.tables import comparison_table

    _print(comparison_table(comparison))
    for verdict in comparison.verdicts:
        typer.echo(verdict)


@app.command("predict")
def predict_command(
    model: Model,
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts; for answer, questions.", metavar="[TEXT]...")
    ] = None,
    pair: Annotated[str | None, typer.Option(help="The second text of each pair; for answer, the passage.")] = None,
    source: Annotated[Path | None, typer.Option("--input", help="A file of texts.")] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Where to write; without it, stdout.")] = None,
    form: Annotated[Form, typer.Option("--format", help="How to write.")] = Form.jsonl,
    every_score: Annotated[bool, typer.Option("--all", help="jsonl: every score, tag and n-best answer.")] = False,
    text_column: Annotated[str | None, typer.Option(help="Column of the text in the file.")] = None,
    pair_column: Annotated[str | None, typer.Option(help="Column of the second text.")] = None,
    header: Annotated[bool, typer.Option(help="Whether CSV and TSV begin with names.")] = True,
    task: Task = None,
    labels: Labels = None,
    template: Template = None,
    top_k: Annotated[int | None, typer.Option(help="answer, fill: how many answers.", min=1)] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Multi-label: least score; answer: that of no answer.")
    ] = None,
    engine: Engine = None,
    precision: Precision = None,
) -> None:
    """Predict texts, in the order of the input: JSON lines, one object a text; or a page, colours, a table."""
    from bothways.predictor import load

    if (source is None) == (not texts):
        raise OptionError("expected either texts on the command line or --input FILE")
    if source is not None and pair is not None:
        raise OptionError("--pair goes with a text on the command line; a file has a column for it (--pair-column)")
    named = {"labels": labels and _names(labels), "template": template, "top_k": top_k, "threshold": threshold}
    named |= {"engine": engine, "precision": precision}
    settings: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    predictor = load(model, task=task, reporter=Reporter(), **settings)
    if source is not None:
        columns = Columns(text_column=text_column, pair_column=pair_column, header=header)
        examples = predictor.task.read(source, columns, gold=False)
    else:
        examples = [predictor.task.example(text if pair is None else (text, pair)) for text in texts or []]
    on_terminal = output is None and sys.stdout.isatty()  # where a bar would stand between the answers
    predictions = predictor.stream(examples, total=len(examples), reporter=Reporter(quiet=on_terminal))
    parts = _written(form, examples, predictions, f"{Path(model).name}: {predictor.task.name}", every_score=every_score)
    if output is None:
        sys.stdout.writelines(_clean(part) for part in parts)
        return
    from bothways.storage import replacing

    with replacing(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        file.writelines(_clean(part) for part in parts)


def _written(
    form: Form, examples: Sequence[Any], predictions: Iterable[Any], title: str, *, every_score: bool
) -> Iterator[str]:
    """The output of predict, part by part."""
    from bothways import show

    pairs = zip(examples, predictions, strict=True)
    if form is Form.jsonl:
        lines = (prediction.as_json(every_score=every_score) for _, prediction in pairs)
        return (json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if form is Form.csv:
        return show.csv_lines(pairs)
    pictures = (prediction.picture(example) for example, prediction in pairs)
    if form is Form.html:
        return show.html_page(title, pictures)
    return (show.ansi(picture, colour=sys.stdout.isatty()) + "\n" for picture in pictures)


def _clean(text: str) -> str:
    """Text that can be written as UTF-8: half surrogates (bytes of the command line) become U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


@app.command("vocab")
def vocab_command(
    corpus: Annotated[list[Path], typer.Argument(help="Plain text files; .gz and .xz too.")],
    out: Annotated[Path, typer.Option(help="Directory to write the vocabulary to.")],
    kind: Annotated[str, typer.Option(help="wordpiece (as BERT), bpe (RoBERTa) or unigram (ALBERT).")] = "wordpiece",
    size: Annotated[int, typer.Option(help="How many pieces.", min=1)] = 30522,
    cased: Annotated[
        bool | None, typer.Option("--cased/--uncased", help="Whether A and a differ; without it as usual for the kind.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the vocabulary in the directory.")] = False,
) -> None:
    """Learn a vocabulary from plain text."""
    from bothways.text.learn import learn_vocabulary

    chosen: Any = kind
    learn_vocabulary(corpus, out, kind=chosen, size=size, cased=cased, overwrite=overwrite, reporter=Reporter())


@app.command("pretrain")
@with_options(_annotate, PretrainRecipe)
def pretrain_command(
    corpus: Annotated[list[Path], typer.Argument(help="Plain text files; .gz and .xz too.")],
    recipe: PretrainRecipe,
    out: Annotated[Path, typer.Option(help="Directory to write the model to.")],
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
    time_budget: Annotated[str | None, typer.Option(help="Train so long, for example 90m; replaces --steps.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the directory.")] = False,
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
        _print_json(run.as_json())
        return
    for name, value in run.dev.items():
        typer.echo(f"held-out {name.replace('_', ' ')}: {value:.4f}")
    typer.echo(f"model: {out}   report: {out / REPORT}", err=True)


@app.command("export")
@with_options(_annotate, Columns)
def export_command(
    model: Model,
    columns: Columns,
    precision: Annotated[str, typer.Option(help="int8, int8-static (for OpenVINO) or fp32.")] = "int8",
    calibrate: Annotated[
        Path | None, typer.Option(help="Dev texts with gold that say whether 8 bits answer as well.")
    ] = None,
    max_fall: MaxFall = 0.5,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Write a model as one ONNX graph, which runs without PyTorch."""
    from bothways.jobs.export import export

    form: Any = precision
    made = export(
        model,
        precision=form,
        calibrate=calibrate,
        task=task,
        columns=columns,
        most_fall=max_fall / 100,
        reporter=Reporter(),
    )
    if as_json:
        _print_json(made.as_json())
        return
    graph = made.graphs[form]
    typer.echo(f"{made.file(form)}: {f'rejected: {graph.rejected}' if graph.rejected else graph.measured()}")


@app.command("tune")
@with_options(_annotate, Columns)
def tune_command(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Texts like those that the model will read.")],
    columns: Columns,
    max_fall: MaxFall = 0.5,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Measure what runs a model fastest on this machine, and remember it."""
    from bothways.jobs.export import tune_model

    trials = tune_model(model, file, task=task, columns=columns, most_fall=max_fall / 100, reporter=Reporter())
    if as_json:
        _print_json({"model": model, "trials": [trial.as_json() for trial in trials]})
        return
    from bothways.analysis.tables import trials_table

    _print(trials_table(trials))


@app.command("models")
def models_command(as_json: Json = False) -> None:
    """The base models by name, with their shapes."""
    from bothways.analysis.tables import models_table
    from bothways.model.catalogue import CATALOGUE

    if not as_json:
        _print(models_table())
        return
    _print_json(
        {
            name: {
                "family": base.config.family,
                "layers": base.config.num_hidden_layers,
                "hidden": base.config.hidden_size,
                "heads": base.config.num_attention_heads,
                "parameters": base.config.count_parameters(),
                "vocabulary": base.config.vocab_size,
                "hub": base.hub,
            }
            for name, base in CATALOGUE.items()
        }
    )


@app.command("tokenize")
def tokenize_command(
    text: Annotated[str, typer.Argument(help="The text to cut into pieces.")],
    pair: Annotated[str | None, typer.Option(help="A second text.")] = None,
    model: Annotated[str, typer.Option(help="A base model's name, or a directory.")] = "bert-base-uncased",
    as_json: Json = False,
) -> None:
    """Cut a text into the pieces that a model sees."""
    from bothways.model.catalogue import CATALOGUE
    from bothways.text.tokenizer import Tokenizer

    directory = Path(model)
    if not directory.is_dir() and model in CATALOGUE:
        tokenizer = Tokenizer.packaged(CATALOGUE[model].vocabulary)
    elif directory.is_dir():
        tokenizer = Tokenizer.from_directory(directory)
    else:
        raise OptionError(f"no model {model!r}: not a directory, and not one of {', '.join(CATALOGUE)}")
    encoded = tokenizer.encode(text, pair)
    pieces = tokenizer.pieces(encoded.ids)
    if as_json:
        _print_json(
            {
                "ids": encoded.ids.tolist(),
                "type_ids": encoded.type_ids.tolist(),
                "pieces": pieces,
                "offsets": encoded.offsets.tolist(),
            }
        )
        return
    typer.echo(f"pieces   {' '.join(pieces)}")
    typer.echo(f"ids      {' '.join(map(str, encoded.ids))}")
    typer.echo(f"type ids {' '.join(map(str, encoded.type_ids))}")


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False))


def _print(table: Any) -> None:
    from rich.console import Console

    console = Console()
    # A file or a pipe has no width of its own: let the table have the width it needs.
    console.print(table) if console.is_terminal else Console(width=200).print(table)


def _command() -> None:
    if app(sys.argv[1:] or ["--help"], standalone_mode=False) == 130:  # what the library makes of Ctrl-C
        raise KeyboardInterrupt


def main() -> None:
    """Run a command; the user's mistakes end with one line and status 2, an interrupt with 130."""
    from bothways.errors import InterruptedRunError

    try:
        _command()
    except typer.TyperException as error:
        typer.echo(f"error: {error.format_message()} (bothways --help lists what there is)", err=True)
        sys.exit(2)
    except InterruptedRunError as error:
        typer.echo(str(error), err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except (BothwaysError, OSError) as error:  # what the system refuses (space, permission) is the user's to mend
        if os.environ.get("RANK", "0") == "0":  # of the processes that torchrun started one speaks
            typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        typer.echo("interrupted", err=True)
        sys.exit(130)
    finally:
        gc.freeze()  # or ending looks through every object several times, which takes 30 ms


if __name__ == "__main__":
    main()
