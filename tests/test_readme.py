import re
import sys

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_table_of_knobs_is_that_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import knobs

    assert knobs.table() in README
    sys.modules.pop("knobs")


def test_the_rooms_are_all_named():
    tree = README.split("## The rooms")[1].split("## Make it yours")[0]
    for folder in (ROOT / "pipeline").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert re.search(rf"^.*\b{folder.name}/", tree, re.MULTILINE), folder.name
    assert len(tree.splitlines()) <= 25


def test_every_picture_and_file_that_it_names_exists():
    for name in re.findall(r"\]\(([^)#h][^)]*)\)", README):
        assert (ROOT / name).exists(), name
    for target in re.findall(r"`make ([a-z]+)", README):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
