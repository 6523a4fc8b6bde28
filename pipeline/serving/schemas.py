"""What clients send and what they get: what /openapi.json describes is what is read and written here."""

from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, PlainValidator, TypeAdapter, with_config
from typing_extensions import TypedDict  # pydantic takes the own one of Python 3.12 and later only

from pipeline.registry.predictor import SEND, check_images
from pipeline.serving.refusals import INVALID, Refusal, RefusalError

MAX_IMAGES, MAX_FILES = 1024, 64
IMAGE_TYPES = ("image/png", "image/jpeg", "image/jpg", "application/octet-stream")


def read_pixels(images: Any) -> NDArray[np.float32]:
    """Images as JSON has them, as (N, 28, 28) in 0..255.

    Raises:
        RefusalError: saying what to send.
    """
    if isinstance(images, list) and len(images) > MAX_IMAGES:
        raise RefusalError(400, INVALID, f"found {len(images)} images; send at most {MAX_IMAGES} at a time")
    pixels = _whole_pixels(images)
    try:
        return check_images(images) if pixels is None else pixels
    except ValueError as error:
        raise RefusalError(400, INVALID, str(error)[:500]) from None


def _whole_pixels(images: Any) -> NDArray[np.float32] | None:
    """Images of whole numbers in 0..255, the usual case, read nine times as fast as NumPy reads nested lists.

    None for anything else, right or wrong: `check_images` reads and words it.
    """
    try:
        rows = list(chain.from_iterable(images))
        if set(map(len, images)) != {28} or set(map(type, rows)) != {list} or set(map(len, rows)) != {28}:
            return None
        pixels = np.frombuffer(b"".join(map(bytes, rows)), np.uint8).reshape(len(images), 28 * 28)
    except (TypeError, ValueError):
        return None
    return pixels.astype(np.float32).reshape(-1, 28, 28) if pixels.max(axis=1).min() > 1 else None


Row = Annotated[list[Annotated[float, Field(ge=0, le=255)]], Field(min_length=28, max_length=28)]
# all black, or not scaled to 0..1: a float32 above 1
NOT_SCALED = [{"contains": {"contains": {"exclusiveMinimum": 1 + 2**-24}}}, {"items": {"items": {"const": 0}}}]
Image = Annotated[list[Row], Field(min_length=28, max_length=28, json_schema_extra={"anyOf": NOT_SCALED})]
Images = Annotated[list[Image], Field(min_length=1, max_length=MAX_IMAGES, description=SEND)]
Pixels = Annotated[NDArray[np.float32], PlainValidator(read_pixels, json_schema_input_type=Images)]


@with_config(json_schema_extra={"oneOf": [{"required": ["inputs"]}, {"required": ["instances"]}]})
class Invocation(TypedDict, total=False):
    """Raw pixels under one of MLflow's two keys."""

    inputs: Pixels
    instances: Pixels


INVOCATION = TypeAdapter(Invocation)
Probability = Annotated[float, Field(ge=0, le=1)]
Probabilities = Annotated[list[Probability], Field(min_length=10, max_length=10)]


class Predictions(BaseModel):
    """Ten probabilities for each image."""

    predictions: list[Probabilities]


class Digit(BaseModel):
    """What an image file shows; `seen` only where it was asked for."""

    name: str
    digit: Annotated[int, Field(ge=0, le=9)]
    confidence: Probability
    probabilities: Probabilities
    seen: str = Field("", description="data URL of the 28x28 PNG that the model saw", exclude_if=lambda url: not url)


class Digits(BaseModel):
    """The answer for each file, in their order."""

    predictions: list[Digit]
    model: str
    version: str


class Ready(BaseModel):
    """The version that serves."""

    model: str
    version: str


class Health(BaseModel):
    """The version that serves, and what is in the way of following the alias."""

    status: Literal["following", "not following"]
    model: str
    alias: str
    version: str
    run_id: str
    trouble: str | None


def refusals(*statuses: int | str) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for OpenAPI."""
    words: dict[int | str, str] = {
        "4XX": "any other request that cannot be answered",
        400: "what was sent is not what the model takes",
        401: "no or a wrong token",
        403: "the service is not known by the name in Host",
        408: "the body came too slowly",
        413: "the body is too large",
        415: "another content type",
        503: "no model is loaded yet",
    }
    return {status: {"description": words[status], "model": Refusal} for status in statuses}


def body_of(schemas: dict[str, Any]) -> dict[str, Any]:
    """A route's body, for OpenAPI: media type -> schema."""
    return {"requestBody": {"required": True, "content": {kind: {"schema": each} for kind, each in schemas.items()}}}


class Files(BaseModel, extra="forbid"):
    """PNG or JPEG files, at most 64; each may have a field name of its own as well."""

    file: Annotated[list[bytes], Field(min_length=1)]


FILE = {"type": "string", "format": "binary"}
PIXELS_SENT = body_of({"application/json": INVOCATION.json_schema()})
FILES_SENT = body_of({**dict.fromkeys(IMAGE_TYPES, FILE), "multipart/form-data": Files.model_json_schema()})
