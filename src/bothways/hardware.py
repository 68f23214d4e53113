"""What the processor is called, what it multiplies directly, how much of it this process may use; its environment."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]  # where PyTorch computes; auto: on a GPU if it finds one

_INFO = Path("/proc/cpuinfo")
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_X86 = ("x86_64", "amd64", "i386", "i686", "x86")
_QUICK_BYTES = {"avx512_vnni", "avx_vnni", "amx_int8"}  # exact sums of 8-bit products; without them sums may saturate
_QUICK_BF16 = {"avx512_bf16", "amx_bf16"}


@cache
def _first() -> dict[str, str]:
    """The lines of the first processor in /proc/cpuinfo; empty on other systems."""
    if not _INFO.is_file():
        return {}
    block = _INFO.read_text(encoding="utf-8").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cores(groups: Path = _GROUPS, mount: Path = _MOUNT) -> int:
    """How many cores this process may use: the least of its affinity and the CPU quotas of its control groups."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *quotas(groups, mount)])


def quotas(groups: Path = _GROUPS, mount: Path = _MOUNT) -> Iterator[int]:
    """The CPU quota of each control group that this process is in, in cores: rounded up, at least 1.

    `groups` lists the groups ("0::/pod/app" for version 2, "4:cpu,cpuacct:/pod/app" for version 1), `mount` is where
    their files are. A container usually sees its own group as the root, so the groups above count too.
    """
    try:
        lines = groups.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            roots = [mount, mount / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [mount / controllers, mount / "cpu"]
        else:
            continue
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for root in dict.fromkeys(roots):
            for depth in range(len(parts), -1, -1):
                found = _quota(root.joinpath(*parts[:depth]))
                if found is not None:
                    yield found


def _quota(folder: Path) -> int | None:
    """The quota in one folder: "200000 100000" in cpu.max, or the two files of version 1; None for "max" and -1."""
    with suppress(OSError, ValueError):
        quota, _, period = (folder / "cpu.max").read_text(encoding="utf-8").strip().partition(" ")
        return _whole(int(quota), int(period or 100_000))
    with suppress(OSError, ValueError):
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
        return _whole(int(quota), int(period))
    return None


def _whole(quota: int, period: int) -> int | None:
    return max(1, -(-quota // period)) if quota > 0 and period > 0 else None


def model_name() -> str:
    """What the processor calls itself."""
    return _first().get("model name") or platform.processor() or platform.machine()


def processor() -> str:
    """The name that measurements are remembered under: two machines with the same name run alike.

    It holds what identifies the processor (on ARM, /proc/cpuinfo has no model name), a hash of its flags, which a
    virtual machine may hide, and the number of cores.
    """
    info = _first()
    keys = ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    kind = "/".join(info[key] for key in keys if key in info)
    flags = " ".join(sorted(info.get("flags", info.get("Features", "")).split()))
    kind += f" flags {hashlib.sha256(flags.encode()).hexdigest()[:8]}" if flags else ""
    return f"{model_name()}{f' ({kind})' if kind else ''}, {cores()} cores"


def multiplies_bytes() -> bool:
    """Whether 8-bit products are exact and quick here; False where an x86 system does not say, True on others."""
    flags = _first().get("flags")
    return platform.machine().lower() not in _X86 if flags is None else bool(_QUICK_BYTES & set(flags.split()))


def multiplies_bf16() -> bool:
    """Whether bf16 products are quick here; False where the system does not say."""
    return bool(_QUICK_BF16 & set(_first().get("flags", "").split()))


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """A variable of this process, and of those that it starts, for libraries that are told in no other way."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
