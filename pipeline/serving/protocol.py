"""What a request says and what its answer says: MLflow's JSON, and image files."""

import base64
from typing import cast

import numpy as np
import orjson
from anyio import to_thread
from numpy.typing import NDArray
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from pipeline.registry.predictor import SEND
from pipeline.registry.versions import Loaded
from pipeline.serving.preprocessing import ImageError, as_png, read_image
from pipeline.serving.refusals import INVALID, RefusalError
from pipeline.serving.schemas import IMAGE_TYPES, INVOCATION, MAX_FILES, Digit, Digits

SEND_JSON = f'send {{"inputs": [image, ...]}} as application/json; {SEND}'
SEND_FILES = "send a PNG or JPEG as the body (Content-Type: image/png or image/jpeg), or several as multipart/form-data"


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
    keys = [key for key in ("inputs", "instances") if key in content] if isinstance(content, dict) else []
    if len(keys) == 2:
        raise RefusalError(400, "BAD_REQUEST", f"found both inputs and instances; {SEND_JSON}")
    if not keys or content[keys[0]] is None:
        found = f"the keys {sorted(content)[:5]}" if isinstance(content, dict) else type(content).__name__
        raise RefusalError(400, "BAD_REQUEST", f"found {str(found)[:120]}; {SEND_JSON}")
    (images,) = INVOCATION.validate_python(content).values()
    return cast("NDArray[np.float32]", images)


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
    except (HTTPException, MultiPartException, MultipartParseError, ValueError, KeyError) as error:
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


def digits_of(
    names: list[str], seen: NDArray[np.float32], probabilities: NDArray[np.float32], loaded: Loaded, show: bool
) -> Digits:
    """For each file its digit, how sure, all ten probabilities, and if asked for what the model saw, as a PNG."""
    answers = [
        Digit(
            name=name,
            digit=int(row.argmax()),
            confidence=float(row.max()),
            probabilities=row.tolist(),
            seen="data:image/png;base64," + base64.b64encode(as_png(pixels)).decode() if show else "",
        )
        for name, pixels, row in zip(names, seen, probabilities, strict=True)
    ]
    return Digits(predictions=answers, model=loaded.name, version=loaded.version)
