"""The options of fine-tuning and pretraining; the text of each field is its command-line help."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from bothways.errors import OptionError
from bothways.model.config import EncoderConfig
from bothways.options import check_options, option


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """The common options of fine-tuning and pretraining: AdamW with warm-up and linear decay.

    Raises `OptionError` for a value outside its limits.
    """

    limits: ClassVar[dict[str, tuple[float, float]]] = {
        "batch_size": (1, 1e6),
        "learning_rate": (0.0, 1.0),
        "warmup_ratio": (0.0, 1.0),
        "weight_decay": (0.0, 1.0),
        "max_grad_norm": (1e-9, 1e9),
        "dropout": (0.0, 0.99),
        "gradient_accumulation_steps": (1, 1e5),
        "eval_steps": (0, 1e9),
        "seed": (0, 2**32 - 1),
    }
    batch_size: int = option(32, "Batch size (windows or sequences).")
    learning_rate: float | None = option(None, "Peak learning rate. Default: depends on the hidden size of the model.")
    warmup_ratio: float = option(0.1, "Fraction of the run used for learning-rate warm-up.")
    weight_decay: float = option(0.01, "Weight decay (not applied to biases and norms).")
    max_grad_norm: float = option(1.0, "Maximum gradient norm; larger gradients are clipped.")
    dropout: float | None = option(None, "Dropout rate. Default: that of the base model (0.1 for BERT).")
    gradient_accumulation_steps: int = option(1, "Number of batches whose gradients are accumulated for one update.")
    eval_steps: int = option(0, "Updates between evaluations. 0: after each epoch, at most ten times per run.")
    precision: Literal["auto", "bf16", "fp32"] = option(
        "auto", "Precision of the matrix products. auto: bf16 if the hardware supports it, else fp32."
    )
    seed: int = option(0, "Random seed.")

    def __post_init__(self) -> None:
        check_options(self, self.limits)

    def as_json(self) -> dict[str, Any]:
        """Return all values by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}


@dataclass(frozen=True, slots=True)
class Recipe(TrainingOptions):
    """The options of fine-tuning (Devlin et al. 2019, A.3; Mosbach et al. 2021)."""

    limits: ClassVar[dict[str, tuple[float, float]]] = TrainingOptions.limits | {
        "epochs": (1e-9, 1e4),
        "layer_decay": (1e-3, 1.0),
        "patience": (0, 1e9),
        "max_length": (4, 1e6),
        "stride": (0, 1e6),
        "temperature": (0.1, 100.0),
        "soft_weight": (0.0, 1.0),
    }
    epochs: float | None = option(
        None,
        "Number of training epochs. Default: 3; for a small training file enough for 600 updates, but at most 10, or "
        "30 for tag, answer and more than 16 labels.",
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate. Default: depends on hidden size, task and number of labels; for classify with minilm-l6 "
        "1e-4 (more than 16 labels: 4e-4), with a base-size model 3e-5; with --freeze-encoder 1e-3.",
    )
    layer_decay: float | None = option(
        None, "Layer-wise learning-rate decay: factor per layer, from top to bottom. Default: 1 (off)."
    )
    freeze_encoder: bool = option(False, "Train only the head.")
    freeze_embeddings: bool = option(
        False, "Do not train the word embeddings, so that models of the same base can share them."
    )
    class_weights: Literal["none", "balanced"] = option(
        "none", "balanced: weight classes by inverse frequency, as in scikit-learn."
    )
    patience: int | None = option(
        None, "Early stopping: stop after this number of evaluations without improvement. Default: 0 (off)."
    )
    max_length: int | None = option(
        None, "Window length in tokens; longer texts are read in several windows. Default: 256 (answer: 384)."
    )
    stride: int | None = option(
        None, "Overlap of neighboring windows, in tokens. Default: a quarter of the window (answer: a third)."
    )
    truncation: bool = option(False, "Read only the first window of a long text.")
    temperature: float = option(2.0, "--teacher: temperature that divides the logits of both models.")
    soft_weight: float = option(
        0.5, "--teacher: weight of the teacher in the loss of a labeled text; the label has the rest."
    )

    def __post_init__(self) -> None:
        TrainingOptions.__post_init__(self)
        if self.stride is not None and self.max_length is not None and self.stride > self.max_length // 2:
            raise OptionError(f"stride is {self.stride}, expected at most half of max_length, {self.max_length}")

    def updates_per_epoch(self, windows: int) -> int:
        """Return the number of updates for one pass over the windows."""
        return -(-windows // (self.batch_size * self.gradient_accumulation_steps))

    def hyperparameters(self, *, hidden_size: int, loss: str, outputs: int, windows: int) -> Hyperparameters:
        """Return the given values, else the defaults for this model size, task loss and number of windows."""
        default = default_hyperparameters(
            hidden_size, loss, outputs, self.updates_per_epoch(windows), freeze_encoder=self.freeze_encoder
        )
        return replace(default, **{name: getattr(self, name) for name in self._given()})

    def describe(self, chosen: Hyperparameters, windows: int) -> str:
        """Describe the hyperparameters briefly, and list which are defaults."""
        updates = self.updates_per_epoch(windows)
        words = [f"learning rate {chosen.learning_rate:g}", f"{chosen.epochs:g} epochs of {updates:,} updates"]
        words += [f"layer decay {chosen.layer_decay:g}"] if chosen.layer_decay < 1 else []
        words += [f"patience {chosen.patience}"] if chosen.patience else []
        defaults = [name.replace("_", " ") for name in ("learning_rate", "epochs") if name not in self._given()]
        return ", ".join(words) + (f" ({' and '.join(defaults)} by default)" if defaults else "")

    def _given(self) -> list[str]:
        return [item.name for item in fields(Hyperparameters) if getattr(self, item.name) is not None]


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The options with defaults that depend on the model and the data."""

    learning_rate: float  # peak
    epochs: float
    layer_decay: float = 1.0
    patience: int = 0


FEW_UPDATES = 600  # shorter runs underfit
MANY_LABELS = 16  # with more, there are few examples per label
EPOCHS = 3.0
# By kind of output: peak learning rates for hidden sizes up to 512, below 1024 and larger; maximum number of epochs.
# Epochs and first column are measured (benchmarks/defaults.py); the others are common for the published models.
DEFAULTS = {
    "numbers, few labels": ((1e-4, 3e-5, 2e-5), 10.0),
    "many labels": ((4e-4, 5e-5, 3e-5), 30.0),
    "tokens": ((2e-4, 5e-5, 3e-5), 30.0),
    "spans": ((3e-4, 5e-5, 3e-5), 30.0),
}
HEAD_LEARNING_RATE = 1e-3  # if only the head is trained


def default_hyperparameters(
    hidden_size: int, loss: str, outputs: int, updates: int, *, freeze_encoder: bool = False
) -> Hyperparameters:
    """Return the defaults for a hidden size, a task's loss, a number of outputs and `updates` per epoch.

    >>> default_hyperparameters(384, "single", 2, 10)
    Hyperparameters(learning_rate=0.0001, epochs=10.0, layer_decay=1.0, patience=0)
    >>> default_hyperparameters(768, "tokens", 9, 1000).epochs
    3.0
    """
    kind = loss if loss in DEFAULTS else "many labels" if outputs > MANY_LABELS else "numbers, few labels"
    rates, most = DEFAULTS[kind]
    size = 0 if hidden_size <= 512 else 1 if hidden_size < 1024 else 2
    epochs = math.ceil(FEW_UPDATES / max(1, updates))
    return Hyperparameters(
        learning_rate=HEAD_LEARNING_RATE if freeze_encoder else rates[size],
        epochs=min(most, max(EPOCHS, float(epochs))),
    )


@dataclass(frozen=True, slots=True)
class PretrainRecipe(TrainingOptions):
    """The options of pretraining (Devlin et al. 2019, A.2; Liu et al. 2019, 4)."""

    limits: ClassVar[dict[str, tuple[float, float]]] = TrainingOptions.limits | {
        "steps": (1, 1e9),
        "mlm_probability": (0.01, 0.9),
    }
    steps: int = option(10_000, "Number of updates.")
    batch_size: int = option(32, "Sequences per update over all devices (of the first length, if there are several).")
    max_length: str = option(
        "128",
        "Sequence length in tokens. 128:0.9,512:0.1 trains 90 % of the run with 128 tokens, then with 512 "
        "(with the same number of tokens per update).",
    )
    learning_rate: float | None = option(
        None, "Peak learning rate. Default: depends on the hidden size; a third of it with --base."
    )
    warmup_ratio: float = option(0.05, "Fraction of the run used for learning-rate warm-up.")
    mlm_probability: float = option(0.15, "Fraction of tokens to mask.")
    whole_word_mask: bool = option(False, "Mask all tokens of a word together.")
    nsp: bool = option(True, "Next-sentence prediction; --no-nsp packs full sentences, as RoBERTa does.")
    gradient_accumulation_steps: int = option(1, "Split each update into this many batches per device.")
    eval_steps: int = option(0, "Updates between evaluations on held-out text. 0: ten per run.")

    def __post_init__(self) -> None:
        TrainingOptions.__post_init__(self)
        self.stages()

    def stages(self) -> list[tuple[int, float]]:
        """Return (sequence length, fraction of the run at which it ends) for each stage.

        >>> PretrainRecipe(max_length="128:0.9,512:0.1").stages()
        [(128, 0.9), (512, 1.0)]
        """
        parts = [part.partition(":") for part in self.max_length.split(",")]
        try:
            lengths = [int(length) for length, _, _ in parts]
            shares = [float(share or 1) for _, _, share in parts]
        except ValueError:
            lengths, shares = [], []
        if not lengths or min(lengths) < 8 or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
            raise OptionError(
                f"max_length is {self.max_length!r}, expected a length of at least 8, or lengths with fractions of the "
                "run that add up to 1, such as 128:0.9,512:0.1"
            )
        return [(length, round(sum(shares[: place + 1]), 6)) for place, length in enumerate(lengths)]

    def peak_learning_rate(self, config: EncoderConfig, *, continued: bool) -> float:
        """Return the given peak learning rate, else the default for the hidden size; a third of it if `continued`."""
        if self.learning_rate is not None:
            return self.learning_rate
        width = config.hidden_size
        default = 1e-3 if width <= 256 else 5e-4 if width <= 512 else 2e-4 if width < 1024 else 1e-4
        return default / 3 if continued else default


def schedule(share: float, warmup_ratio: float) -> float:
    """Return the learning-rate factor after a fraction of the run: linear warm-up to 1, then linear decay to 0.

    >>> [round(schedule(share, 0.1), 6) for share in (0.05, 0.1, 0.55, 1.0)]
    [0.5, 1.0, 0.5, 0.0]
    """
    if share < warmup_ratio:
        return share / warmup_ratio
    return max(0.0, (1.0 - share) / (1.0 - warmup_ratio)) if warmup_ratio < 1.0 else 1.0


def parse_seconds(text: str) -> float:
    """Parse "90s", "5m", "1.5h" or a bare number of seconds.

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
