import re
import sys

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_table_of_knobs_is_that_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import knobs

    assert knobs.table() in README
    sys.modules.pop("knobs")


def test_the_file_tree_names_every_module():
    tree = README.split("## The rooms")[1].split("## Make it yours")[0]
    for path in (ROOT / "pipeline").rglob("*.py"):
        if path.stem != "__init__":
            assert re.search(rf"\b{path.name}\b", tree), path.name


def test_every_picture_and_file_that_it_names_exists():
    for name in re.findall(r"\]\(([^)#h][^)]*)\)", README):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"`make ([a-z]+)", README):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
