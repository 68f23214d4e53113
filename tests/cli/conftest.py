"""Models that several test files of the command line use."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import bothways
from tests.tiny import ROWS, write_base

RECIPE = bothways.Recipe(
    epochs=12, batch_size=4, max_length=16, stride=4, precision="fp32", learning_rate=5e-3, dropout=0.0
)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return write_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def model(tmp_path_factory, base) -> Path:
    """A classifier of films."""
    out = tmp_path_factory.mktemp("model") / "run"
    bothways.finetune("classify", ROWS, ROWS, base=base, out=out, recipe=RECIPE)
    return out


@pytest.fixture(scope="session")
def answerer(tmp_path_factory, base) -> Path:
    """A model that answers questions, hardly trained."""
    out = tmp_path_factory.mktemp("answerer") / "run"
    rows = [
        {"question": "who?", "context": "It was Ann Lee.", "answers": {"text": ["Ann Lee"], "answer_start": [7]}},
        {"question": "where?", "context": "They met in Bonn.", "answers": {"text": ["Bonn"], "answer_start": [12]}},
    ]
    recipe = bothways.Recipe(epochs=1, max_length=24, stride=8, precision="fp32")
    bothways.finetune("answer", rows, rows, base=base, out=out, recipe=recipe, export=False)
    return out


@contextmanager
def worker(arguments: Sequence[object]) -> Iterator[subprocess.Popen[bytes]]:
    """The command line as a process that is talked to; it is killed after two minutes."""
    with subprocess.Popen(
        command(arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        watchdog = threading.Timer(120, running.kill)
        watchdog.start()
        try:
            yield running
        finally:
            watchdog.cancel()
            running.kill()


def command(arguments: Sequence[object]) -> list[str]:
    return [sys.executable, "-m", "bothways", *map(str, arguments)]


def process(arguments: Sequence[object], **options) -> subprocess.CompletedProcess[bytes]:
    """The command line as a process of its own."""
    options = {"stdin": subprocess.DEVNULL} | ({} if "input" not in options else {"stdin": None}) | options
    if options["stdin"] is None:
        del options["stdin"]
    return subprocess.run(command(arguments), capture_output=True, check=False, timeout=120, **options)
