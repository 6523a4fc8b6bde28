"""The documented API is the one that answers: schemathesis asks a service what its description allows."""

import io

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.fake_service import service_of
from tests.small_models import FLOWERS, PHOTOS, SCANS, loaded_of


def _file(kind, side):
    pixels = np.full((side, side), 255, np.uint8)
    pixels[side // 4 : side // 2, side // 3 : side // 2] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


SIDES = st.integers(20, 200)
FILES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/jpg": "JPEG", "application/octet-stream": "PNG"}
for media_type, kind in FILES.items():
    schemathesis.openapi.media_type(media_type, SIDES.map(lambda side, kind=kind: _file(kind, side)))


@pytest.fixture(scope="module")
def api(service):
    return schemathesis.openapi.from_url(f"{service.address}/openapi.json")


OPERATIONS = ("GET /ping", "GET /ready", "GET /health", "GET /version", "GET /metrics", "GET /model")
OPERATIONS += ("POST /invocations", "POST /predict")


def ask(api, name, excluded=()):
    method, path = name.split()

    @settings(max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(api[path][method].as_strategy())
    def ask_one(case):
        form = (case.media_type or "").startswith("multipart/")  # whose files are any bytes, so rightly refused
        case.call_and_validate(excluded_checks=[positive_data_acceptance] if form else excluded)

    ask_one()


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_the_description_allows_is_answered_as_it_says(api, name):
    ask(api, name)


@pytest.mark.parametrize("name", ["GET /model", "POST /invocations", "POST /predict"])
@pytest.mark.parametrize("spec", [PHOTOS, SCANS, FLOWERS], ids=["colour", "grey", "table"])
def test_so_it_is_whatever_the_version_takes(tmp_path, spec, name):
    service = service_of(loaded_of(spec, tmp_path))

    async def app(scope, receive, send):
        if scope["type"] == "http":
            await service({**scope, "state": {}}, receive, send)

    # No schema says which numbers become infinite within a network.
    excluded = [positive_data_acceptance] if spec.kind == "table" else []
    ask(schemathesis.openapi.from_asgi("/openapi.json", app), name, excluded)
