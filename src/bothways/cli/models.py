"""The commands about models themselves: their graphs, their speed, their shapes, their pieces."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from bothways.cli.parts import Json, MaxFall, Model, Task, annotate, print_json, print_table
from bothways.errors import OptionError
from bothways.options import with_options
from bothways.terminal import Reporter
from bothways.text.files import Columns


@with_options(annotate, Columns)
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
        print_json(made.as_json())
        return
    graph = made.graphs[form]
    typer.echo(f"{made.file(form)}: {f'rejected: {graph.rejected}' if graph.rejected else graph.measured()}")


@with_options(annotate, Columns)
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
        print_json({"model": model, "trials": [trial.as_json() for trial in trials]})
        return
    from bothways.analysis.tables import trials_table

    print_table(trials_table(trials))


def models_command(as_json: Json = False) -> None:
    """The base models by name, with their shapes."""
    from bothways.analysis.tables import models_table
    from bothways.model.catalogue import CATALOGUE

    if not as_json:
        print_table(models_table())
        return
    print_json(
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
        print_json(
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
