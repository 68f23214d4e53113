"""Shared code of fine-tuning and pretraining: devices, run directory, facts about the base, weights."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bothways import __version__
from bothways.errors import MissingDependencyError, OptionError
from bothways.hardware import Device
from bothways.inference.model_directory import RUN
from bothways.jobs.directory import check_run_directory, claimed, clear_run_directory, terminable, work_directory
from bothways.jobs.settings import ancestors_of, circumstances, hash_of, name_of, revision_of, run_id
from bothways.model.config import WEIGHTS
from bothways.progress import Reporter
from bothways.storage import write_text

if TYPE_CHECKING:
    from torch import nn

    from bothways.model.forward import Precision
    from bothways.training.devices import Devices
    from bothways.training.loop import State
    from bothways.training.recipe import TrainingOptions


@dataclass(frozen=True, slots=True)
class Frame:
    """The directories, processes and messages of a run; only the first process shows messages."""

    out: Path
    work: Path
    devices: Devices
    reporter: Reporter

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes and evaluates."""
        return self.devices.rank == 0

    def precision(self, options: TrainingOptions) -> Precision:
        """Return the precision of the run, the same in all processes."""
        from bothways.model.forward import best_precision

        return self.devices.told(
            best_precision(self.devices.device) if options.precision == "auto" else options.precision
        )

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Delete the previous run, and write the first facts of this run."""
        clear_run_directory(self.out, self.work)
        self.record(facts)

    def record(self, facts: Mapping[str, Any]) -> None:
        """Write run.json."""
        write_text(self.work / RUN, json.dumps(facts, indent=2) + "\n")

    def save_weights(self, model: nn.Module, state: State, identity: Mapping[str, Any]) -> dict[str, Any]:
        """Write the trained weights; return facts about them and the training."""
        from bothways.model.checkpoint import model_tensors, write_safetensors

        tensors = model_tensors(model)  # type: ignore[arg-type]
        run = run_id(identity, tensors)
        write_safetensors(self.work / WEIGHTS, tensors, {"format": "pt", "run": run})
        return {
            "run": run,
            "steps": state.step,
            "training_seconds": round(state.seconds, 1),
            "tokens_per_second": round(state.tokens / max(state.seconds, 1e-9), 1),
            **circumstances(),
            "sha256": hash_of(self.work / WEIGHTS),
        }


@contextmanager
def training_frame(
    held: ExitStack,
    out: Path,
    reporter: Reporter,
    *,
    device: Device,
    resume: bool,
    overwrite: bool,
    besides: tuple[str, ...] = (),
) -> Iterator[Frame]:
    """Join the processes that torchrun started, for the block. Lock `out` until `held` is closed."""
    from bothways.training.devices import joined

    held.enter_context(terminable())
    with joined(device) as devices:
        if devices.rank == 0:
            held.enter_context(claimed(out))
            check_run_directory(out, resume=resume, overwrite=overwrite, besides=besides)
        work = devices.told(work_directory(out, resume=resume))
        yield Frame(out, work, devices, reporter if devices.rank == 0 else Reporter(quiet=True))


def require(what: str, *packages: str, extra: str = "train") -> None:
    """Raise `MissingDependencyError` for missing packages at the start of a run rather than at its end."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise MissingDependencyError(
                f"{what} needs {name}, which is not installed: pip install 'bothways[{extra}]'"
            )


def facts_of_base(base: str | Path | None, directory: Path | None, out: Path) -> dict[str, Any]:
    """Return facts that identify the base of a run; raises `OptionError` if it is also the output."""
    if directory is not None and directory.resolve() == out.resolve():
        raise OptionError(f"{out} is both the base and the output; choose another output directory")
    return {
        "base": None if base is None else name_of(base),
        "base_revision": None if directory is None else revision_of(directory),
        "base_sha256": None if directory is None else hash_of(directory / WEIGHTS),
        "base_ancestors": [] if directory is None else ancestors_of(directory),
        "bothways": __version__,
    }
