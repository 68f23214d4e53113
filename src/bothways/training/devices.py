"""Communication between the processes of a training run, each on its own device.

torchrun starts the processes and sets their ranks; gradients are summed in fp32, so all processes make the same step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from bothways.errors import BothwaysError, OptionError
from bothways.model.forward import device_of

T = TypeVar("T")
PATIENCE = timedelta(days=7)  # other processes wait while the first tokenizes a corpus or evaluates
CPU = torch.device("cpu")
LOWER = (  # advice if the GPU runs out of memory
    "lower --batch-size (and raise --gradient-accumulation-steps by the same factor), or --max-length"
)


@dataclass(frozen=True, slots=True)
class Devices:
    """The rank of this process among `size` processes, and its device."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    def add_up(self, tensor: Tensor) -> None:
        """Sum a tensor over all processes, in place."""
        if self.size > 1:
            with _peers():
                dist.all_reduce(tensor)

    def total(self, figures: dict[str, float]) -> dict[str, float]:
        """Sum figures over all processes, which must use the same names."""
        if self.size == 1:
            return figures
        summed = torch.tensor(list(figures.values()), dtype=torch.float64, device=self.device)
        self.add_up(summed)
        return dict(zip(figures, summed.tolist(), strict=True))

    def told(self, value: T) -> T:
        """Return the value of the first process."""
        if self.size == 1:
            return value
        box = [value]
        with _peers():
            dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def wait(self) -> None:
        """Wait until all processes get here."""
        if self.size > 1:
            self.told(None)


SINGLE_PROCESS = Devices()


@contextmanager
def _peers() -> Iterator[None]:
    """Turn a communication failure into a `BothwaysError`: another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise BothwaysError("another process of this run has ended; its message says why") from error


@contextmanager
def joined(device: str = "auto") -> Iterator[Devices]:
    """Join the processes that torchrun started while the block runs; without torchrun, use one process.

    Each process uses its own GPU. Raises `OptionError` if a requested GPU is not available or there are too few GPUs.
    """
    here = device_of(device)
    if here.type == "cuda":
        processes, there = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), torch.cuda.device_count()
        if processes > there:
            raise OptionError(
                f"torchrun started {processes} processes here, and there are {there} GPU(s), one for each process: "
                f"--nproc-per-node {there}, or train on the CPU with --device cpu"
            )
        here = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:  # set by torchrun
        yield Devices(device=here)
        return
    if here.type == "cuda":
        torch.cuda.set_device(here)
    dist.init_process_group("nccl" if here.type == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield Devices(dist.get_rank(), dist.get_world_size(), here)
    finally:
        dist.destroy_process_group()
