"""The processor: its name, its fast number formats, the cores that this process may use; environment variables."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Literal

Device = Literal["auto", "cpu", "cuda"]  # device for PyTorch; auto: a GPU if it finds one

_INFO = Path("/proc/cpuinfo")
_GROUPS = Path("/proc/self/cgroup")
_MOUNT = Path("/sys/fs/cgroup")
_X86 = ("x86_64", "amd64", "i386", "i686", "x86")
_QUICK_BYTES = {"avx512_vnni", "avx_vnni", "amx_int8"}  # exact sums of int8 products; without them sums may saturate
_QUICK_BF16 = {"avx512_bf16", "amx_bf16"}


@cache
def _first() -> dict[str, str]:
    """Return the entry of the first processor in /proc/cpuinfo; empty on other systems."""
    if not _INFO.is_file():
        return {}
    block = _INFO.read_text(encoding="utf-8").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in block.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def cores(groups: Path = _GROUPS, mount: Path = _MOUNT) -> int:
    """Return the number of cores this process may use: the minimum of its affinity and its cgroup CPU quotas."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([allowed, *quotas(groups, mount)])


def quotas(groups: Path = _GROUPS, mount: Path = _MOUNT) -> Iterator[int]:
    """Yield the CPU quota of each cgroup of this process, in cores: rounded up, at least 1.

    The file `groups` lists the cgroups ("0::/pod/app" for version 2, "4:cpu,cpuacct:/pod/app" for version 1); `mount`
    has their files. A container usually sees its cgroup as the root, so parent cgroups count, too.
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
    """Return the quota of one folder, from cpu.max ("200000 100000") or the files of version 1; None if unlimited."""
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
    """Return the model name of the processor."""
    return _first().get("model name") or platform.processor() or platform.machine()


def processor() -> str:
    """Return the key for cached measurements: machines with the same key have the same speed.

    It contains the name and model numbers of the processor (on ARM, /proc/cpuinfo has no model name), a hash of its
    flags, since a virtual machine may hide some, and the number of cores.
    """
    info = _first()
    keys = ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant")
    kind = "/".join(info[key] for key in keys if key in info)
    flags = " ".join(sorted(info.get("flags", info.get("Features", "")).split()))
    kind += f" flags {hashlib.sha256(flags.encode()).hexdigest()[:8]}" if flags else ""
    return f"{model_name()}{f' ({kind})' if kind else ''}, {cores()} cores"


def multiplies_bytes() -> bool:
    """Return whether int8 products are exact and fast; if unknown, False on x86 and True on others."""
    flags = _first().get("flags")
    return platform.machine().lower() not in _X86 if flags is None else bool(_QUICK_BYTES & set(flags.split()))


def multiplies_bf16() -> bool:
    """Return whether bf16 products are fast; False if unknown."""
    return bool(_QUICK_BF16 & set(_first().get("flags", "").split()))


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable in the block, for libraries without another way to configure them."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name)
        if before is not None:
            os.environ[name] = before
