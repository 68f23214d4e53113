"""The shape of an encoder, read from and written to `config.json` with the ecosystem's key names."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError
from bothways.model.families import FAMILIES, Family

WEIGHTS = "model.safetensors"  # beside config.json
UNUSED_ROWS = 1000  # more of them than this and the vocabulary is of another model; some tables are rounded up
ACTIVATIONS = ("gelu", "gelu_tanh", "relu")
_ACTIVATION_FROM_HF = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
_ACTIVATION_TO_HF = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu"}

# Keys that describe labels, files or generation, not the computation of the encoder.
# fmt: off
_HARMLESS = frozenset({
    "_name_or_path", "_num_labels", "add_cross_attention", "architectures", "bad_words_ids", "begin_suppress_tokens",
    "bos_token_id", "chunk_size_feed_forward", "cls_token_id", "cross_attention_hidden_size",
    "decoder_start_token_id", "directionality", "down_scale_factor", "dtype", "embedding_size", "eos_token_id",
    "finetuning_task", "forced_bos_token_id", "forced_eos_token_id", "gap_size", "generator_hidden_size",
    "gradient_checkpointing", "id2label", "inner_group_num", "is_decoder", "is_encoder_decoder", "label2id",
    "language", "layer_norm_epsilon", "mask_token_id", "model_type", "net_structure_type", "num_hidden_groups",
    "num_labels", "num_memory_blocks", "output_attentions", "output_hidden_states", "output_past", "pooler_fc_size",
    "pooler_num_attention_heads", "pooler_num_fc_layers", "pooler_size_per_head", "pooler_type",
    "position_embedding_type", "problem_type", "qa_dropout", "return_dict", "sep_token_id", "sinusoidal_pos_embds",
    "summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj", "tie_weights_",
    "tie_word_embeddings", "torch_dtype", "torchscript", "transformers_version", "type_sequence_label_size",
    "use_bfloat16", "use_cache",
})
# fmt: on
_MUST_BE: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "inner_group_num": (1,),
    "sinusoidal_pos_embds": (False, True),  # the sinusoids are stored in the checkpoint like any other weight
}


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The shape and the constants of one encoder; checked when made.

    Raises `CheckpointError` for a shape that cannot be built.
    """

    family: str = "bert"
    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # None: the same as hidden_dropout_prob
    max_position_embeddings: int = 512
    type_vocab_size: int = 2  # 0: the family has no segment embeddings
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    embedding_size: int | None = None  # None: the same as hidden_size
    num_hidden_groups: int = 1  # ALBERT: how many distinct layers there are

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise CheckpointError(
                f"model_type {self.family!r} is not one bothways knows; it knows {', '.join(FAMILIES)}"
            )
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"hidden_size {self.hidden_size} does not divide by num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise CheckpointError(f"hidden_act {self.hidden_act!r} is not one of {', '.join(ACTIVATIONS)}")
        for name in (
            "vocab_size",
            "hidden_size",
            "num_hidden_layers",
            "intermediate_size",
            "num_hidden_groups",
        ):
            if getattr(self, name) < 1:
                raise CheckpointError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.max_pieces < 1:
            raise CheckpointError(f"max_position_embeddings {self.max_position_embeddings} leaves no room for text")

    @property
    def rules(self) -> Family:
        """The row of the family table that this model follows."""
        return FAMILIES[self.family]

    @property
    def max_pieces(self) -> int:
        """The longest window in pieces, specials included."""
        return self.max_position_embeddings - self.rules.position_offset

    @property
    def head_dropout(self) -> float:
        """The dropout rate before the last layer of a head."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @property
    def embedding_width(self) -> int:
        """The width of the embedding tables."""
        return self.embedding_size or self.hidden_size

    @property
    def projects(self) -> bool:
        """Whether a linear layer stands between the embeddings and the first layer."""
        return self.rules.always_projects or self.embedding_width != self.hidden_size

    @property
    def distinct_layers(self) -> int:
        """How many layers have weights of their own (ALBERT shares them)."""
        return self.num_hidden_groups if self.rules.shared_layers else self.num_hidden_layers

    def count_parameters(self, *, pooler: bool | None = None, labels: int = 0) -> int:
        """How many numbers the encoder holds, with a classification head of `labels` outputs if not 0.

        `pooler` None: as the published base model has it.

        >>> EncoderConfig().count_parameters()
        109482240
        >>> EncoderConfig().count_parameters(labels=2)
        109483778
        """
        rules, C, E, I = self.rules, self.hidden_size, self.embedding_width, self.intermediate_size  # noqa: E741
        if pooler is None:
            pooler = rules.classify_from_pooler if labels else rules.pooler
        total = (self.vocab_size + self.max_position_embeddings + self.type_vocab_size + 2) * E
        total += (E + 1) * C if self.projects else 0
        total += self.distinct_layers * (4 * C * (C + 1) + (C + 1) * I + (I + 1) * C + 4 * C)
        total += C * (C + 1) if pooler else 0
        if labels:
            total += labels * (C + 1) + (0 if rules.classify_from_pooler else C * (C + 1))
        return total

    @classmethod
    def from_json(cls, raw: dict[str, Any], *, where: str = "config.json") -> tuple[EncoderConfig, list[str]]:
        """The config that a `config.json` means, and the keys of it that nobody here understands.

        Raises `CheckpointError` for a missing or impossible value.
        """
        family = raw.get("model_type")
        if family not in FAMILIES:
            raise CheckpointError(
                f"{where}: model_type is {family!r}, expected one of {', '.join(FAMILIES)}; "
                "is this the directory of an encoder?"
            )
        for key, allowed in _MUST_BE.items():
            if raw.get(key, allowed[0]) not in allowed:
                raise CheckpointError(f"{where}: {key} is {raw[key]!r}, bothways computes only {allowed[0]!r}")
        theirs = FAMILIES[family].config_keys
        values: dict[str, Any] = {"family": family}
        for item in fields(cls):
            key = theirs.get(item.name, item.name)
            if item.name != "family" and raw.get(key) is not None:
                values[item.name] = raw[key]
        if not FAMILIES[family].segments:
            values["type_vocab_size"] = 0
        act = values.get("hidden_act", "gelu")
        values["hidden_act"] = _ACTIVATION_FROM_HF.get(act, act)
        understood = {theirs.get(item.name, item.name) for item in fields(cls)} | _HARMLESS
        try:
            return cls(**values), sorted(set(raw) - understood)
        except (TypeError, ZeroDivisionError) as error:
            raise CheckpointError(f"{where}: a value has the wrong type ({error})") from error

    @classmethod
    def read(cls, directory: Path) -> tuple[EncoderConfig, dict[str, Any], list[str]]:
        """The config in a model directory, the raw JSON it came from, and the keys not understood."""
        path = directory / "config.json"
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{directory}: no config.json there; expected a model directory") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path}: not a readable JSON file ({error})") from error
        if not isinstance(raw, dict):
            raise CheckpointError(f"{path}: holds a {type(raw).__name__}, expected an object of settings")
        config, unknown = cls.from_json(raw, where=str(path))
        return config, raw, unknown

    def to_json(self) -> dict[str, Any]:
        """The config under the key names of its family, as `transformers` reads it."""
        unused = {"family"} | {item.name for item in fields(self) if getattr(self, item.name) is None}
        if not self.rules.shared_layers:
            unused.add("num_hidden_groups")
        if not self.rules.segments:
            unused.add("type_vocab_size")
        theirs = self.rules.config_keys
        raw = {
            theirs.get(item.name, item.name): getattr(self, item.name)
            for item in fields(self)
            if item.name not in unused
        }
        return (
            {"model_type": self.family}
            | raw
            | {theirs.get("hidden_act", "hidden_act"): _ACTIVATION_TO_HF[self.hidden_act]}
        )

    def check_vocabulary(self, pieces: int, where: Path) -> None:
        """Raise `CheckpointError` where a vocabulary of so many pieces cannot be this model's."""
        if not self.vocab_size - UNUSED_ROWS <= pieces <= self.vocab_size:
            raise CheckpointError(
                f"{where}: the vocabulary has {pieces:,} pieces, the embedding table {self.vocab_size:,} rows; "
                "they are not of the same model"
            )

    def replace(self, **changes: Any) -> EncoderConfig:
        """A copy with some values changed."""
        return replace(self, **changes)
