"""Image files, alone or in a form: each is read as it is, named and kept in its place; all else refused in words."""

import asyncio
import io

import httpx
import numpy as np
import pytest
from PIL import Image
from starlette.requests import Request

from pipeline.data_spec import MNIST
from pipeline.serving import protocol
from pipeline.serving.refusals import RefusalError
from pipeline.serving.schemas import Contract
from tests.asgi import parts_of, scope_of

SEND_FILES = "send a PNG or JPEG as the body (Content-Type: image/png or image/jpeg), or several as multipart/form-data"
INVALID = "INVALID_PARAMETER_VALUE"
CONTRACT = Contract(MNIST)


def digit(number):
    """A 28x28 on black, which is taken as it is; no two are alike."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[8:20, 10 : 12 + number % 8] = 100 + number
    return pixels


def file_of(number, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(digit(number)).save(buffer, kind, **({"quality": 100} if kind == "JPEG" else {}))
    return buffer.getvalue()


def request_of(kind, body, **scope):
    messages = iter(parts_of(body))

    async def receive():
        return next(messages)

    headers = [] if kind is None else [("Content-Type", kind)]
    return Request(scope_of("POST", "/predict", headers, **scope), receive)


def form(files, data=None):
    """Content type and body of a form, as a client makes them."""
    made = httpx.Request("POST", "http://x", files=files, data=data)
    return made.headers["content-type"], made.read()


def read(kind, body, **scope):
    return asyncio.run(protocol.examples_of(request_of(kind, body, **scope), CONTRACT))


def refused(kind, body, **scope):
    """Status, code and words of the refusal."""
    with pytest.raises(RefusalError) as told:
        read(kind, body, **scope)
    return told.value.status, told.value.code, told.value.message


KINDS = ["image/png", "image/jpeg", "image/jpg", "application/octet-stream", "IMAGE/PNG", " image/png ; q=1"]


@pytest.mark.parametrize("kind", KINDS)
def test_one_file_is_taken_as_the_body_under_any_of_its_types(kind):
    names, digits = read(kind, file_of(3))
    assert names == ["image"]
    assert (digits.dtype, digits.shape) == (np.float32, (1, 28, 28))
    assert np.array_equal(digits[0], digit(3))


def test_a_jpeg_is_read_as_well():
    _, (found,) = read("image/jpeg", file_of(3, "JPEG"))
    assert np.abs(found - digit(3)).max() < 12


@pytest.mark.parametrize("kind", ["text/plain", "image/gif", "application/json", "image/png2", "x" * 100])
def test_another_type_is_refused_by_its_name(kind):
    words = f"found content type {kind[:80]!r}; {SEND_FILES}"
    assert refused(kind, file_of(1)) == (415, "BAD_REQUEST", words)


def test_no_type_is_refused():
    assert refused(None, file_of(1)) == (415, "BAD_REQUEST", f"found content type ''; {SEND_FILES}")


def test_files_of_a_form_keep_their_names_their_order_and_their_pixels():
    numbers = [5, 1, 4, 1, 3]
    files = [(f"field{k % 2}", (f"n{number}.png", file_of(number))) for k, number in enumerate(numbers)]
    names, digits = read(*form(files))
    assert names == ["n5.png", "n1.png", "n4.png", "n1.png", "n3.png"]
    assert np.array_equal(digits, np.stack([digit(number) for number in numbers]))


def test_a_form_is_one_however_its_type_is_spelt():
    kind, body = form([("f", ("a.png", file_of(1)))])
    assert read(kind.replace("multipart/form-data;", "Multipart/Form-Data ;"), body)[0] == ["a.png"]


def test_a_file_without_a_name_is_called_by_its_number():
    kind, body = form([("f", (name, file_of(k))) for k, name in enumerate(("first.png", "second.png", "third.png"))])
    body = body.replace(b'filename="second.png"', b'filename=""').replace(b'filename="third.png"', b'filename=""')
    names, digits = read(kind, body)
    assert names == ["first.png", "file 2", "file 3"]
    assert np.array_equal(digits, np.stack([digit(number) for number in range(3)]))


@pytest.mark.parametrize("scope", [{}, {"app": None}])
def test_64_files_are_taken_and_one_more_is_not(scope):
    files = [("f", (f"{number}.png", file_of(number))) for number in range(65)]
    names, digits = read(*form(files[:64]), **scope)
    assert names == [f"{number}.png" for number in range(64)]
    assert np.array_equal(digits, np.stack([digit(number) for number in range(64)]))
    reason = "Too many files. Maximum number of files is 64."
    words = f"the form cannot be read ({reason}); {SEND_FILES}"
    assert refused(*form(files), **scope) == (400, "BAD_REQUEST", words)


@pytest.mark.parametrize("scope", [{}, {"app": None}])
def test_a_form_that_cannot_be_read_is_refused_with_the_parsers_reason(scope):
    words = f"the form cannot be read (Missing boundary in multipart.); {SEND_FILES}"
    assert refused("multipart/form-data", b"x", **scope) == (400, "BAD_REQUEST", words)
    kind, body = form([("f", ("a.png", file_of(1)))])
    status, code, words = refused(kind, b"no boundary" + body, **scope)
    assert (status, code) == (400, "BAD_REQUEST")
    assert words.startswith("the form cannot be read (")


@pytest.mark.parametrize("scope", [{}, {"app": None}])
def test_a_parsers_reason_is_cut_short(monkeypatch, scope):
    def too_long(*arguments, **keywords):
        raise protocol.MultiPartException("x" * 200)

    monkeypatch.setattr("starlette.requests.MultiPartParser", too_long)
    words = f"the form cannot be read ({'x' * 120}); {SEND_FILES}"
    assert refused("multipart/form-data; boundary=b", b"", **scope) == (400, "BAD_REQUEST", words)


def test_a_fault_of_ours_is_not_taken_for_the_clients(monkeypatch):
    def broken(*arguments, **keywords):
        raise ZeroDivisionError

    monkeypatch.setattr("starlette.requests.MultiPartParser", broken)
    with pytest.raises(ZeroDivisionError):
        read("multipart/form-data; boundary=b", b"")


def test_a_field_that_is_no_file_is_refused_though_there_are_files():
    words = f"found a form field that is no file; {SEND_FILES}"
    assert refused(*form([("f", ("a.png", file_of(1)))], {"note": "x"})) == (400, INVALID, words)


def test_as_many_fields_as_files_are_read_before_they_are_refused():
    files = [("f", ("a.png", file_of(1)))]
    assert refused(*form(files, {str(number): "x" for number in range(64)}))[1] == INVALID
    reason = "Too many fields. Maximum number of fields is 64."
    words = f"the form cannot be read ({reason}); {SEND_FILES}"
    assert refused(*form(files, {str(number): "x" for number in range(65)})) == (400, "BAD_REQUEST", words)


def test_an_empty_form_is_refused():
    assert refused("multipart/form-data; boundary=b", b"--b--\r\n") == (400, INVALID, f"found no file; {SEND_FILES}")


def test_a_bad_file_is_refused_by_its_name_where_there_are_several_and_by_its_fault_alone():
    bad = ("bad.png", b"seven")
    fault = "this is neither PNG nor JPEG; "
    _, _, alone = refused(*form([("f", bad)]))
    assert alone.startswith(fault)
    status, code, words = refused(*form([("f", ("good.png", file_of(1))), ("f", bad)]))
    assert (status, code, words) == (400, INVALID, f"bad.png: {alone}")
    assert refused("image/png", b"seven") == (400, INVALID, alone)


@pytest.mark.parametrize("data", [None, {"note": "x"}])
def test_the_forms_files_are_closed_whether_or_not_they_are_taken(monkeypatch, data):
    closed = []

    async def close(self):
        closed.append(self.filename)

    monkeypatch.setattr("starlette.datastructures.UploadFile.close", close)
    kind, body = form([("f", ("a.png", file_of(1))), ("f", ("b.png", file_of(2)))], data)
    if data:
        refused(kind, body)
    else:
        read(kind, body)
    assert closed == ["a.png", "b.png"]


def test_requests_that_are_read_at_the_same_time_get_each_its_own_files():
    async def one(number):
        files = [("f", (f"{k}.png", file_of(k))) for k in range(number, number + 1 + number % 3)]
        return await protocol.examples_of(request_of(*form(files)), CONTRACT)

    async def all_of_them():
        return await asyncio.gather(*map(one, range(12)))

    for number, (names, digits) in enumerate(asyncio.run(all_of_them())):
        its_own = range(number, number + 1 + number % 3)
        assert names == [f"{k}.png" for k in its_own]
        assert np.array_equal(digits, np.stack([digit(k) for k in its_own]))
