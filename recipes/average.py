"""The mean of two models with the same layers and labels, as a model directory (Wortsman et al. 2022).

python recipes/average.py FIRST SECOND OUT
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save


def main(first: Path, second: Path, out: Path) -> None:
    """Write OUT: everything but the weights is copied from SECOND."""
    one, other = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    if {name: value.shape for name, value in one.items()} != {name: value.shape for name, value in other.items()}:
        raise SystemExit(f"{first} and {second} do not have the same tensors")
    out.mkdir(parents=True)
    mean = {name: (value.astype(np.float32) + other[name].astype(np.float32)) / 2 for name, value in one.items()}
    for path in second.iterdir():
        if path.name in ("config.json", "vocab.txt") or path.name.startswith("tokenizer"):
            shutil.copy(path, out)
    (out / "model.safetensors").write_bytes(save(mean, {"format": "pt"}))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
