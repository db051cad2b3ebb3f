"""The JSON of requests and answers, as OpenAPI describes it. Records are `types.Record.to_json`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from showtell.bundle import Bundle
from showtell.serve.errors import CODES
from showtell.types import DecodeOptions


class CaptionQuery(BaseModel):
    """Query parameters of the caption routes. Those not given are the model's own."""

    model_config = ConfigDict(extra="forbid")

    num_captions: Annotated[int | None, Field(ge=1, le=10, description="Captions of each photo, best first.")] = None
    beam_size: Annotated[
        int | None, Field(ge=1, le=10, description="Hypotheses followed at once; 1 is greedy. At least `num_captions` are.")
    ] = None
    max_length: Annotated[int | None, Field(ge=1, le=40, description="Words of a caption at most.")] = None
    length_penalty: Annotated[
        float | None, Field(ge=0, le=10, description="0 ranks by total log-probability, 1 by its mean.")
    ] = None
    no_repeat_ngram: Annotated[
        int | None, Field(ge=0, le=10, description="Never repeat so many words in a row; 0 allows it.")
    ] = None
    no_repeat_words: Annotated[bool | None, Field(description="Never say a word twice, but for those that people repeat.")] = (
        None
    )
    style: Annotated[str | None, Field(max_length=100, description="One of the model's caption styles.")] = None
    attention: Annotated[bool, Field(description="Also say where the model looked for each word of the best caption.")] = False

    def options(self, bundle: Bundle) -> DecodeOptions:
        """The bundle's search options with what was given. Raises OptionError for a style that it does not have."""
        given = self.model_dump(exclude={"attention"}, exclude_none=True)
        if "beam_size" in given:
            given["beam_size"] = max(given["beam_size"], given.get("num_captions", bundle.search.num_captions))
        return bundle.options(**given)


class ErrorObject(BaseModel):
    """What went wrong: a code for programs, a message for people."""

    code: str = Field(json_schema_extra={"enum": list(CODES)})
    message: str


class RecordCaption(BaseModel):
    """One caption; `score` is the mean log-probability per token, end token included."""

    text: str
    score: float
    cut: bool | None = Field(None, description="True where it reached `max_length` before its end; else absent.")


class RecordObject(BaseModel):
    """What became of one photo. Fields that do not apply are absent."""

    path: str = Field(description="The file name that the client gave, or photo-1, photo-2, ...")
    status: Literal["ok", "error"]
    caption: str | None = None
    score: float | None = None
    captions: list[RecordCaption] | None = Field(None, description="Best first.")
    width: int | None = Field(None, description="Of the photo, upright.")
    height: int | None = None
    model: str | None = None
    tokens: list[str] | None = Field(None, description="Words of the best caption, where attention was asked for.")
    pieces: list[str] | None = Field(None, description="What each token adds to the caption: joined, they are its text.")
    attention: list[list[list[float]]] | None = Field(
        None, description="For each token a map of 8 rows of 8, say; each sums to 1."
    )
    error: ErrorObject | None = None


class CaptionsAnswer(BaseModel):
    """Records in the order in which the photos were sent."""

    results: list[RecordObject]
    model: str


class ErrorBody(BaseModel):
    """Every error. Where several photos were sent and none could be read, `error` is the first one's and `results` has all."""

    error: ErrorObject
    results: list[RecordObject] | None = None


class Limits(BaseModel):
    """What is taken of one request."""

    max_photos: int
    max_stream_photos: int
    max_photo_bytes: int
    max_body_bytes: int
    max_stream_bytes: int
    max_pixels: int


class ModelCard(BaseModel):
    """The model that answers: config.json of its bundle, less how it was trained."""

    name: str
    licence: str | None = None
    data: str | None = None
    quantization: str | None = None
    vocabulary: int = Field(description="Words, special ones left out.")
    scores: dict[str, dict[str, float]] = Field(
        description="Metrics x100 on the dev photos of each data set; empty where nobody kept them."
    )
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    search: dict[str, Any] = Field(description="What is used where a request says nothing.")
    limits: Limits
    version: str = Field(description="Of showtell.")


class Health(BaseModel):
    """`ok`, or the reason why not."""

    status: str
