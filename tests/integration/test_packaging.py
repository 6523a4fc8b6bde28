"""What is installed works as what is cloned: the wheel has every file that the code opens, and its commands run."""

import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import ROOT, environment

BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    """The wheel of a copy of the project, unpacked where a user would install it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "pipeline", source / "pipeline", ignore=shutil.ignore_patterns("__pycache__"))
    done = subprocess.run([sys.executable, "-c", BUILD, str(folder)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder / "site-packages")
    return folder / "site-packages"


def test_the_wheel_has_every_file_of_the_package(unpacked):
    def files(root):
        found = (path for path in (root / "pipeline").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        return sorted(str(path.relative_to(root)) for path in found)

    assert files(unpacked) == files(ROOT)
    assert {"pipeline/analysis/pages/report.html", "pipeline/serving/page.html"} <= set(files(unpacked))


def test_what_is_installed_finds_its_pages(unpacked, tmp_path):
    code = """
import sys
from pathlib import Path
from pipeline.analysis import report
from pipeline.comparing import comparison
from pipeline.comparing.groups import Run
from pipeline.recording import code_digest
from pipeline.serving import app
runs = [Run(str(s), f"{v} seed={s}", "FINISHED", 1, {"dropout": v, "seed": str(s)}, {"variant": v},
                       {"val_accuracy": 0.9 + s / 1000}) for v in ("a", "b") for s in (1, 2)]
report.write_files(comparison.compare(runs), Path("found"))
assert len(code_digest.code_digest()) == 12
assert app.PAGE.read_text().startswith("<!doctype html>"), app.PAGE
print(Path(report.__file__).parents[1])
"""
    variables = environment(PYTHONPATH=str(unpacked), PYTHONSAFEPATH="1")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(unpacked / "pipeline")
    assert "<html" in (tmp_path / "found/report.html").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["found"]
