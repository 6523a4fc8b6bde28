"""What a request says and what its answer says: MLflow's JSON, image files, and the OpenAPI that describes both."""

import base64
from itertools import chain
from typing import Any

import numpy as np
import orjson
from anyio import to_thread
from numpy.typing import NDArray
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from pipeline.registry.predictor import SEND, check_images
from pipeline.registry.versions import Loaded
from pipeline.serving.middleware import RefusalError
from pipeline.serving.preprocessing import ImageError, as_png, read_image

MAX_IMAGES, MAX_FILES = 1024, 64
INVALID = "INVALID_PARAMETER_VALUE"
SEND_JSON = f'send {{"inputs": [image, ...]}} as application/json; {SEND}'
SEND_FILES = "send a PNG or JPEG as the body (Content-Type: image/png or image/jpeg), or several as multipart/form-data"
IMAGE_TYPES = ("image/png", "image/jpeg", "image/jpg", "application/octet-stream")


def images_of_json(content_type: str, body: bytes) -> NDArray[np.float32]:
    """The images (N, 28, 28) of MLflow's `{"inputs": ...}` (or `instances`).

    Raises:
        RefusalError: saying what to send.
    """
    if content_type.split(";")[0].strip().lower() not in ("application/json", ""):
        raise RefusalError(415, "BAD_REQUEST", f"found content type {content_type[:80]!r}; {SEND_JSON}")
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusalError(400, "BAD_REQUEST", f"the body is not JSON ({str(error)[:120]}); {SEND_JSON}") from None
    given = content.get("inputs", content.get("instances")) if isinstance(content, dict) else None
    if isinstance(content, dict) and {"inputs", "instances"} <= content.keys():
        raise RefusalError(400, "BAD_REQUEST", f"found both inputs and instances; {SEND_JSON}")
    if given is None:
        found = f"the keys {sorted(content)[:5]}" if isinstance(content, dict) else type(content).__name__
        raise RefusalError(400, "BAD_REQUEST", f"found {str(found)[:120]}; {SEND_JSON}")
    if isinstance(given, list) and len(given) > MAX_IMAGES:
        raise RefusalError(400, INVALID, f"found {len(given)} images; send at most {MAX_IMAGES} at a time")
    pixels = _whole_pixels(given)
    try:
        return check_images(given) if pixels is None else pixels
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


def predictions_as_json(probabilities: NDArray[np.float32]) -> bytes:
    """MLflow's answer, digit for digit: float32 written as the float64 that it is."""
    return orjson.dumps({"predictions": probabilities.astype(np.float64)}, option=orjson.OPT_SERIALIZE_NUMPY)


async def images_of_files(request: Request) -> tuple[list[str], NDArray[np.float32]]:
    """Names and digits (N, 28, 28) of the image files that the request brings.

    Raises:
        RefusalError: saying what to send.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == "multipart/form-data":
        files = await _files_of_form(request)
    elif kind in IMAGE_TYPES:
        files = [("image", await request.body())]
    else:
        raise RefusalError(415, "BAD_REQUEST", f"found content type {kind[:80]!r}; {SEND_FILES}")
    if not files:
        raise RefusalError(400, INVALID, f"found no file; {SEND_FILES}")
    return [name for name, _ in files], await to_thread.run_sync(_digits_of, files)


def _digits_of(files: list[tuple[str, bytes]]) -> NDArray[np.float32]:
    digits = []
    for name, content in files:
        try:
            digits.append(read_image(content))
        except ImageError as error:
            which = f"{name}: " if len(files) > 1 else ""
            raise RefusalError(400, INVALID, f"{which}{error}") from None
    return np.stack(digits)


async def _files_of_form(request: Request) -> list[tuple[str, bytes]]:
    try:
        form = await request.form(max_files=MAX_FILES, max_fields=MAX_FILES)
    except (MultiPartException, MultipartParseError, ValueError, KeyError) as error:
        raise RefusalError(400, "BAD_REQUEST", f"the form cannot be read ({str(error)[:120]}); {SEND_FILES}") from None
    except Exception as error:
        if type(error).__name__ != "HTTPException":
            raise
        reason = str(getattr(error, "detail", error))[:120]
        raise RefusalError(400, "BAD_REQUEST", f"the form cannot be read ({reason}); {SEND_FILES}") from None
    files: list[tuple[str, bytes]] = []
    try:
        for _, part in form.multi_items():
            if not isinstance(part, UploadFile):
                raise RefusalError(400, INVALID, f"found a form field that is no file; {SEND_FILES}")
            files.append((part.filename or f"file {len(files) + 1}", await part.read()))
    finally:
        await form.close()
    return files


def digits_as_json(
    names: list[str], seen: NDArray[np.float32], probabilities: NDArray[np.float32], loaded: Loaded, show: bool
) -> bytes:
    """For each file its digit, how sure, all ten probabilities, and if asked for what the model saw, as a PNG."""
    answers = [
        {
            "name": name,
            "digit": int(row.argmax()),
            "confidence": float(row.max()),
            "probabilities": row.astype(np.float64).tolist(),
            **({"seen": "data:image/png;base64," + base64.b64encode(as_png(pixels)).decode()} if show else {}),
        }
        for name, pixels, row in zip(names, seen, probabilities, strict=True)
    ]
    return orjson.dumps({"predictions": answers, "model": loaded.name, "version": loaded.version})


_ERROR = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error_code", "message"],
                "properties": {"error_code": {"type": "string"}, "message": {"type": "string"}},
            }
        }
    }
}
_PROBABILITIES = {
    "type": "array",
    "items": {"type": "number", "minimum": 0, "maximum": 1},
    "minItems": 10,
    "maxItems": 10,
}
_ROW = {"type": "array", "minItems": 28, "maxItems": 28}
_PIXEL = {"type": "number", "minimum": 0, "maximum": 255}
_IMAGE = {
    **_ROW,
    "items": {**_ROW, "items": _PIXEL},
    # all black, or not scaled to 0..1: a float32 above 1
    "anyOf": [{"contains": {"contains": {"exclusiveMinimum": 1 + 2**-24}}}, {"items": {"items": {"const": 0}}}],
}
_IMAGES = {"type": "array", "minItems": 1, "maxItems": MAX_IMAGES, "items": _IMAGE, "description": SEND}
_FILE = {"schema": {"type": "string", "format": "binary"}}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The refusals of a route, for OpenAPI."""
    words = {
        400: "what was sent is not what the model takes",
        401: "no or a wrong token",
        403: "the service is not known by the name in Host",
        408: "the body came too slowly",
    }
    words |= {413: "the body is too large", 415: "another content type", 503: "no model is loaded yet"}
    return {status: {"description": words[status], **_ERROR} for status in statuses}


def described(content: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    """A route's request body and answer, for OpenAPI."""
    return {
        "requestBody": {"required": True, "content": content},
        "responses": {"200": {"description": "the predictions", "content": {"application/json": {"schema": answer}}}},
    }


INVOCATIONS = described(
    {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"inputs": _IMAGES, "instances": _IMAGES},
                "oneOf": [{"required": ["inputs"]}, {"required": ["instances"]}],
            }
        }
    },
    {"type": "object", "properties": {"predictions": {"type": "array", "items": _PROBABILITIES}}},
)
PREDICT = described(
    {
        **dict.fromkeys(IMAGE_TYPES, _FILE),
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {"file": {"type": "array", "minItems": 1, "items": _FILE["schema"]}},
                "additionalProperties": False,
                "description": f"PNG or JPEG files, at most {MAX_FILES}; each may have a field name of its own as well",
            }
        },
    },
    {
        "type": "object",
        "properties": {
            "model": {"type": "string"},
            "version": {"type": "string"},
            "predictions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "name": {"type": "string"},
                        "digit": {"type": "integer", "minimum": 0, "maximum": 9},
                        "confidence": {"type": "number"},
                        "probabilities": _PROBABILITIES,
                        "seen": {"type": "string", "description": "data URL of the 28x28 PNG that the model saw"},
                    },
                },
            },
        },
    },
)
