"""Request and response bodies: used for validation and shown at /docs."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from bothways.serving.limits import SMALLEST_WINDOW

Item = TypeVar("Item")
MOST_TOP_K = 100
MOST_WORDS = 1000  # in targets, ignore_labels


class _OneOrMany:
    """JSON schema of a list or a single item."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


def _listed(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("missing_input", "found null, expected one input or a list of them")
    return value if isinstance(value, list) else [value]


OneOrMany = Annotated[list[Item], Field(min_length=1), BeforeValidator(_listed), _OneOrMany()]


class _Body(BaseModel):
    """Unknown keys are errors, so misspelled options are not ignored; 0 is not false, and "1" is not 1."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Pair(_Body):
    """A text, or two texts for a text-pair model."""

    text: str
    text_pair: str | None = None


class Question(_Body):
    """A question and the passage to search for the answer."""

    question: str
    context: str


class Comparison(_Body):
    """A sentence and the sentences to compare it with."""

    source_sentence: str
    sentences: list[str] = Field(min_length=1)


Model = Annotated[
    str | None,
    Field(description="Name of a model as in /v1/models; without it, the first that has this task.", max_length=64),
]
TopK = Annotated[int, Field(ge=1, le=MOST_TOP_K)]
MaxLength = Annotated[int, Field(ge=SMALLEST_WINDOW, le=100_000, description="Length of a window in tokens.")]
Stride = Annotated[int, Field(ge=0, le=50_000, description="Overlap of two windows in tokens.")]
Truncation = Annotated[bool, Field(description="Read the first window of a long text only.")]
Word = Annotated[str, Field(min_length=1, max_length=200)]


class Options(_Body):
    """Fields that the routes share."""

    model: Model = None
    inputs: Any

    def options(self) -> dict[str, Any]:
        """The given options, under their names in the pipeline."""
        return self.model_dump(exclude_unset=True, exclude={"model", "inputs"})


class ClassifyRequest(Options):
    """Classify texts or pairs of texts."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": ["a charming and often affecting journey"], "top_k": 2}]}
    )
    inputs: OneOrMany[str | Pair]
    top_k: Annotated[TopK | None, Field(description="Number of labels; null: all.")] = None
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    truncation: Truncation | None = None
    max_length: MaxLength | None = None
    stride: Stride | None = None


class TagRequest(Options):
    """Find entities in texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Tim Cook lives in Cupertino."}]})
    inputs: OneOrMany[str]
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "first"
    ignore_labels: Annotated[list[Word], Field(max_length=MOST_WORDS)] | None = None
    stride: Stride | None = None

    def options(self) -> dict[str, Any]:
        """The given options and `aggregation_strategy`, whose default differs from the pipeline's."""
        return Options.options(self) | {"aggregation_strategy": self.aggregation_strategy}


class AnswerRequest(Options):
    """Answer questions from passages."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": {"question": "Who designed it?", "context": "It was designed by Gustave Eiffel."}}]
        }
    )
    inputs: OneOrMany[Question]
    top_k: TopK | None = None
    doc_stride: Stride | None = None
    max_answer_len: Annotated[int, Field(ge=1, le=512)] | None = None
    max_seq_len: MaxLength | None = None
    handle_impossible_answer: bool | None = None
    align_to_words: bool | None = None


class ZeroShotRequest(Options):
    """Classify texts with candidate labels."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"inputs": "The match ended 2:1.", "candidate_labels": ["sports", "politics", "economy"]}]
        }
    )
    inputs: OneOrMany[str]
    candidate_labels: Annotated[list[Word], Field(min_length=1)]
    hypothesis_template: Annotated[str, Field(max_length=1000)] | None = None
    multi_label: bool | None = None
    truncation: Truncation | None = None
    max_length: MaxLength | None = None
    stride: Stride | None = None


class FillRequest(Options):
    """Fill masked tokens in texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "The cat [MASK] on the mat.", "top_k": 5}]})
    inputs: OneOrMany[str]
    top_k: TopK | None = None
    targets: Annotated[list[Word], Field(min_length=1, max_length=MOST_WORDS)] | None = None
    truncation: Truncation | None = None
    max_length: MaxLength | None = None
    stride: Stride | None = None


class EmbedRequest(Options):
    """Embed texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": ["a cat", "a kitten"]}]})
    inputs: OneOrMany[str]
    pooling: (
        Annotated[
            Literal["mean", "cls", "none"],
            Field(description="none: a vector for each token. Default: the model's own."),
        ]
        | None
    ) = None
    normalize: (
        Annotated[bool, Field(description="Scale vectors to length 1. Default: as the model records it.")] | None
    ) = None
    truncation: Truncation | None = None
    max_length: MaxLength | None = None
    stride: Stride | None = None


class SimilarityRequest(Options):
    """Cosine similarity of a sentence to others."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": {"source_sentence": "a cat", "sentences": ["a kitten", "a train"]}}]}
    )
    inputs: OneOrMany[Comparison]
    pooling: Literal["mean", "cls"] | None = None


class TokenizeRequest(_Body):
    """Tokenize a text or a pair."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "a charming journey"}]})
    model: Model = None
    text: str
    text_pair: str | None = None
    attentions: bool = False


class ReloadRequest(_Body):
    """No fields: the model is loaded from the same source."""


# Responses. `output` has the keys of pipeline().


class Label(BaseModel):
    """A class and its probability."""

    label: str | None
    score: float | None
    error: str | None = None


class Entity(BaseModel):
    """An entity; with aggregation_strategy "none", a token with `entity` and `index` instead of `entity_group`."""

    entity_group: str | None = None
    entity: str | None = None
    index: int | None = None
    score: float
    word: str
    start: int
    end: int


class Span(BaseModel):
    """An answer, `context[start:end]`."""

    answer: str
    score: float
    start: int
    end: int
    error: str | None = None


class Classes(BaseModel):
    """The candidate labels, best first."""

    sequence: str
    labels: list[str]
    scores: list[float]
    error: str | None = None


class Guess(BaseModel):
    """A token for a mask, and the filled text."""

    score: float
    token: int
    token_str: str
    sequence: str


class Failure(BaseModel):
    """An error instead of guesses."""

    error: str


Output = TypeVar("Output")


class Result(BaseModel, Generic[Output]):
    """The output for one input, with its number of windows and of truncated tokens.

    `error` is the reason if the input failed.
    """

    output: Output
    windows: int
    truncated: int
    error: str | None


class Answer(BaseModel, Generic[Output]):
    """One result per input, in order. `seconds` is the time from the request to the response."""

    model: str
    results: list[Result[Output]]
    tokens: int
    seconds: float
    notes: list[str]


LabelOutput = Label | list[Label]
SpanOutput = Span | list[Span]
GuessOutput = list[Guess] | list[list[Guess]] | list[Failure]
VectorOutput = list[float] | list[list[list[float]]]


class Token(BaseModel):
    """A token: `start` and `end` are offsets in text number `text` (0 or 1; null for a special token)."""

    token: str
    id: int
    type_id: int
    start: int
    end: int
    text: int | None


class Tokens(BaseModel):
    """The tokens of a text as one window; `windows` is the number of windows that the model reads.

    `attentions`, if requested, are probabilities by layer, head, token and attended token, rounded to 3 digits.
    """

    model: str
    tokens: list[Token]
    windows: int
    max_length: int
    attentions: list[list[list[list[float]]]] | None


class Attentions(BaseModel):
    """The attention probabilities of a model, available for texts of at most `max_tokens` tokens."""

    layers: int
    heads: int
    max_tokens: int


class Card(BaseModel):
    """A served model. `version` is a hash of its files; `attentions` is null if it was exported without them."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    task: str
    pipelines: list[str]
    routes: list[str]
    labels: list[str]
    mask_token: str | None
    max_length: int
    engine: str
    parameters: int
    attentions: Attentions | None
    version: str
    bothways: str
    card: str | None


class Cards(BaseModel):
    """All models of the server."""

    object: Literal["list"] = "list"
    data: list[Card]


class Status(BaseModel):
    """The health or readiness of the server."""

    status: str


class Problem(BaseModel):
    """Why a request failed."""

    error: str
    request_id: str


# OpenAI's /v1/embeddings


class EmbeddingsRequest(_Body):
    """OpenAI's request; `user` has no effect, and `dimensions` must be the model's vector size."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "minilm-l6", "input": ["a cat", "a kitten"]}]})
    model: Annotated[str, Field(max_length=64)]
    input: OneOrMany[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


class Embedding(BaseModel):
    """One vector; base64 encodes little-endian float32 numbers."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """The number of computed tokens."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """OpenAI's response."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class OpenAIError(BaseModel):
    """The error message and type."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIProblem(BaseModel):
    """OpenAI's error response."""

    error: OpenAIError


# Hugging Face's /models/NAME


class InferenceRequest(BaseModel):
    """`inputs` and `parameters` of the model's pipeline; other keys are parameters, too.

    `options`, sent by older clients, has no effect.
    """

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"inputs": "a text", "parameters": {"top_k": 2}}]}
    )
    inputs: Any
    parameters: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
