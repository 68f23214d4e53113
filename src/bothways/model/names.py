"""Weight names: ours and those in the checkpoints of each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bothways.errors import CheckpointError
from bothways.model.config import EncoderConfig

HEADS = ("head.", "next.")  # name prefixes of our modules outside the encoder


def tensor_names(config: EncoderConfig, ours: str, head: str = "hidden") -> tuple[str, ...]:
    """Return the checkpoint names of our tensor `ours`, without the family's prefix; three for qkv.

    Names that start with "head" belong to `head`; names that start with "next" belong to the "next" head.

    >>> tensor_names(EncoderConfig(), "encoder.layers.0.norm.weight")
    ('encoder.layer.0.output.LayerNorm.weight',)
    """
    if ours.startswith("next."):
        head, ours = "next", ours.replace("next", "head", 1)
    stem, _, leaf = ours.rpartition(".")
    stem = stem.removeprefix("encoder.")
    layer = ""
    if stem.startswith("layers."):
        _, layer, part = stem.split(".", 2)
        stem = f"layers.{{i}}.{part}"
    theirs = (config.rules.names | config.rules.heads[head])[stem]
    return tuple(f"{name.format(i=layer)}.{leaf}" for name in ([theirs] if isinstance(theirs, str) else theirs))


def own_weights(config: EncoderConfig, head: str, tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return the weights of a checkpoint in fp32 under the names of `TaskModel(config, head, ...)`.

    Other heads are omitted, and so is the pooler if the head does not read it. Raises `CheckpointError` if a module
    of the encoder or of the head is missing. The build of the included models (models/build.py) uses it.
    """
    rules, prefix = config.rules, config.rules.prefix
    saved = {name.removeprefix(prefix): value for name, value in tensors.items()}
    own = dict.fromkeys(f"encoder.{stem}" for stem in rules.names) | dict.fromkeys(rules.heads[head])
    pooled = head in ("next", "pooled") or (head == "classify" and rules.classify_from_pooler)
    found: dict[str, np.ndarray] = {}
    for stem in own:
        layers = range(config.distinct_layers) if "{i}" in stem else [0]
        unused = {"encoder.pooler": not pooled, "encoder.embeddings.project": not config.projects}
        if unused.get(stem) or (stem == "encoder.embeddings.segment" and not config.type_vocab_size):
            continue
        for name in (stem.format(i=number) for number in layers):
            known = len(found)
            for leaf in ("weight", "bias"):
                theirs = tensor_names(config, f"{name}.{leaf}", head)
                if all(each in saved for each in theirs):
                    parts = [np.asarray(saved[each], np.float32) for each in theirs]
                    found[f"{name}.{leaf}"] = np.concatenate(parts)
            if len(found) == known:
                raise CheckpointError(f"the weights have no {tensor_names(config, f'{name}.weight', head)[0]}")
    return found
