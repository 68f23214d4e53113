"""The commands `export`, `tune`, `info`, `models` and `tokenize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from bothways.cli.parts import Json, MaxDrop, Model, Task, annotate, argument_text, print_json, print_line, print_tables
from bothways.data.tables import Columns
from bothways.errors import OptionError
from bothways.options import with_options
from bothways.progress import Reporter


@with_options(annotate, Columns)
def export_command(
    model: Model,
    columns: Columns,
    precision: Annotated[
        Literal["int8", "int8-static", "fp32"] | None,
        typer.Option(help="int8 (ONNX Runtime), int8-static (OpenVINO) or fp32.", show_default="int8"),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(help="Validation file for calibration and for the accuracy check of int8 (not the test file)."),
    ] = None,
    max_drop: MaxDrop = 0.005,
    attentions: Annotated[
        bool,
        typer.Option(
            "--attentions",
            help="Also export an ONNX model of the attention probabilities for `bothways serve`; without --precision "
            "and --calibrate, export only this model.",
        ),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Copy the model to this new directory first.")] = None,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Export a model to ONNX so that it runs without PyTorch."""
    from bothways.jobs.export import export
    from bothways.tasks import task_name

    made = export(
        model,
        precision=precision,
        calibrate=calibrate,
        task=task and task_name(task),
        columns=columns,
        max_drop=max_drop,
        attentions=attentions,
        out=out,
        reporter=Reporter(),
    )
    if as_json:
        print_json(made.as_json())
        return
    if precision is not None or calibrate is not None:
        onnx_model = made.models[precision or "int8"]
        found = f"rejected: {onnx_model.rejected}" if onnx_model.rejected else onnx_model.measured()
        print_line(f"{made.file(precision or 'int8')}: {found}")
    if attentions:
        print_line(f"{made.attentions_file()}: attention probabilities in fp32")


@with_options(annotate, Columns)
def tune_command(
    model: Model,
    file: Annotated[Path, typer.Argument(help="Sample of typical input texts (labels optional).")],
    columns: Columns,
    goal: Annotated[
        Literal["throughput", "latency"],
        typer.Option("--for", help="throughput: most texts per second; latency: shortest time for one text."),
    ] = "throughput",
    export: Annotated[
        bool, typer.Option("--export/--no-export", help="Export the ONNX models that are missing, and measure them.")
    ] = True,
    compiling: Annotated[
        bool, typer.Option("--compile/--no-compile", help="Compile PyTorch's layers if they are nearly the fastest.")
    ] = True,
    max_drop: MaxDrop = 0.005,
    task: Task = None,
    as_json: Json = False,
) -> None:
    """Benchmark engines and settings on this machine and save the best for this model."""
    from bothways.jobs.tune import tune
    from bothways.tasks import task_name

    trials = tune(
        model,
        file,
        task=task and task_name(task),
        columns=columns,
        max_drop=max_drop,
        goal=goal,
        export=export,
        compiling=compiling,
        reporter=Reporter(),
    )
    if as_json:
        print_json({"model": model, "goal": goal, "trials": [trial.as_json() for trial in trials]})
        return
    from bothways.evaluation.tables import trials_tables

    print_tables(lambda width: trials_tables(trials, width))


def info_command(model: Model, task: Task = None, as_json: Json = False) -> None:
    """Show the task, labels, windows, exports, tuned settings, base model and versions of a model."""
    from bothways.jobs.info import describe_model
    from bothways.tasks import task_name

    facts = describe_model(model, task and task_name(task))
    if as_json:
        print_json(facts)
        return
    from bothways.evaluation.tables import facts_table

    print_tables(lambda _: [facts_table(model, facts)])


def models_command(as_json: Json = False) -> None:
    """List the models that have a name: included models, then base models to fine-tune."""
    from bothways.evaluation.tables import models_tables
    from bothways.model.catalogue import BASE_OF_INCLUDED, CATALOGUE, INCLUDED

    if not as_json:
        print_tables(models_tables)
        return
    included = {name: (CATALOGUE[BASE_OF_INCLUDED], None, answers) for name, answers in INCLUDED.items()}
    bases = {name: (base, base.hub, None) for name, base in CATALOGUE.items()}
    print_json(
        {
            name: {
                "family": base.config.family,
                "layers": base.config.num_hidden_layers,
                "hidden": base.config.hidden_size,
                "heads": base.config.num_attention_heads,
                "parameters": base.config.count_parameters(),
                "vocabulary": base.config.vocab_size,
                "hub": hub,
                "answers": answers,
            }
            for name, (base, hub, answers) in (included | bases).items()
        }
    )


def tokenize_command(
    text: Annotated[str, typer.Argument(help="Text to tokenize.", metavar="TEXT")],
    pair: Annotated[str | None, typer.Option(help="Second text of a pair.")] = None,
    model: Annotated[
        str, typer.Option(help="Base model whose tokenizer is used: a name or a directory.")
    ] = "bert-base-uncased",
    as_json: Json = False,
) -> None:
    """Show how a text is tokenized."""
    from bothways.model.catalogue import CATALOGUE
    from bothways.text.tokenizer import Tokenizer

    directory = Path(model)
    if not directory.is_dir() and model in CATALOGUE:
        tokenizer = Tokenizer.packaged(CATALOGUE[model].vocabulary)
    elif directory.is_dir():
        tokenizer = Tokenizer.from_directory(directory)
    else:
        raise OptionError(f"no model {model!r}: not a directory, and not one of {', '.join(CATALOGUE)}")
    encoded = tokenizer.encode(argument_text(text), None if pair is None else argument_text(pair))
    tokens = tokenizer.convert_ids_to_tokens(encoded.ids)
    if as_json:
        found: dict[str, Any] = {
            "ids": encoded.ids.tolist(),
            "type_ids": encoded.type_ids.tolist(),
            "tokens": tokens,
            "offsets": encoded.offsets.tolist(),
        }
        print_json(found)
        return
    print_line(f"tokens   {' '.join(tokens)}")
    print_line(f"ids      {' '.join(map(str, encoded.ids))}")
    print_line(f"type ids {' '.join(map(str, encoded.type_ids))}")
