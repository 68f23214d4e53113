"""What the processor is called and what it multiplies directly."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

_INFO = Path("/proc/cpuinfo")
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


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def model_name() -> str:
    """What the processor calls itself."""
    return _first().get("model name") or platform.processor() or platform.machine()


def processor() -> str:
    """The name that measurements are remembered under: two machines with the same name run alike."""
    info = _first()
    kind = "/".join(info[key] for key in ("cpu family", "model", "stepping") if key in info)
    return f"{model_name()}{f' ({kind})' if kind else ''}, {cores()} cores"


def multiplies_bytes() -> bool:
    """Whether 8-bit products are exact and quick here; True where the system does not say."""
    flags = _first().get("flags")
    return flags is None or bool(_QUICK_BYTES & set(flags.split()))


def multiplies_bf16() -> bool:
    """Whether bf16 products are quick here; False where the system does not say."""
    return bool(_QUICK_BF16 & set(_first().get("flags", "").split()))
