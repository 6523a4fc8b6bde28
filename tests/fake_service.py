"""The service in this process; the fake model behind it says in its answers to which image and of which version."""

import asyncio
import io
import json
from types import SimpleNamespace

import numpy as np
from PIL import Image

from pipeline.data_spec import MNIST
from pipeline.serving.alias_watcher import AliasWatcher
from pipeline.serving.app import make_app
from pipeline.serving.metrics import Telemetry
from tests.asgi import ask

JSON = [("Content-Type", "application/json")]


class Model:
    """A version whose answer to an image names both: the class is the image's, how sure is the version's."""

    name, spec = "mnist-mlp", MNIST

    def __init__(self, version):
        self.version, self.run_id, self.batches = str(version), f"run{version}", []

    def predict(self, images):
        self.batches.append(len(images))
        if (images.max(axis=(1, 2)) == 13).any():
            raise RuntimeError("unlucky")
        return probabilities_of(images, self.version)


def probabilities_of(images, version):
    marks = images.max(axis=(1, 2)).astype(int)
    found = np.zeros((len(images), 10), np.float32)
    found[np.arange(len(images)), marks % 10] = 0.5 + int(version) / 32
    found[np.arange(len(images)), (marks + 1) % 10] = marks / 1024
    return found


def image(mark):
    """A digit on black, as the network takes it; its brightest level is the mark, 100 to 255."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[8:20, 12:15] = mark
    return pixels


def file_of(mark):
    buffer = io.BytesIO()
    Image.fromarray(image(mark)).save(buffer, "PNG")
    return buffer.getvalue()


def service_of(model=None, token="", hosts=None, trouble=None):
    """The service with its watcher in `watcher`, its log lines in `lines`, FastAPI in `framework`."""
    telemetry = Telemetry()
    watcher = AliasWatcher(None, "mnist-mlp", "champion", 1, telemetry)
    watcher.current, watcher.trouble = model, trouble
    if model is not None:
        telemetry.serving(model.name, model.version, model.spec.classes)
    service = make_app(watcher, telemetry, token, hosts)
    service.watcher, service.lines = watcher, []
    service.framework = service.app.app.app.app  # behind Admission, WholeBody and ShortCut
    telemetry.access = SimpleNamespace(write=service.lines.append)
    return service


def one(service, *arguments, **keywords):
    return asyncio.run(ask(service, *arguments, **keywords))


def pixels_of(marks, key="inputs"):
    return json.dumps({key: [image(mark).tolist() for mark in marks]}).encode()


def form_of(marks):
    parts = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="f"; filename="%d.png"\r\n\r\n%b\r\n' % (mark, file_of(mark))
        for mark in marks
    )
    return [("Content-Type", "multipart/form-data; boundary=b")], parts + b"--b--\r\n"
