"""Bodies of requests and answers: what is validated, and what /docs shows."""

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
    """A list, or one item in its place."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


def _listed(value: Any) -> Any:
    if value is None:
        raise PydanticCustomError("missing_input", "found null, expected one input or a list of them")
    return value if isinstance(value, list) else [value]


OneOrMany = Annotated[list[Item], Field(min_length=1), BeforeValidator(_listed), _OneOrMany()]


class _Body(BaseModel):
    """An unknown key is an error, so that no misspelled option is ignored; 0 is not false, and "1" is not 1."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Pair(_Body):
    """A text, or two texts for a model of pairs."""

    text: str
    text_pair: str | None = None


class Question(_Body):
    """A question and the passage that may answer it."""

    question: str
    context: str


class Comparison(_Body):
    """A text and those that it is compared with."""

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
    """What the routes have in common."""

    model: Model = None
    inputs: Any

    def options(self) -> dict[str, Any]:
        """The options that were given, as the pipeline calls them."""
        return self.model_dump(exclude_unset=True, exclude={"model", "inputs"})


class ClassifyRequest(Options):
    """Classes of texts, or of pairs of texts."""

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
    """Entities in texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "Tim Cook lives in Cupertino."}]})
    inputs: OneOrMany[str]
    aggregation_strategy: Literal["none", "simple", "first", "average", "max"] = "first"
    ignore_labels: Annotated[list[Word], Field(max_length=MOST_WORDS)] | None = None
    stride: Stride | None = None

    def options(self) -> dict[str, Any]:
        """The options of the pipeline, which has another default of `aggregation_strategy`."""
        return Options.options(self) | {"aggregation_strategy": self.aggregation_strategy}


class AnswerRequest(Options):
    """Answers to questions out of passages."""

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
    """Classes that are named in the request."""

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
    """Tokens for the masks of texts."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "The cat [MASK] on the mat.", "top_k": 5}]})
    inputs: OneOrMany[str]
    top_k: TopK | None = None
    targets: Annotated[list[Word], Field(min_length=1, max_length=MOST_WORDS)] | None = None
    truncation: Truncation | None = None
    max_length: MaxLength | None = None
    stride: Stride | None = None


class EmbedRequest(Options):
    """Vectors of texts."""

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
    """Cosines between a text and others."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"inputs": {"source_sentence": "a cat", "sentences": ["a kitten", "a train"]}}]}
    )
    inputs: OneOrMany[Comparison]
    pooling: Literal["mean", "cls"] | None = None


class TokenizeRequest(_Body):
    """Tokens of a text or of a pair."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"text": "a charming journey"}]})
    model: Model = None
    text: str
    text_pair: str | None = None
    attentions: bool = False


class ReloadRequest(_Body):
    """Nothing: the model is read again from where it was."""


# Answers. `output` has the keys that pipeline() gives.


class Label(BaseModel):
    """A class and its probability."""

    label: str | None
    score: float | None
    error: str | None = None


class Entity(BaseModel):
    """An entity; for aggregation_strategy "none", a token with `entity` and `index` in place of `entity_group`."""

    entity_group: str | None = None
    entity: str | None = None
    index: int | None = None
    score: float
    word: str
    start: int
    end: int


class Span(BaseModel):
    """An answer: `context[start:end]`."""

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
    """A token for a mask, and the text with it."""

    score: float
    token: int
    token_str: str
    sequence: str


class Failure(BaseModel):
    """In place of guesses."""

    error: str


Output = TypeVar("Output")


class Result(BaseModel, Generic[Output]):
    """The output for one input: in how many windows it was read, how many of its tokens were not read.

    `error` says why there is no answer.
    """

    output: Output
    windows: int
    truncated: int
    error: str | None


class Answer(BaseModel, Generic[Output]):
    """One result for each input, in order. `seconds` is the time from the request to the answer."""

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
    """A token: `start` and `end` in the text number `text` (0, 1), which is null for a special token."""

    token: str
    id: int
    type_id: int
    start: int
    end: int
    text: int | None


class Tokens(BaseModel):
    """The tokens of a text, as one window; `windows` is how many the model reads it in.

    `attentions`, if asked for, are probabilities by layer, head, token and token attended to, rounded to 3 digits.
    """

    model: str
    tokens: list[Token]
    windows: int
    max_length: int
    attentions: list[list[list[list[float]]]] | None


class Attentions(BaseModel):
    """The attention probabilities that a model gives: for texts of at most `max_tokens` tokens."""

    layers: int
    heads: int
    max_tokens: int


class Card(BaseModel):
    """A model of the server. `version` is a hash of its files; `attentions` is null if it was exported without."""

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
    """Whether the server runs, or takes requests."""

    status: str


class Problem(BaseModel):
    """Why a request was not answered."""

    error: str
    request_id: str


# OpenAI's /v1/embeddings


class EmbeddingsRequest(_Body):
    """OpenAI's request; `user` has no effect, and `dimensions` must be those of the model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "minilm-l6", "input": ["a cat", "a kitten"]}]})
    model: Annotated[str, Field(max_length=64)]
    input: OneOrMany[str]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


class Embedding(BaseModel):
    """One vector; in base64, its numbers are float32, little-endian."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Tokens that were computed."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class OpenAIError(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIProblem(BaseModel):
    """OpenAI's form of an error."""

    error: OpenAIError


# Hugging Face's /models/NAME


class InferenceRequest(BaseModel):
    """`inputs` and `parameters` as for the pipeline of the model; other keys are parameters too.

    `options`, of older clients, have no effect.
    """

    model_config = ConfigDict(
        extra="allow", json_schema_extra={"examples": [{"inputs": "a text", "parameters": {"top_k": 2}}]}
    )
    inputs: Any
    parameters: dict[str, Any] | None = None
    options: dict[str, Any] | None = None
