"""Every model family as one row of data: its tensor names, config keys and layer switches.

All families use the post-norm encoder of Devlin et al. 2019.
`{i}` is the layer number; a tuple of three names query, key and value, which our encoder stores as one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

Names = dict[str, str | tuple[str, str, str]]


@dataclass(frozen=True, slots=True)
class Family:
    """The properties of one model family.

    `names` maps our module names to the names in its checkpoints (without `prefix`). `heads` does so for each head
    of the family. `config_keys` maps our config fields to its keys where they differ. `defaults` are the values of
    fields that its config.json may omit, where they differ from BERT's.
    """

    class_stem: str
    prefix: str
    names: Names
    heads: dict[str, Names]
    config_keys: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, int | float | str] = field(default_factory=dict)
    position_offset: int = 0  # in the published models
    counts_from_pad: bool = False  # the first position is pad_token_id + 1
    relative_buckets: int = 0  # relative-position buckets, each with an attention bias, shared by all layers
    pooler: bool = True  # the published base model has one
    classify_from_pooler: bool = True  # else the head has its own dense layer
    head_activation: str = "tanh"
    masked_activation: str | None = None  # None: the layers' activation
    span_dropout: float = 0.0
    next_dropout: float = 0.0
    dropout_before_head_dense: bool = False
    dropout_after_attention: bool = True
    dropout_after_feedforward: bool = True
    shared_layers: bool = False
    always_projects: bool = False  # project the embeddings even if the sizes are equal
    segments: bool = True


# Class suffixes of `transformers`, by our head name.
ARCHITECTURES: dict[str, str] = {
    "classify": "ForSequenceClassification",
    "tokens": "ForTokenClassification",
    "spans": "ForQuestionAnswering",
    "masked": "ForMaskedLM",
    "next": "ForNextSentencePrediction",
    "hidden": "Model",
    "pooled": "Model",
}
READ_ONCE = ("classify", "next", "pooled")  # heads that read only the first token of each window
_BERT_NAMES: Names = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.segment": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{i}.qkv": (
        "encoder.layer.{i}.attention.self.query",
        "encoder.layer.{i}.attention.self.key",
        "encoder.layer.{i}.attention.self.value",
    ),
    "layers.{i}.attention_output": "encoder.layer.{i}.attention.output.dense",
    "layers.{i}.attention_norm": "encoder.layer.{i}.attention.output.LayerNorm",
    "layers.{i}.inner": "encoder.layer.{i}.intermediate.dense",
    "layers.{i}.outer": "encoder.layer.{i}.output.dense",
    "layers.{i}.norm": "encoder.layer.{i}.output.LayerNorm",
    "pooler": "pooler.dense",
}
_DISTILBERT_NAMES: Names = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "layers.{i}.qkv": (
        "transformer.layer.{i}.attention.q_lin",
        "transformer.layer.{i}.attention.k_lin",
        "transformer.layer.{i}.attention.v_lin",
    ),
    "layers.{i}.attention_output": "transformer.layer.{i}.attention.out_lin",
    "layers.{i}.attention_norm": "transformer.layer.{i}.sa_layer_norm",
    "layers.{i}.inner": "transformer.layer.{i}.ffn.lin1",
    "layers.{i}.outer": "transformer.layer.{i}.ffn.lin2",
    "layers.{i}.norm": "transformer.layer.{i}.output_layer_norm",
}
_MPNET_NAMES: Names = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "relative": "encoder.relative_attention_bias",
    "layers.{i}.qkv": (
        "encoder.layer.{i}.attention.attn.q",
        "encoder.layer.{i}.attention.attn.k",
        "encoder.layer.{i}.attention.attn.v",
    ),
    "layers.{i}.attention_output": "encoder.layer.{i}.attention.attn.o",
    "layers.{i}.attention_norm": "encoder.layer.{i}.attention.LayerNorm",
    "layers.{i}.inner": "encoder.layer.{i}.intermediate.dense",
    "layers.{i}.outer": "encoder.layer.{i}.output.dense",
    "layers.{i}.norm": "encoder.layer.{i}.output.LayerNorm",
    "pooler": "pooler.dense",
}
_ALBERT_LAYER = "encoder.albert_layer_groups.{i}.albert_layers.0"
_ALBERT_NAMES: Names = {
    "embeddings.word": "embeddings.word_embeddings",
    "embeddings.position": "embeddings.position_embeddings",
    "embeddings.segment": "embeddings.token_type_embeddings",
    "embeddings.norm": "embeddings.LayerNorm",
    "embeddings.project": "encoder.embedding_hidden_mapping_in",
    "layers.{i}.qkv": (
        f"{_ALBERT_LAYER}.attention.query",
        f"{_ALBERT_LAYER}.attention.key",
        f"{_ALBERT_LAYER}.attention.value",
    ),
    "layers.{i}.attention_output": f"{_ALBERT_LAYER}.attention.dense",
    "layers.{i}.attention_norm": f"{_ALBERT_LAYER}.attention.LayerNorm",
    "layers.{i}.inner": f"{_ALBERT_LAYER}.ffn",
    "layers.{i}.outer": f"{_ALBERT_LAYER}.ffn_output",
    "layers.{i}.norm": f"{_ALBERT_LAYER}.full_layer_layer_norm",
    "pooler": "pooler",
}


def _heads(classify: Names, masked: tuple[str, str, str], next_: str | None = None) -> dict[str, Names]:
    """Return the heads of a family; `masked` names the dense layer, the norm and the module with the bias."""
    heads: dict[str, Names] = {
        "classify": classify,
        "tokens": {"head.output": "classifier"},
        "spans": {"head.output": "qa_outputs"},
        "masked": dict(zip(("head.dense", "head.norm", "head"), masked, strict=True)),
        "hidden": {},
        "pooled": {},
    }
    return heads | ({"next": {"head.output": next_}} if next_ else {})


_FROM_POOLER: Names = {"head.output": "classifier"}
_ROBERTA_HEAD: Names = {"head.dense": "classifier.dense", "head.output": "classifier.out_proj"}

FAMILIES: dict[str, Family] = {
    "bert": Family(
        class_stem="Bert",
        prefix="bert.",
        names=_BERT_NAMES,
        heads=_heads(
            _FROM_POOLER,
            ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions"),
            "cls.seq_relationship",
        ),
    ),
    "distilbert": Family(
        class_stem="DistilBert",
        prefix="distilbert.",
        names=_DISTILBERT_NAMES,
        heads=_heads(
            {"head.dense": "pre_classifier", "head.output": "classifier"},
            ("vocab_transform", "vocab_layer_norm", "vocab_projector"),
        ),
        config_keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "classifier_dropout": "seq_classif_dropout",
        },
        defaults={"num_hidden_layers": 6, "classifier_dropout": 0.2},
        segments=False,
        pooler=False,
        classify_from_pooler=False,
        head_activation="relu",
        span_dropout=0.1,
        dropout_after_attention=False,
    ),
    "roberta": Family(
        class_stem="Roberta",
        prefix="roberta.",
        names=_BERT_NAMES,
        heads=_heads(_ROBERTA_HEAD, ("lm_head.dense", "lm_head.layer_norm", "lm_head")),
        defaults={"vocab_size": 50265, "pad_token_id": 1},
        position_offset=2,
        counts_from_pad=True,
        classify_from_pooler=False,
        masked_activation="gelu",
        dropout_before_head_dense=True,
    ),
    "mpnet": Family(
        class_stem="MPNet",
        prefix="mpnet.",
        names=_MPNET_NAMES,
        heads=_heads(_ROBERTA_HEAD, ("lm_head.dense", "lm_head.layer_norm", "lm_head")),
        defaults={"vocab_size": 30527, "pad_token_id": 1},
        position_offset=2,
        relative_buckets=32,
        classify_from_pooler=False,
        masked_activation="gelu",
        dropout_before_head_dense=True,
        segments=False,
    ),
    "albert": Family(
        class_stem="Albert",
        prefix="albert.",
        names=_ALBERT_NAMES,
        heads=_heads(
            _FROM_POOLER, ("predictions.dense", "predictions.LayerNorm", "predictions"), "sop_classifier.classifier"
        ),
        config_keys={"classifier_dropout": "classifier_dropout_prob"},
        defaults={
            "vocab_size": 30000,
            "embedding_size": 128,
            "hidden_size": 4096,
            "num_attention_heads": 64,
            "intermediate_size": 16384,
            "hidden_act": "gelu_new",
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "classifier_dropout": 0.1,
        },
        next_dropout=0.1,
        shared_layers=True,
        always_projects=True,
        dropout_after_feedforward=False,
    ),
    "electra": Family(
        class_stem="Electra",
        prefix="electra.",
        names=_BERT_NAMES | {"embeddings.project": "embeddings_project"},
        heads=_heads(
            _ROBERTA_HEAD, ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head")
        ),
        defaults={"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
        masked_activation="gelu",
        pooler=False,
        classify_from_pooler=False,
        head_activation="gelu",
        dropout_before_head_dense=True,
    ),
}
FAMILIES["xlm-roberta"] = replace(FAMILIES["roberta"], class_stem="XLMRoberta", defaults={"pad_token_id": 1})
