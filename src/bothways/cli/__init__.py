"""The command line. Results go to stdout, messages to stderr; exit status 2 is an error that the user can fix."""

from __future__ import annotations

import gc
import importlib
import inspect
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from bothways.errors import BothwaysError
from bothways.options import with_signature
from bothways.progress import messages_on_stderr, one_line

# Each command, in the order of --help, and its module.
COMMANDS = {
    "finetune": "training",
    "evaluate": "judging",
    "compare": "judging",
    "predict": "predicting",
    "info": "models",
    "vocab": "training",
    "pretrain": "training",
    "average": "training",
    "export": "models",
    "tune": "models",
    "models": "models",
    "tokenize": "models",
    "serve": "serving",
}
_MESSAGES = "Messages"
# Options of every command.
_COMMON: dict[str, Any] = {
    "quiet": Annotated[
        bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.", rich_help_panel=_MESSAGES)
    ],
    "verbose": Annotated[
        bool, typer.Option("--verbose", "-v", help="Show more messages, with timestamps.", rich_help_panel=_MESSAGES)
    ],
    "debug": Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=_MESSAGES)
    ],
}


def command_line(words: Sequence[str]) -> typer.Typer:
    """Build the app with all commands, or to save time only those of the module of the command `words[0]`."""
    app = typer.Typer(
        help="Fine-tune, evaluate and run BERT-family models.",
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_start)
    asked = COMMANDS.get(words[0]) if words else None
    for name, module in COMMANDS.items():
        if asked in (None, module):
            app.command(name)(_with_messages(name, importlib.import_module(f"bothways.cli.{module}")))
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from bothways import __version__

        typer.echo(f"bothways {__version__}")
        raise typer.Exit


def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _with_messages(name: str, module: Any) -> Callable[..., Any]:
    """Add the options for messages to the command `name`."""
    command = getattr(module, f"{name}_command")

    def run(*, quiet: bool, verbose: bool, debug: bool, **options: Any) -> Any:
        del debug  # `_failed` finds it in the arguments, even if parsing them fails
        level = logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO
        if name in ("finetune", "pretrain") and not _speaks():
            level = logging.CRITICAL
        with messages_on_stderr(level, times=verbose):
            try:
                return command(**options)
            except BrokenPipeError:  # the reader of stdout closed the pipe
                return 0

    hints = inspect.get_annotations(command, eval_str=True)
    own = [
        item.replace(annotation=hints[item.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for item in inspect.signature(command).parameters.values()
    ]
    more = [
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for key, annotation in _COMMON.items()
    ]
    return with_signature(run, command, [*own, *more])


def _speaks() -> bool:
    """Whether this process prints messages: it is the only one, or rank 0 under torchrun."""
    return os.environ.get("WORLD_SIZE", "1") == "1" or os.environ.get("RANK", "0") == "0"


def run(words: Sequence[str]) -> int:
    """Run a command and return its exit status: 0 success, 2 an error that the user can fix, 130 interrupted."""
    from bothways.errors import InterruptedRunError

    words = list(words) or ["--help"]
    try:
        status = command_line(words)(words, standalone_mode=False)  # Typer returns 130 after Ctrl-C
        sys.stdout.flush()  # so that a write error is reported here, not at exit
    except typer.TyperException as error:
        text = error.format_message()
        advice = "bothways --help lists the commands, bothways COMMAND --help the options"
        if text.startswith("No such option") and words[0] in ("predict", "tokenize"):
            advice = "put -- before a text that begins with -"
        return _failed(f"{text} ({advice})", words)
    except InterruptedRunError as error:
        _say(str(error))
        return 130
    except (BothwaysError, OSError) as error:  # the user can fix system errors (disk space, permissions)
        return _failed(str(error), words)
    except (KeyboardInterrupt, typer.Abort):
        _say("interrupted")
        return 130
    finally:
        _flush_stdout()
    if status == 130:
        _say("interrupted")
    return status if isinstance(status, int) else 0


def _failed(text: str, words: Sequence[str]) -> int:
    options = list(words)[: list(words).index("--")] if "--" in words else words
    if "--debug" in options:
        traceback.print_exc()
    if words[0] not in ("finetune", "pretrain") or _speaks():
        _say(f"error: {text}")
    return 2


def _say(text: str) -> None:
    typer.echo(one_line(text), err=True)


def _flush_stdout() -> None:
    """Flush stdout; if it is closed, discard the rest, because Python would report an error at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller: its output must not go to the other stream
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # escape characters that the console cannot encode
    signal.signal(signal.SIGTERM, _interrupt)
    status = run(sys.argv[1:])
    if any(thread.daemon for thread in threading.enumerate()):  # one that reads stdin would crash the exit
        sys.stderr.flush()
        os._exit(status)
    gc.freeze()  # otherwise the garbage collector scans all objects at exit, which takes 30 ms
    if status:
        sys.exit(status)
