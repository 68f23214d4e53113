"""The encoder configuration, read from and written to `config.json` with the key names of `transformers`."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from bothways.errors import CheckpointError
from bothways.model.families import FAMILIES, Family
from bothways.text.modelfiles import read_json

WEIGHTS = "model.safetensors"  # beside config.json
UNUSED_ROWS = 1000  # maximum embedding rows without a token; some tables are rounded up
MAX_PARAMETERS = 20_000_000_000  # twice the largest published encoder of these families
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
    "position_embedding_type", "problem_type", "qa_dropout", "relative_attention_num_buckets", "return_dict",
    "sep_token_id", "sinusoidal_pos_embds",
    "summary_activation", "summary_last_dropout", "summary_type", "summary_use_proj", "tie_weights_",
    "tie_word_embeddings", "torch_dtype", "torchscript", "transformers_version", "type_sequence_label_size",
    "use_bfloat16", "use_cache",
})
# fmt: on
_WHOLE: dict[str, tuple[int, int]] = {  # (minimum, maximum)
    "vocab_size": (1, 10_000_000),
    "hidden_size": (1, 65_536),
    "num_hidden_layers": (1, 1_000),
    "num_attention_heads": (1, 1_024),
    "intermediate_size": (1, 1_000_000),
    "max_position_embeddings": (1, 1_000_000),
    "type_vocab_size": (0, 1_000),
    "pad_token_id": (0, 10_000_000),
    "embedding_size": (1, 65_536),
    "num_hidden_groups": (1, 1_000),
}
_REAL: dict[str, tuple[float, float]] = {
    "hidden_dropout_prob": (0.0, 1.0),
    "attention_probs_dropout_prob": (0.0, 1.0),
    "classifier_dropout": (0.0, 1.0),
    "layer_norm_eps": (0.0, 0.1),
    "initializer_range": (0.0, 10.0),
}
_MAY_BE_NONE = ("classifier_dropout", "embedding_size")
_MUST_BE: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
    "inner_group_num": (1,),
    "relative_attention_num_buckets": (32,),  # transformers always uses 32
    "sinusoidal_pos_embds": (False, True),  # sinusoids are stored in the checkpoint as weights
}


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """The shape and constants of an encoder, validated on creation.

    Raises `CheckpointError` for an invalid value or combination.
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
    num_hidden_groups: int = 1  # ALBERT: the number of distinct layers

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise CheckpointError(
                f"model_type {self.family!r} is not one bothways knows; it knows {', '.join(FAMILIES)}"
            )
        for name in (*_WHOLE, *_REAL):
            self._check(name)
        if self.hidden_size % self.num_attention_heads:
            raise CheckpointError(
                f"{self._key('hidden_size')} {self.hidden_size} is not divisible by "
                f"{self._key('num_attention_heads')} {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            known = ", ".join(_ACTIVATION_FROM_HF)
            raise CheckpointError(f"{self._key('hidden_act')} is {self.hidden_act!r}, expected one of {known}")
        if self.pad_token_id >= self.vocab_size:
            raise CheckpointError(
                f"pad_token_id is {self.pad_token_id}, expected less than vocab_size {self.vocab_size}"
            )
        if self.rules.shared_layers and self.num_hidden_groups > self.num_hidden_layers:
            raise CheckpointError(
                f"num_hidden_groups is {self.num_hidden_groups}, expected at most num_hidden_layers "
                f"{self.num_hidden_layers}"
            )
        if self.max_length < 1:
            raise CheckpointError(f"max_position_embeddings {self.max_position_embeddings} leaves no room for text")
        if (parameters := self.count_parameters()) > MAX_PARAMETERS:
            raise CheckpointError(f"found sizes of {parameters:,} parameters, expected at most {MAX_PARAMETERS:,}")

    def _key(self, name: str) -> str:
        """Return the key of a field in the family's config.json."""
        return self.rules.config_keys.get(name, name)

    def _check(self, name: str) -> None:
        value = getattr(self, name)
        if value is None and name in _MAY_BE_NONE:
            return
        low, high = (_WHOLE | _REAL)[name]
        wanted = f"a whole number from {low} to {high:,}" if name in _WHOLE else f"a number from {low:g} to {high:g}"
        kinds = int if name in _WHOLE else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
            raise CheckpointError(f"{self._key(name)} is {value!r}, expected {wanted}")
        if not low <= value <= high:
            raise CheckpointError(f"{self._key(name)} is {value}, expected {wanted}")

    @property
    def rules(self) -> Family:
        """The model's row of the family table."""
        return FAMILIES[self.family]

    @property
    def position_offset(self) -> int:
        """The row of the position table for the first token; in RoBERTa, `pad_token_id` + 1."""
        return self.pad_token_id + 1 if self.rules.counts_from_pad else self.rules.position_offset

    @property
    def max_length(self) -> int:
        """The maximum sequence length in tokens, special tokens included."""
        return self.max_position_embeddings - self.position_offset

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
        """Whether a linear projection follows the embeddings."""
        return self.rules.always_projects or self.embedding_width != self.hidden_size

    @property
    def distinct_layers(self) -> int:
        """The number of layers with distinct weights (ALBERT shares them)."""
        return self.num_hidden_groups if self.rules.shared_layers else self.num_hidden_layers

    @property
    def multiplications(self) -> int:
        """The number of multiplications per token in the linear layers of the encoder.

        >>> EncoderConfig().multiplications
        84934656
        """
        C = self.hidden_size
        return self.num_hidden_layers * (4 * C * C + 2 * C * self.intermediate_size)

    def count_parameters(self, *, pooler: bool | None = None, labels: int = 0) -> int:
        """Return the number of encoder parameters, plus a classification head of `labels` outputs if not 0.

        `pooler` None: as in the published base model or, with `labels`, as the classification head requires.

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
        total += rules.relative_buckets * self.num_attention_heads
        total += self.distinct_layers * (4 * C * (C + 1) + (C + 1) * I + (I + 1) * C + 4 * C)
        total += C * (C + 1) if pooler else 0
        if labels:
            total += labels * (C + 1) + (0 if rules.classify_from_pooler else C * (C + 1))
        return total

    @classmethod
    def from_json(cls, raw: dict[str, Any], *, where: str = "config.json") -> tuple[EncoderConfig, list[str]]:
        """Return the config of a parsed `config.json`, and its unknown keys.

        Raises `CheckpointError` for an unknown model type or an invalid value.
        """
        family = raw.get("model_type") or _family_in(raw.get("architectures"))
        if not isinstance(family, str) or family not in FAMILIES:
            advice = (
                'add "model_type": "bert" (or what it is) to it'
                if raw.get("model_type") is None
                else "is this the directory of an encoder?"
            )
            raise CheckpointError(f"{where}: model_type is {family!r}, expected one of {', '.join(FAMILIES)}; {advice}")
        for key, allowed in _MUST_BE.items():
            if raw.get(key) is not None and raw[key] not in allowed:
                raise CheckpointError(f"{where}: {key} is {raw[key]!r}, bothways computes only {allowed[0]!r}")
        rules = FAMILIES[family]
        values: dict[str, Any] = {"family": family, **rules.defaults}
        understood = set(_HARMLESS)
        for item in fields(cls):
            keys = {rules.config_keys.get(item.name, item.name), item.name} - {"family"}  # transformers reads either
            understood |= keys
            for key in sorted(keys, key=item.name.__ne__):  # the family's key takes precedence
                if key in raw:
                    values[item.name] = raw[key]
        if values.get("pad_token_id", 0) is None and not rules.position_offset:
            del values["pad_token_id"]  # only RoBERTa's positions depend on it
        if not rules.segments:
            values["type_vocab_size"] = 0
        act = values.get("hidden_act", "gelu")
        values["hidden_act"] = _ACTIVATION_FROM_HF.get(act, act) if isinstance(act, str) else act
        try:
            return cls(**values), sorted(set(raw) - understood)
        except CheckpointError as error:
            raise CheckpointError(f"{where}: {error}") from None

    @classmethod
    def read(cls, directory: Path) -> tuple[EncoderConfig, dict[str, Any], list[str]]:
        """Return the config in a model directory, its raw JSON and its unknown keys."""
        path = directory / "config.json"
        if not path.is_file():
            inside = [place.parent.name for place in sorted(directory.glob("*_Transformer/config.json"))]
            advice = f"the encoder is in {directory / inside[0]}, give that" if inside else "expected a model directory"
            raise CheckpointError(f"{directory}: no config.json there; {advice}")
        raw = read_json(path)
        config, unknown = cls.from_json(raw, where=str(path))
        return config, raw, unknown

    def to_json(self) -> dict[str, Any]:
        """Return the config with the key names of its family, as `transformers` reads it."""
        written = {item.name: getattr(self, item.name) for item in fields(self)}
        if "classifier_dropout" in self.rules.defaults:
            written["classifier_dropout"] = self.head_dropout
        if "embedding_size" in self.rules.defaults:
            written["embedding_size"] = self.embedding_width
        unused = {"family"} | {name for name, value in written.items() if value is None}
        if not self.rules.shared_layers:
            unused.add("num_hidden_groups")
        if not self.rules.segments:
            unused.add("type_vocab_size")
        theirs = self.rules.config_keys
        raw = {theirs.get(name, name): value for name, value in written.items() if name not in unused}
        if self.rules.relative_buckets:
            raw["relative_attention_num_buckets"] = self.rules.relative_buckets
        return (
            {"model_type": self.family}
            | raw
            | {theirs.get("hidden_act", "hidden_act"): _ACTIVATION_TO_HF[self.hidden_act]}
        )

    def check_vocabulary(self, tokens: int, where: Path) -> None:
        """Raise `CheckpointError` if the vocabulary size does not match the embedding table."""
        if not self.vocab_size - UNUSED_ROWS <= tokens <= self.vocab_size:
            raise CheckpointError(
                f"{where}: the vocabulary has {tokens:,} tokens, the embedding table {self.vocab_size:,} rows; "
                "they belong to different models"
            )

    def replace(self, **changes: Any) -> EncoderConfig:
        """Return a copy with some values changed."""
        return replace(self, **changes)


def _family_in(architectures: Any) -> str | None:
    """Return the family of the `architectures` in a config.json: "bert" for "BertForMaskedLM"."""
    name = architectures[0] if isinstance(architectures, list) and architectures else None
    stems = {rules.class_stem: family for family, rules in FAMILIES.items()}
    ends = ("For", "Model")
    named = (family for stem, family in stems.items() if str(name).startswith(tuple(stem + end for end in ends)))
    return next(named, None)
