"""The fine-tuning recipe as one record; the text beside each field is the help of the command line."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from bothways.errors import OptionError
from bothways.model.config import EncoderConfig
from bothways.options import check_options, option


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is fitted: AdamW, warm-up, linear decay (Devlin et al. 2019, A.3; Mosbach et al. 2021).

    Raises `OptionError` for a value that makes no sense.
    """

    epochs: float = option(3.0, "Passes over the training texts.")
    batch_size: int = option(32, "Windows a step.")
    lr: float | None = option(
        None,
        "Peak learning rate; without it 2e-5, 3e-5 or 5e-5 by the width of the model (frozen encoder: 1e-3).",
    )
    warmup: float = option(0.1, "Share of the run in which the learning rate rises.")
    weight_decay: float = option(0.01, "Weight decay; none on biases and norms.")
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm.")
    dropout: float | None = option(None, "Dropout rate; without it the model's own (0.1 for BERT).")
    layer_decay: float = option(1.0, "Factor on the learning rate from each layer to the one below.")
    freeze_encoder: bool = option(False, "Train the head alone.")
    freeze_embeddings: bool = option(
        False, "Keep the word embeddings as they are; models of the same base can then share them."
    )
    class_weights: Literal["none", "balanced"] = option("none", "balanced: rare classes weigh more.")
    accumulate: int = option(1, "Batches whose gradients are added up for one step.")
    eval_every: int = option(0, "Steps between evaluations on dev; 0: after each epoch.")
    patience: int = option(0, "Stop after so many evaluations without a better one; 0: never.")
    max_pieces: int | None = option(
        None, "Longest window in pieces, longer texts are read in several; without it 256, 384 for answer."
    )
    overlap: int | None = option(
        None, "Pieces that neighbouring windows share; without it a quarter of a window, a third for answer."
    )
    long_texts: Literal["window", "cut"] = option("window", "cut: read the first window only, and say so.")
    precision: Literal["auto", "bf16", "fp32"] = option("auto", "auto: bf16 where the processor has it.")
    seed: int = option(0, "Seed of the order, the new weights and the dropout.")

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "epochs": (1e-9, 1e4),
            "batch_size": (1, 1e5),
            "lr": (0.0, 1.0),
            "warmup": (0.0, 1.0),
            "weight_decay": (0.0, 1.0),
            "max_grad_norm": (1e-9, 1e9),
            "dropout": (0.0, 0.99),
            "layer_decay": (1e-3, 1.0),
            "accumulate": (1, 1e5),
            "eval_every": (0, 1e9),
            "patience": (0, 1e9),
            "max_pieces": (4, 1e6),
            "overlap": (0, 1e6),
            "seed": (0, 2**32 - 1),
        }
        check_options(self, limits)
        if self.overlap is not None and self.max_pieces is not None and self.overlap > self.max_pieces // 2:
            raise OptionError(f"overlap is {self.overlap}, expected at most half of max_pieces, {self.max_pieces}")

    def peak_lr(self, config: EncoderConfig) -> float:
        """The peak learning rate for a model: the given one, else by its width."""
        if self.lr is not None:
            return self.lr
        if self.freeze_encoder:
            return 1e-3
        if config.hidden_size >= 1024:
            return 2e-5
        return 3e-5 if config.hidden_size >= 768 else 5e-5

    def as_json(self) -> dict[str, Any]:
        """Every value by its name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """How a model is pretrained (Devlin et al. 2019, A.2; Liu et al. 2019, 4).

    Raises `OptionError` for a value that makes no sense.
    """

    steps: int = option(10_000, "Updates; a time budget replaces them.")
    batch_size: int = option(32, "Sequences an update, over all devices; of the first of the lengths.")
    max_pieces: str = option(
        "128",
        "Pieces a sequence; 128:0.9,512:0.1 for 128 in nine tenths of the run, then 512 (as many pieces an update).",
    )
    lr: float | None = option(None, "Peak learning rate; without it by the width of the model, and lower with --from.")
    warmup: float = option(0.05, "Share of the run in which the learning rate rises.")
    weight_decay: float = option(0.01, "Weight decay; none on biases and norms.")
    max_grad_norm: float = option(1.0, "Gradients are clipped to this norm.")
    dropout: float | None = option(None, "Dropout rate; without it the model's own (0.1 for BERT).")
    mask_rate: float = option(0.15, "Share of the pieces that are hidden.")
    whole_words: bool = option(False, "Hide all pieces of a word or none.")
    nsp: bool = option(True, "Learn whether a segment follows another; without it full sentences, as RoBERTa.")
    accumulate: int = option(1, "Parts in which a device computes an update, one after the other.")
    eval_every: int = option(0, "Updates between evaluations on held-out text; 0: ten in the run.")
    precision: Literal["auto", "bf16", "fp32"] = option("auto", "auto: bf16 where the processor has it.")
    seed: int = option(0, "Seed of the weights, the order, the masks and the dropout.")

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "steps": (1, 1e9),
            "batch_size": (1, 1e6),
            "lr": (0.0, 1.0),
            "warmup": (0.0, 1.0),
            "weight_decay": (0.0, 1.0),
            "max_grad_norm": (1e-9, 1e9),
            "dropout": (0.0, 0.99),
            "mask_rate": (0.01, 0.9),
            "accumulate": (1, 1e5),
            "eval_every": (0, 1e9),
            "seed": (0, 2**32 - 1),
        }
        check_options(self, limits)
        self.stages()

    def stages(self) -> list[tuple[int, float]]:
        """(pieces a sequence, share of the run at which it ends) for each stage.

        >>> PretrainRecipe(max_pieces="128:0.9,512:0.1").stages()
        [(128, 0.9), (512, 1.0)]
        """
        parts = [part.partition(":") for part in self.max_pieces.split(",")]
        try:
            lengths = [int(length) for length, _, _ in parts]
            shares = [float(share or 1) for _, _, share in parts]
        except ValueError:
            lengths, shares = [], []
        if not lengths or min(lengths) < 8 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise OptionError(
                f"max_pieces is {self.max_pieces!r}, expected a length from 8 on, or lengths with shares of the run "
                "that add up to 1, such as 128:0.9,512:0.1"
            )
        return [(length, round(sum(shares[: place + 1]), 6)) for place, length in enumerate(lengths)]

    def peak_lr(self, config: EncoderConfig, *, continued: bool) -> float:
        """The peak learning rate for a model: the given one, else by its width, a third where it is pretrained."""
        if self.lr is not None:
            return self.lr
        width = config.hidden_size
        usual = 1e-3 if width <= 256 else 5e-4 if width <= 512 else 2e-4 if width < 1024 else 1e-4
        return usual / 3 if continued else usual

    def as_json(self) -> dict[str, Any]:
        """Every value by its name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


def schedule(share: float, warmup: float) -> float:
    """The factor on the peak learning rate after a share of the run: up to 1 in `warmup`, then down to 0.

    >>> [round(schedule(share, 0.1), 6) for share in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if share < warmup:
        return share / warmup
    return max(0.0, (1.0 - share) / (1.0 - warmup)) if warmup < 1.0 else 1.0


def parse_seconds(text: str) -> float:
    """Seconds from "90s", "5m", "1.5h" or a bare number.

    >>> parse_seconds("5m"), parse_seconds("90")
    (300.0, 90.0)
    """
    units = {"s": 1.0, "m": 60.0, "h": 3600.0}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        seconds = float(number) * units[unit]
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 1e9:
        raise OptionError(f"time budget {text!r} is not a time; expected for example 90s, 5m or 1.5h")
    return seconds
