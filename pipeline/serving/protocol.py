"""What a request says and what its answer says: MLflow's JSON, image files, a table's rows."""

import base64
from typing import Any, cast
from urllib.parse import parse_qsl

import numpy as np
import orjson
from anyio import to_thread
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from pipeline.registry.versions import Loaded
from pipeline.serving.preprocessing import ImageError, as_png, read_image
from pipeline.serving.refusals import INVALID, RefusalError
from pipeline.serving.schemas import FORM_TYPES, IMAGE_TYPES, Answer, Contract
from pipeline.values import exactly, short

SEND_FILES = "send a PNG or JPEG as the body (Content-Type: image/png or image/jpeg), or several as multipart/form-data"
MANY_FIELDS = 64  # of a form beside its files
NO_FEATURE = "which is none of the features"
Examples = NDArray[np.float32]


def examples_of_json(contract: Contract, content_type: str, body: bytes) -> Examples:
    """The examples (N, *shape) of MLflow's `{"inputs": ...}` (or `instances`).

    Raises:
        RefusalError: saying what to send.
    """
    send = contract.send_json
    content = _json_of(content_type, body, send)
    keys = [key for key in ("inputs", "instances") if key in content] if isinstance(content, dict) else []
    if len(keys) == 2:
        raise RefusalError(400, "BAD_REQUEST", f"found both inputs and instances; {send}")
    if not keys or content[keys[0]] is None:
        found = f"the keys {sorted(content)[:5]}" if isinstance(content, dict) else type(content).__name__
        raise RefusalError(400, "BAD_REQUEST", f"found {str(found)[:120]}; {send}")
    (examples,) = contract.invocation.validate_python(content).values()
    return cast("Examples", examples)


def _json_of(content_type: str, body: bytes, send: str) -> Any:
    if content_type.split(";")[0].strip().lower() not in ("application/json", ""):
        raise RefusalError(415, "BAD_REQUEST", f"found content type {content_type[:80]!r}; {send}")
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RefusalError(400, "BAD_REQUEST", f"the body is not JSON ({str(error)[:120]}); {send}") from None


def check_probabilities(probabilities: NDArray[np.float32]) -> None:
    """Make sure that there are some: numbers of a row that float32 holds may become infinite within the network.

    Raises:
        RefusalError: naming the row.
    """
    answered = np.isfinite(probabilities).all(axis=1)
    if not answered.all():
        row = int(answered.argmin()) + 1
        words = f"the model has no answer to row {row}: its numbers are too large; send such as it was trained with"
        raise RefusalError(400, INVALID, words)


def not_taken(error: Exception) -> RefusalError:
    """For values that a network has no answer to, such as the number of a category that it does not know."""
    reason = str(error).rpartition("Status Message: ")[2]
    return RefusalError(400, INVALID, f"the model takes no such values ({reason}); send such as it was trained with")


def predictions_as_json(probabilities: NDArray[np.float32]) -> bytes:
    """MLflow's answer, digit for digit: float32 written as the float64 that it is."""
    return orjson.dumps({"predictions": probabilities.astype(np.float64)}, option=orjson.OPT_SERIALIZE_NUMPY)


async def examples_of(request: Request, contract: Contract) -> tuple[list[str], Examples]:
    """Names and examples (N, *shape) of the image files or the table's rows that a request to /predict brings.

    Raises:
        RefusalError: saying what to send.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if contract.spec.kind == "table":
        rows = await _rows_of(request, kind, contract)
        return [f"row {number}" for number in range(1, len(rows) + 1)], rows
    if kind == "multipart/form-data":
        files = await _files_of_form(request, contract)
    elif kind in IMAGE_TYPES:
        files = [("image", await request.body())]
    else:
        raise RefusalError(415, "BAD_REQUEST", f"found content type {kind[:80]!r}; {SEND_FILES}")
    if not files:
        raise RefusalError(400, INVALID, f"found no file; {SEND_FILES}")
    return [name for name, _ in files], await to_thread.run_sync(_images_of, files, contract)


def _images_of(files: list[tuple[str, bytes]], contract: Contract) -> Examples:
    images = []
    for name, content in files:
        try:
            images.append(read_image(content, contract.spec))
        except ImageError as error:
            which = f"{name}: " if len(files) > 1 else ""
            raise RefusalError(400, INVALID, f"{which}{error}") from None
    return np.stack(images)


async def _form_of(request: Request, files: int, fields: int, send: str) -> Any:
    try:
        return await request.form(max_files=files, max_fields=fields)
    except (HTTPException, MultiPartException, MultipartParseError, ValueError, KeyError) as error:
        raise _unreadable(error, send) from None


def _unreadable(error: Exception, send: str) -> RefusalError:
    reason = str(getattr(error, "detail", error))[:120]
    return RefusalError(400, "BAD_REQUEST", f"the form cannot be read ({reason}); {send}")


async def _files_of_form(request: Request, contract: Contract) -> list[tuple[str, bytes]]:
    form = await _form_of(request, contract.files, MANY_FIELDS, SEND_FILES)
    files: list[tuple[str, bytes]] = []
    try:
        for _, part in form.multi_items():
            if not isinstance(part, UploadFile):
                raise RefusalError(400, INVALID, f"found a form field that is no file; {SEND_FILES}")
            files.append((part.filename or f"file {len(files) + 1}", await part.read()))
    finally:
        await form.close()
    return files


async def _rows_of(request: Request, kind: str, contract: Contract) -> Examples:
    """The rows (N, features) of JSON, or the one of a form, whose fields are text."""
    if kind not in FORM_TYPES:
        return await to_thread.run_sync(_rows_of_json, kind, await request.body(), contract)
    send, features = contract.send_rows, contract.spec.features
    items = await _fields_of(request, kind, len(features) + MANY_FIELDS, send)
    fields = {name: _number_of(text) for name, text in items}
    if len(fields) < len(items):
        raise RefusalError(400, INVALID, f"found a field more than once; {send}")
    row = _validated(contract.row, fields, send)
    return np.array([[row[name] for name in features]], np.float32)


async def _fields_of(request: Request, kind: str, most: int, send: str) -> list[tuple[str, str]]:
    """A form's names and texts in UTF-8, of which Starlette takes what is urlencoded for Latin-1."""
    if kind == "multipart/form-data":
        return list((await _form_of(request, 0, most, send)).multi_items())
    try:
        body = (await request.body()).decode("utf-8")
        return parse_qsl(body, keep_blank_values=True, errors="strict", max_num_fields=most)
    except ValueError as error:
        raise _unreadable(error, send) from None


def _rows_of_json(kind: str, body: bytes, contract: Contract) -> Examples:
    send = contract.send_rows
    content = _json_of(kind, body, send)
    if not isinstance(content, dict) or list(content) != ["rows"] or not isinstance(content["rows"], list):
        raise RefusalError(400, INVALID, f"found no list of rows; {send}")
    if not 1 <= (found := len(content["rows"])) <= contract.most:
        raise RefusalError(400, INVALID, f"found {found} rows; send 1 to {contract.most} at a time")
    _check_names(content["rows"], contract)
    rows = _validated(contract.rows, content, send)["rows"]
    return np.array([[row[name] for name in contract.spec.features] for row in rows], np.float32)


def _check_names(rows: list[Any], contract: Contract) -> None:
    """Refuse a row of more names than there are features by the first that is none, before all of them are gathered."""
    for number, row in enumerate(rows, 1):
        if isinstance(row, dict) and len(row) > len(contract.spec.features):
            features = set(contract.spec.features)
            name = next(name for name in row if name not in features)
            raise RefusalError(400, INVALID, f"row {number} has {short(name)}, {NO_FEATURE}; {contract.send_rows}")


def _number_of(text: str) -> float | str:
    try:
        return float(exactly(text, float))
    except ValueError:
        return text


def _validated(adapter: TypeAdapter[Any] | None, values: Any, send: str) -> Any:
    assert adapter is not None
    try:
        return adapter.validate_python(values, strict=True)
    except ValidationError as error:
        raise RefusalError(400, INVALID, f"{_problem_of(error)}; {send}") from None


def _problem_of(error: ValidationError) -> str:
    """The first thing that is wrong with rows, in words: `row 2 lacks the feature width`."""
    problems = error.errors(include_url=False)
    first, place = problems[0], problems[0]["loc"]
    row, place = (f"row {int(place[1]) + 1}", place[2:]) if len(place) > 1 else ("the row", place)
    found = f"found {short(repr(first['input']))}"
    if not place:
        return f"{row}: {found}, expected {{feature: number, ...}}"
    name = short(str(place[0]))
    if first["type"] == "missing":
        return f"{row} lacks the feature {name}"
    if first["type"] == "extra_forbidden":
        return f"{row} has {name}, {NO_FEATURE}"
    return f"{row}, {name}: {found}, expected a number{' of float32' if isinstance(first['input'], float) else ''}"


def answer_of(
    names: list[str],
    examples: Examples,
    probabilities: NDArray[np.float32],
    loaded: Loaded,
    contract: Contract,
    show: bool,
) -> Answer:
    """For each example its class, how sure, all probabilities, and if asked for the image that the model saw."""
    classes = contract.spec.classes
    shown = show and contract.spec.kind == "image"
    predictions: list[Any] = [
        {
            "name": name,
            "class": classes[int(row.argmax())],
            "confidence": float(row.max()),
            "probabilities": row.tolist(),
            "seen": "data:image/png;base64," + base64.b64encode(as_png(example)).decode() if shown else "",
        }
        for name, example, row in zip(names, examples, probabilities, strict=True)
    ]
    return contract.answer(predictions=predictions, classes=list(classes), model=loaded.name, version=loaded.version)
