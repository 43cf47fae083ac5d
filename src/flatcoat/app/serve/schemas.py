"""What requests and answers look like: the bodies of the HTTP API, as it is documented at /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MOST_INPUTS = 256  # texts, documents or ids of one request
LONGEST_ID = 512

Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID, pattern=r"^[^\x00-\x1f]+$")]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Weight = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Inputs = Text | Annotated[list[Text], Field(min_length=1, max_length=MOST_INPUTS)]


class Body(BaseModel):
    """A request's body: types as they are, and nothing in it that is not known."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


class SearchBody(Body):
    """A question, or several that are answered alike, to one retriever or to a hybrid of several."""

    query: Inputs
    retrievers: Annotated[list[Name], Field(min_length=1, max_length=16)] | None = None
    k: Count = 10
    offset: int = Field(default=0, ge=0, le=1_000_000_000)
    fuse: Literal["rank", "score"] = "rank"
    weights: Annotated[list[Weight], Field(min_length=1, max_length=16)] | None = None
    filter: dict[str, Any] | None = None
    rerank: Count | None = None
    text: bool = True


class ExplainBody(Body):
    """Why a document is found: one of the collection by its `id`, or any text as `document`."""

    query: Text
    retriever: Name | None = None
    id: Id | None = None
    document: Text | None = None

    @model_validator(mode="after")
    def _one(self) -> ExplainBody:
        if (self.id is None) == (self.document is None):
            raise ValueError("say either id or document")
        return self


class MissedBody(Body):
    """What exact search has among its best k and the index does not give."""

    query: Text
    retriever: Name | None = None
    k: Count = 10


class EmbeddingsBody(Body):
    """Texts to encode, as OpenAI's endpoint takes them."""

    input: Inputs
    model: Name | None = None
    encoding_format: Literal["float", "base64"] = "float"
    input_type: Literal["query", "document"] = "document"


class TextBody(Body):
    """A document that is only a text."""

    text: str


class RerankBody(Body):
    """Texts to score against a question, as Cohere's and Jina's endpoints take them."""

    query: Text
    documents: Annotated[list[str | TextBody], Field(min_length=1, max_length=1000)]
    top_n: Count | None = None
    return_documents: bool = False
    model: Name | None = None


class DocumentBody(Body):
    """A document to add."""

    id: Id
    title: str = ""
    text: str
    metadata: dict[str, Any] = {}


class AddBody(Body):
    """Documents to add; with `replace`, in place of those of the same id."""

    documents: Annotated[list[DocumentBody], Field(min_length=1, max_length=MOST_INPUTS)]
    replace: bool = False


class DeleteBody(Body):
    """Documents to delete."""

    ids: Annotated[list[Id], Field(min_length=1, max_length=10_000)]


class Failure(BaseModel):
    """What was wrong, and with which field."""

    message: str
    type: str
    param: str | None


class FailureAnswer(BaseModel):
    """Every answer that is not 200."""

    error: Failure


class HealthAnswer(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class ReadyAnswer(BaseModel):
    """The folder is open."""

    status: Literal["ready"]
    documents: int
    sequence: int


class RetrieverFacts(BaseModel):
    """One retriever."""

    name: str
    kind: Literal["dense", "sparse", "late", "lexical"]
    index: str
    model: str | None
    approximate: bool
    documents: int


class RetrieversAnswer(BaseModel):
    """What is served."""

    retrievers: list[RetrieverFacts]
    reranker: str | None
    collection: str
    documents: int
    sequence: int
    writable: bool
    fields: list[str]


class Found(BaseModel):
    """Where one retriever has a hit."""

    rank: int
    score: float


class HitAnswer(BaseModel):
    """One document of a ranking; without title, text and metadata where the question said so."""

    id: str
    score: float
    rank: int
    found_by: dict[str, Found]
    title: str | None = None
    text: str | None = None
    metadata: dict[str, Any] | None = None


class RankingAnswer(BaseModel):
    """One question's answer."""

    query: str
    hits: list[HitAnswer]


class SearchAnswer(BaseModel):
    """Rankings, one a question, and where the time went."""

    results: list[RankingAnswer]
    seconds: dict[str, float]
    sequence: int


class ExplainAnswer(BaseModel):
    """Why; the keys besides these three are the kind's."""

    model_config = ConfigDict(extra="allow")

    retriever: str
    kind: str
    score: float


class MissedHit(BaseModel):
    """A document the index did not give."""

    id: str
    rank: int
    score: float
    title: str


class MissedAnswer(BaseModel):
    """What the approximation lost for one question."""

    retriever: str
    k: int
    recall: float
    missed: list[MissedHit]
    seconds: dict[str, float]


class Usage(BaseModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """One text's vector, or its bytes (float32, little-endian) in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsAnswer(BaseModel):
    """One vector a text."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage


class SparseEmbedding(BaseModel):
    """One text's term weights, heaviest first."""

    index: int
    terms: list[str]
    ids: list[int]
    weights: list[float]


class SparseAnswer(BaseModel):
    """Term weights of each text."""

    object: Literal["list"]
    data: list[SparseEmbedding]
    model: str
    usage: Usage


class MultiEmbedding(BaseModel):
    """One text's vectors, one a token; in base64, each one's bytes."""

    index: int
    embedding: list[list[float]] | list[str]


class MultiAnswer(BaseModel):
    """Several vectors a text."""

    object: Literal["list"]
    data: list[MultiEmbedding]
    model: str
    usage: Usage


class Reranked(BaseModel):
    """One text's score; `index` is its place in the request."""

    index: int
    relevance_score: float
    document: TextBody | None = None


class RerankUsage(BaseModel):
    """Tokens read."""

    total_tokens: int


class RerankAnswer(BaseModel):
    """Texts by falling score."""

    results: list[Reranked]
    model: str
    usage: RerankUsage


class AddedAnswer(BaseModel):
    """How many documents are on disk now, and the journal's number of it."""

    added: int
    sequence: int


class DeletedAnswer(BaseModel):
    """How many documents were there and are not now, and the journal's number of it."""

    deleted: int
    sequence: int


class DocumentAnswer(BaseModel):
    """A document."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]
