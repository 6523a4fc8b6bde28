"""The digest of the code that decides a training's numbers: other words change nothing, other code does."""

import pytest

from pipeline.config.own_code import OwnCodeError
from pipeline.recording import code_digest as digests

CODE = '''"""What it is."""

def step(w: int) -> int:
    """Go on."""
    return w + 1  # by one
'''


@pytest.fixture
def digest_of(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "PACKAGE", tmp_path)
    monkeypatch.setattr(digests, "DECIDING", ("one", "two"))
    digests._of_the_package.cache_clear()

    def of(one, two=""):
        (tmp_path / "one.py").write_text(one)
        (tmp_path / "two.py").write_text(two)
        digests._of_the_package.cache_clear()
        return digests.code_digest()

    yield of
    digests._of_the_package.cache_clear()


@pytest.mark.parametrize(
    "other",
    [
        CODE.replace("Go on.", "Take a step."),
        CODE.replace('"""What it is."""', ""),
        CODE.replace('    """Go on."""\n', ""),
        CODE.replace("  # by one", ""),
        CODE.replace("\n\n", "\n\n\n# a step\n"),
        CODE.replace("w + 1", "(w + 1)"),
    ],
)
def test_words_and_layout_leave_finished_runs_what_they_are(digest_of, other):
    assert digest_of(other) == digest_of(CODE)


@pytest.mark.parametrize(
    "other", [CODE.replace("1", "2"), CODE.replace("+", "-"), CODE.replace("step", "leap"), "", "'x' + 'y'"]
)
def test_other_code_is_told(digest_of, other):
    assert digest_of(other) != digest_of(CODE)


def test_each_module_counts_in_its_place_and_torch_with_them(digest_of, monkeypatch):
    assert len({digest_of("a = 1", "b = 2"), digest_of("b = 2", "a = 1"), digest_of("a = 1\nb = 2")}) == 3
    here = digest_of("a = 1")
    monkeypatch.setattr(digests.metadata, "version", lambda name: f"another {name}")
    assert digest_of("a = 1") != here


def test_code_of_the_users_own_is_part_of_it_with_what_it_imports_from_beside_it(digest_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text("import os\nfrom my_layers import Layer\n")
    (tmp_path / "my_layers.py").write_text("Layer = 1\n")
    package = digest_of("a = 1")
    before = digests.code_digest(["my_net:Net"])
    assert before != package
    (tmp_path / "my_layers.py").write_text("# a word\nLayer = 1\n")
    assert digests.code_digest(["my_net:Net"]) == before
    (tmp_path / "my_layers.py").write_text("Layer = 2\n")
    assert digests.code_digest(["my_net:Net"]) != before
    with pytest.raises(OwnCodeError, match=r"my_nett:Net: no module my_nett in .*; did you mean 'my_net'"):
        digests.code_digest(["my_nett:Net"])


def test_a_package_counts_with_what_its_modules_import_by_its_name(digest_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    digest_of("a = 1")
    garden = tmp_path / "my_digest_garden"
    garden.mkdir()
    (garden / "__init__.py").write_text("from my_digest_garden.nets import Net\n")
    (garden / "nets.py").write_text("from my_digest_garden.layers import K\n")
    (garden / "layers.py").write_text("K = 1\n")
    before = digests.code_digest(["my_digest_garden:Net"])
    (garden / "layers.py").write_text("K = 2\n")
    assert digests.code_digest(["my_digest_garden:Net"]) != before
