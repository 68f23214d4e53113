"""Weight names: ours and those in the checkpoints of each family."""

from __future__ import annotations

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
