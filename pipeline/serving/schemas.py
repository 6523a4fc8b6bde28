"""What clients send and what they get, told by the version that serves: /openapi.json describes what is enforced."""

from functools import lru_cache, partial
from itertools import chain
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    PlainValidator,
    TypeAdapter,
    create_model,
    with_config,
)
from typing_extensions import TypedDict  # pydantic takes the own one of Python 3.12 and later only

from pipeline.data_spec import DataSpec
from pipeline.registry.predictor import Expected, check_inputs
from pipeline.serving.refusals import INVALID, Refusal, RefusalError

MAX_EXAMPLES, MAX_FILES = 1024, 64
MAX_NUMBERS = 4 << 20  # of all examples of a request: as many pixels as JSON holds in the 16 MiB of a body
TOO_LARGE = 2.0**128 - 2.0**103  # the least number that float32 has no place for
IMAGE_TYPES = ("image/png", "image/jpeg", "image/jpg", "application/octet-stream")
FORM_TYPES = ("application/x-www-form-urlencoded", "multipart/form-data")
REFERENCE = "#/components/schemas/{model}"

Probability = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Field(gt=-TOO_LARGE, lt=TOO_LARGE, allow_inf_nan=False)]
Pixel = Annotated[float, Field(ge=0, le=255)]


class Predictions(BaseModel):
    """For each example the probabilities of all classes, in their order."""

    predictions: list[list[Probability]]


class Prediction(BaseModel):
    """What the model makes of one example; `seen` only where it was asked for."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
    name: str
    class_: str = Field(alias="class")
    confidence: Probability
    probabilities: list[Probability]
    seen: str = Field("", description="data URL of the PNG that the model saw", exclude_if=lambda url: not url)


class Answer(BaseModel):
    """The prediction for each example, in their order; probabilities are in the order of `classes`."""

    predictions: list[Prediction]
    classes: list[str]
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


class Model(BaseModel):
    """What the version that serves takes, and its classes."""

    model: str
    version: str
    kind: Literal["image", "table"]
    shape: list[int] = Field(description="of an example as sent: height, width and 3 for colour, or features")
    classes: list[str]
    features: list[str] = Field(description="the columns of a table's row, in their order")
    drawing: str = Field(description="how a drawing becomes such an image; empty: images are no drawings")


class Contract:
    """What a version takes and gives, by its spec.

    Attributes:
        expected: one example.
        send_json, send_rows: what clients of /invocations, and of /predict of a table, are told to send.
        most, files: how many examples, and how many image files, a request may bring.
        invocation: reads MLflow's JSON.
        row, rows: read a table's row, and JSON of several; of images None.
        answer: writes what /predict answers.
        bodies, components: what it describes in /openapi.json.
    """

    def __init__(self, spec: DataSpec) -> None:
        self.spec, self.expected = spec, Expected(spec.sent_shape, spec.features, bool(spec.drawing))
        what, names = ("row" if spec.features else "image"), spec.features
        self.send_json = f'send {{"inputs": [{what}, ...]}} as application/json; {self.expected.send}'
        self.send_rows = (
            'send {"rows": [{feature: number, ...}, ...]} as application/json, or the features of one row as the '
            f"fields of a form; the features: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}"
        )
        self.most = max(1, min(MAX_EXAMPLES, MAX_NUMBERS // spec.size))
        self.files = min(MAX_FILES, self.most)
        self.invocation = _invocation(self.expected, self.most)
        self.row: TypeAdapter[Any] | None = None
        self.rows: TypeAdapter[Any] | None = None
        if spec.kind == "table":
            self.row, self.rows = _rows(spec, self.most)
        predictions, self.answer = _answers(spec)
        self.components: dict[str, Any] = {}
        for model in (predictions, self.answer):
            self.components[model.__name__] = self._schema(TypeAdapter(model), "serialization")
        self.bodies = {"/invocations": body_of({"application/json": self._schema(self.invocation)})}
        self.bodies["/predict"] = body_of(self._files() if self.rows is None else self._rows())

    def _files(self) -> dict[str, Any]:
        file: dict[str, Any] = {"type": "string", "format": "binary"}
        several = {"type": "array", "items": file, "minItems": 1, "maxItems": self.files}
        form = {"type": "object", "properties": {"file": several}, "required": ["file"], "additionalProperties": False}
        form["description"] = f"PNG or JPEG files, at most {self.files}; each may have a field name of its own as well."
        return {**dict.fromkeys(IMAGE_TYPES, file), "multipart/form-data": form}

    def _rows(self) -> dict[str, Any]:
        assert self.row is not None
        assert self.rows is not None
        return {"application/json": self._schema(self.rows), **dict.fromkeys(FORM_TYPES, self._schema(self.row))}

    def _schema(self, adapter: TypeAdapter[Any], mode: Literal["validation", "serialization"] = "validation") -> Any:
        schema = adapter.json_schema(ref_template=REFERENCE, mode=mode)
        self.components |= schema.pop("$defs", {})
        return schema


@lru_cache(maxsize=8)
def contract_of(spec: DataSpec) -> Contract:
    """The contract of the versions that have this spec."""
    return Contract(spec)


def read_examples(expected: Expected, most: int, values: Any) -> NDArray[np.float32]:
    """Examples as JSON has them, as (N, *expected.shape).

    Raises:
        RefusalError: saying what to send.
    """
    if isinstance(values, list) and len(values) > most:
        what = "rows" if expected.features else "images"
        raise RefusalError(400, INVALID, f"found {len(values)} {what}; send at most {most} at a time")
    pixels = None if expected.features else _whole_pixels(values, expected.shape)
    try:
        return check_inputs(values, expected) if pixels is None else pixels
    except ValueError as error:
        raise RefusalError(400, INVALID, str(error)[:500]) from None


def _whole_pixels(images: Any, shape: tuple[int, ...]) -> NDArray[np.float32] | None:
    """Images of whole numbers in 0..255, the usual case, read nine times as fast as NumPy reads nested lists.

    None for anything else, right or wrong: `check_inputs` reads and words it.
    """
    try:
        count, parts = len(images), images
        for length in shape[:-1]:
            if set(map(len, parts)) != {length}:
                return None
            parts = list(chain.from_iterable(parts))
        if set(map(type, parts)) != {list} or set(map(len, parts)) != {shape[-1]}:
            return None
        # Rows are long and pixels short, so of colours all numbers become bytes at once.
        content = b"".join(map(bytes, parts)) if len(shape) == 2 else bytes(list(chain.from_iterable(parts)))
        pixels = np.frombuffer(content, np.uint8).reshape(count, -1)
    except (TypeError, ValueError):
        return None
    return pixels.astype(np.float32).reshape(-1, *shape) if pixels.max(axis=1).min() > 1 else None


def _invocation(expected: Expected, most: int) -> TypeAdapter[Any]:
    """The reader of raw examples under one of MLflow's two keys."""
    kind: Any = Number if expected.features else Pixel
    for length in reversed(expected.shape):
        kind = Annotated[list[kind], Field(min_length=length, max_length=length)]
    if not expected.features:
        kind = Annotated[kind, Field(json_schema_extra={"anyOf": _not_scaled(len(expected.shape))})]
    documented = Annotated[list[kind], Field(min_length=1, max_length=most, description=expected.send)]
    examples = Annotated[
        NDArray[np.float32],
        PlainValidator(partial(read_examples, expected, most), json_schema_input_type=documented),
    ]
    either = {"oneOf": [{"required": ["inputs"]}, {"required": ["instances"]}]}
    fields = {"inputs": examples, "instances": examples}
    return TypeAdapter(_object("Invocation", fields, total=False, json_schema_extra=either))


def _not_scaled(depth: int) -> list[JsonValue]:
    """A float32 above 1 somewhere in the nested lists, or all black: an image that was not scaled to 0..1."""
    some: JsonValue = {"exclusiveMinimum": 1 + 2**-24}
    every: JsonValue = {"const": 0}
    for _ in range(depth):
        some, every = {"contains": some}, {"items": every}
    return [some, every]


def _rows(spec: DataSpec, most: int) -> tuple[TypeAdapter[Any], TypeAdapter[Any]]:
    """The readers of a row by the names of its features, and of several."""
    row = _object("Row", dict.fromkeys(spec.features, Number), extra="forbid")
    # Only the first wrong row is told; what is wrong with the thousand after it would take half a gigabyte.
    several = Annotated[list[row], FailFast(), Field(min_length=1, max_length=most)]  # type: ignore[valid-type]
    return TypeAdapter(row), TypeAdapter(_object("Rows", {"rows": several}, extra="forbid"))


def _object(name: str, fields: dict[str, Any], *, total: bool = True, **config: Any) -> Any:
    """A type of JSON's objects with these keys, of any spelling."""
    make: Any = TypedDict
    return with_config(**config)(make(name, fields, total=total))


def _answers(spec: DataSpec) -> tuple[type[Predictions], type[Answer]]:
    """The models of answers with this version's classes."""
    count = len(spec.classes)
    probabilities: Any = Annotated[list[Probability], Field(min_length=count, max_length=count)]
    names: Any = Literal.__getitem__(spec.classes)
    one = create_model(
        "Prediction", __base__=Prediction, class_=(names, Field(alias="class")), probabilities=(probabilities, ...)
    )
    many = create_model("Predictions", __base__=Predictions, predictions=(list[probabilities], ...))
    return many, create_model("Answer", __base__=Answer, predictions=(list[one], ...))  # type: ignore[valid-type]


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
    return {"required": True, "content": {kind: {"schema": each} for kind, each in schemas.items()}}


# Before a version serves nobody knows what it takes.
UNKNOWN_EXAMPLES = {"requestBody": body_of({"application/json": {"type": "object"}})}
UNKNOWN_FILES = {"requestBody": body_of({kind: {} for kind in (*IMAGE_TYPES, "application/json", *FORM_TYPES)})}
