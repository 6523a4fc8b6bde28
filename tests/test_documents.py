"""What the documents say of the code is so: commands, flags, knobs, routes, names, links; and CI runs what is said."""

import ast
import contextlib
import functools
import io
import pkgutil
import re
import sys

import pytest
import yaml

from pipeline import cli
from pipeline.config import RunConfig
from pipeline.config.signatures import DATASETS, NETWORKS
from pipeline.serving.app import make_app
from pipeline.serving.metrics import Telemetry
from tests import mutants
from tests.asgi import ask, run_fast
from tests.conftest import ROOT
from tests.fake_registry import Registry, watcher_of

README = ROOT / "README.md"
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md") if path.name != "mutants.md")
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *PAGES]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE)) | set(re.findall(r"\b(bench-[a-z-]+)\b", MAKEFILE))
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))


def commands_in(text, program):
    """The rest of each line or piece of code that begins with the program, up to its comment."""
    pieces = [
        line for block in re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for line in block.splitlines()
    ]
    pieces += re.findall(
        r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL).replace("\n", " ")
    )
    for piece in pieces:
        for found in re.findall(rf"(?<![\w/.]){program}\b(.*)", piece.split("  #")[0]):
            yield found.strip()


@functools.cache
def flags_of(subcommand, *chosen):
    """The flags that the subcommand's help names, with a network or a dataset whose own it names too."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):  # argparse leaves so after the help
        assert cli.main([subcommand, *chosen, "--help"]) == 0
    return set(re.findall(r"--[\w-]+", out.getvalue()))


OWNERS = [*(["--network", name] for name in NETWORKS), *(["--dataset", name] for name in DATASETS)]


def anchors(text):
    """The names under which GitHub reaches the headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if not target.startswith("http"):
            name, _, anchor = target.partition("#")
            path = document.parent / name if name else document
            assert path.exists(), target
            assert not anchor or anchor in anchors(path.read_text()), target


@every_document
def test_make_targets_exist(document):
    text = document.read_text()
    named = {found[0] for words in commands_in(text, "make") if (found := re.match(r"[a-z-]+", words))}
    assert named <= TARGETS, named - TARGETS
    assert named or document in PAGES


@every_document
def test_subcommands_and_their_flags_exist(document):
    for words in commands_in(document.read_text(), "python -m pipeline"):
        if name := re.match(r"[a-z]*", words)[0]:
            assert name in cli.SUBCOMMANDS, words
            chosen = re.findall(r"--(?:network|dataset) \S+", words) if name == "train" else []
            known = flags_of(name, *(word for pair in chosen for word in pair.split()))
            assert set(re.findall(r"--[\w-]+", words)) <= known, words


@every_document
def test_what_mlflow_run_is_given_exists(document):
    entry_points = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
    for words in commands_in(document.read_text(), "mlflow run"):
        entry = entry_points[found[1] if (found := re.search(r"-e (\S+)", words)) else "main"]
        knobs = {*entry.get("parameters", ()), *(RunConfig().as_dict() if entry is entry_points["main"] else ())}
        assert set(re.findall(r"-P (\w+)=", words)) <= {*knobs, "config", "resume"}, words


@every_document
def test_names_of_the_code_exist(document):
    rooms = {path.stem for path in (ROOT / "pipeline").iterdir() if not path.name.startswith("_")}
    code = re.findall(r"`([a-z_]+(?:\.[A-Za-z_]+)+)`", document.read_text())
    for name in code:
        if name.split(".")[0] in rooms and not name.endswith((".json", ".yaml", ".py")):
            assert pkgutil.resolve_name(f"pipeline.{name}") is not None
    for path in re.findall(r"`((?:pipeline|tests|experiments|docs|benchmarks)/[\w/.]+\.\w+)`", document.read_text()):
        assert (ROOT / path).exists(), path


@every_document
def test_flags_that_stand_alone_exist(document):
    elsewhere = {"--env-manager", "--experiment-name", "--run-id"}  # of `mlflow run`
    known = elsewhere.union(*map(flags_of, cli.SUBCOMMANDS), *(flags_of("train", *owner) for owner in OWNERS))
    assert set(re.findall(r"`(--[\w-]+)", document.read_text())) - {"--name"} <= known


def test_the_table_of_knobs_is_that_of_the_code(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import knobs

    page = (ROOT / "docs/knobs.md").read_text()
    assert knobs.table() in page
    assert knobs.table_of_others() in page
    sys.modules.pop("knobs")


def test_the_table_of_routes_is_that_of_the_service():
    app = make_app(watcher_of(Registry()), Telemetry())
    schema = run_fast(ask(app, path="/openapi.json", headers=[("host", "127.0.0.1")])).json
    routes = {(method.upper(), path) for path, of in schema["paths"].items() for method in of}
    page = (ROOT / "docs/http.md").read_text()
    assert set(re.findall(r"^\| `([A-Z]+) (/\S*)` \|", page, re.MULTILINE)) == routes | {
        ("GET", "/"),
        ("GET", "/openapi.json"),
    }


@every_document
def test_addresses_of_the_service_are_answered(document):
    app = make_app(watcher_of(Registry()), Telemetry())
    text = document.read_text()
    paths = set(re.findall(r"127\.0\.0\.1:500[01](/[\w./]*)", text)) | set(re.findall(r"`(/[a-z.]+)`", text))
    for path in paths - {"/"}:
        answered = run_fast(ask(app, path=path, headers=[("host", "127.0.0.1")]))
        assert answered.status in (200, 405, 503), (path, answered)


@every_document
def test_variables_of_the_environment_are_read(document):
    code = "".join(path.read_text() for path in (ROOT / "pipeline").rglob("*.py")) + MAKEFILE
    for name in re.findall(r"\b((?:MNIST|PIPELINE|MLFLOW)_[A-Z_]+)\b", document.read_text()):
        assert name in code, name


def test_the_readme_is_short_and_leads_to_every_page():
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    for page in PAGES:
        assert f"](docs/{page.name})" in text, page.name


def test_every_picture_is_shown_somewhere():
    shown = "".join(path.read_text() for path in DOCUMENTS)
    for picture in (ROOT / "docs").glob("*.png"):
        assert f"docs/{picture.name})" in shown, picture.name


def test_the_rooms_are_all_named():
    tree = README.read_text().split("## The rooms")[1].split("\n## ")[0]
    for folder in [*(ROOT / "pipeline").iterdir(), ROOT / "examples", ROOT / "experiments", ROOT / "benchmarks"]:
        if folder.is_dir() and folder.name != "__pycache__":
            assert re.search(rf"^.*\b{folder.name}/", tree, re.MULTILINE), folder.name
    assert len(tree.splitlines()) <= 25


def test_ci_runs_what_a_contributor_can_and_may_only_read():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert workflow[True] == {"push": {"branches": ["main"]}, "pull_request": None}  # YAML 1.1 reads `on` as true
    assert workflow["permissions"] == {"contents": "read"}
    (job,) = workflow["jobs"].values()
    assert job["timeout-minutes"] <= 90
    assert [step["run"] for step in job["steps"] if "run" in step] == ["bash .ci/run"]
    used = {step["uses"].split("@")[0]: step for step in job["steps"] if "uses" in step}
    assert all(re.fullmatch(r"[\w/-]+@v\d+\.\d+\.\d+", step["uses"]) for step in used.values())
    python = used["actions/setup-python"]["with"]
    assert python == {"python-version": "3.11", "cache": "pip", "cache-dependency-path": "requirements.lock"}
    script = (ROOT / ".ci/run").read_text()
    assert re.findall(r"^make (\S+)$", script, re.MULTILINE) == ["check", "test", "ray", "test-whole"]


def test_the_hooks_before_a_commit_are_the_linters_of_make_check():
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1]
    linters = [line.removeprefix("\t@$(BIN)/").removesuffix(" .") for line in recipe.splitlines()]
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    hooks = [hook["entry"].removeprefix(".venv/bin/").removesuffix(" --force-exclude") for hook in repository["hooks"]]
    assert hooks == linters


def test_dependabot_watches_packages_and_actions():
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
    assert {(each["package-ecosystem"], each["directory"]) for each in updates} == {
        ("pip", "/"),
        ("github-actions", "/"),
    }


def test_the_changelog_is_one():
    text = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert versions[0] == "Unreleased"
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert version in versions
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds


def test_each_mutant_that_may_survive_changes_a_line_that_still_stands_in_its_function():
    for module, function, change in mutants.read_accepted():
        text = (ROOT / "pipeline" / f"{module}.py").read_text()
        nodes = ast.parse(text).body
        for name in function.split("."):
            (node,) = [each for each in nodes if getattr(each, "name", "") == name]
            nodes = node.body
        body = ast.get_source_segment(text, node)
        gone = [line[2:] for line in change if line.startswith("- ") and line[2:] not in body]
        assert gone == [], (module, function)
