"""What git says of the code that runs: the commit, and as a diff everything that the tree holds beyond it.

`git apply` on a clone of the commit gives the tree back, whatever the user has configured: git's plumbing is asked, in
bytes, with the options that a configuration could change; the user's index and objects are not touched.
"""

import base64
import functools
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
CARRIED = "checkout.json"
PATIENCE_S = 20
LARGEST, LARGEST_TOGETHER = 1 << 20, 10 << 20  # bytes of files that git does not know

# What of GIT_* in the environment is the user's configuration; the rest points git elsewhere or changes what it prints.
CONFIGURATION = r"GIT_CONFIG.*|GIT_CEILING_DIRECTORIES|GIT_DISCOVERY_ACROSS_FILESYSTEM|GIT_EXEC_PATH"
# `safe.directory`: git refuses checkouts of other owners because their configuration names programs; this very process
# runs the checkout's own code already.
SETTINGS = {
    "safe.directory": "*",
    "core.quotePath": "false",
    "core.fsmonitor": "false",
    "core.untrackedCache": "false",
    "core.hooksPath": os.devnull,
    "core.safecrlf": "false",
    "core.sparseCheckout": "false",
    "advice.addEmbeddedRepo": "false",
}
DIFF = (
    *("diff-index", "--cached", "-p", "--binary", "--full-index", "-U3", "--inter-hunk-context=0", f"-O{os.devnull}"),
    *("--no-color", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-relative"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--submodule=short", "--ignore-submodules=dirty"),
)
# Files that git does not know are recorded with a run: all code, and else what by no part of its path may hold a key.
SECRET = (
    r"(?s).*\.env([\W_].*)?|\.(envrc|pypirc|npmrc|yarnrc.*|pgpass|my\.cnf|htpasswd|s3cfg|boto|dockercfg|databrickscfg)"
    r"|\.(aws|ssh|gnupg|kube|docker|azure)|[._]netrc|.*kubeconfig.*|kaggle\.json"
    r"|id_(rsa|dsa|ecdsa|ed25519).*|.*_(rsa|dsa|ecdsa|ed25519)"
    r"|.*\.(pem|key|der|p8|p12|pfx|jks|keystore|ppk|kdbx|ovpn|tfvars|tfstate)(\W.*)?"
)
# The last are words that stand alone, as in `openai_key.txt`, not in `monkey.csv` or before another: `key_metrics.csv`.
SECRET_WORDS = (
    r"secret|credential|password|passwd|passphrase|token|(api|access|private)[_-]?key|service[_-]?account|firebase-adminsdk"
    r"|(?<![a-z])(keys?|creds?|pwd)(?![a-z_-])"
)
CODE = (".py", ".ipynb")
RUN_FILES = ("journal.jsonl", "lock")  # a folder with both is a run's


class GitError(Exception):
    """Git cannot or will not tell."""


@dataclass(frozen=True)
class Checkout:
    """The code's tree.

    Attributes:
        commit: the commit's hash, or `unknown: ` and why.
        diff: a binary patch against the commit (against nothing where there is no commit yet).
        tree: git's hash of the whole tree, with the changes; empty if unknown.
        left_out: what the diff does not hold, with the reason.
    """

    commit: str
    diff: bytes = b""
    tree: str = ""
    left_out: tuple[str, ...] = field(default=())

    @property
    def known(self) -> bool:
        """Whether there is a commit."""
        return not self.commit.startswith("unknown")

    def tags(self) -> dict[str, str]:
        dirty = {"git.dirty": "true" if self.diff or self.left_out else "false"}
        found = {"git.commit": self.commit, **(dirty if self.known or self.diff else {})}
        if self.tree:
            found["git.tree"] = self.tree
        if self.left_out:
            found["git.left_out"] = "; ".join(self.left_out)[:4000]
        return found | ({"mlflow.source.git.commit": self.commit} if self.known else {})


@functools.cache
def checkout(here: Path = HERE) -> Checkout:
    """The tree that this process took its code from; read once, when it is first asked for."""
    carried = here.parents[1] / CARRIED if here == HERE else None
    return _unpacked(carried) if carried and carried.is_file() else read(here)


def carry(found: Checkout, folder: Path) -> None:
    """Write what git says beside a copy of the package that goes where no repository is."""
    content = {**vars(found), "diff": base64.b64encode(found.diff).decode()}
    (folder / CARRIED).write_text(json.dumps(content))


def _unpacked(path: Path) -> Checkout:
    content = json.loads(path.read_text())
    left_out = tuple(content["left_out"])
    return Checkout(content["commit"], base64.b64decode(content["diff"]), content["tree"], left_out)


def read(here: Path) -> Checkout:
    """The tree of the repository that the folder lies in. Raises nothing: what cannot be told is said in the commit."""
    try:
        top = Path(os.fsdecode(_git(here, "rev-parse", "--show-toplevel").removesuffix(b"\n")))
    except GitError as error:
        return Checkout(f"unknown: {error}")
    if _succeeds(top, "check-ignore", "-q", str(here)):
        return Checkout("unknown: the code lies in a folder that the repository around it ignores")
    try:
        commit, base = _git(top, "rev-parse", "--verify", "-q", "HEAD").decode().strip(), "HEAD"
    except GitError:
        commit, base = "unknown: there is no commit yet", _git(top, "hash-object", "-t", "tree", os.devnull).decode()
    try:
        diff, tree, left_out = _changes(top, base.strip())
    except (GitError, OSError) as error:
        return Checkout(commit, left_out=(f"all changes ({error})",))
    return Checkout(commit, diff, tree, left_out)


def _changes(top: Path, base: str) -> tuple[bytes, str, tuple[str, ...]]:
    """The diff, the tree's hash, and what is left out: made in an index and an object store of their own."""
    ends = _line_ends(top)
    changed = _names(_git(top, *ends, "diff-index", "--name-only", "--ignore-submodules=dirty", "-z", base))
    overlooked = [name[2:] for name in _names(_git(top, "ls-files", "-v", "-z")) if name[0] == "S" or name[0].islower()]
    changed += [name for name in overlooked if os.path.lexists(top / name)]
    new, left_out = _new_files(top)
    left_out += _dirty_submodules(top, base)
    with tempfile.TemporaryDirectory(prefix="pipeline-git-", ignore_cleanup_errors=True) as scratch:
        apart = _store_apart(top, Path(scratch))
        _git(top, "read-tree", base, variables=apart)
        if names := sorted({*changed, *new}):
            listed = b"\0".join(os.fsencode(name) for name in names)
            add = ("--literal-pathspecs", "add", "-A", "-f", "--pathspec-from-file=-", "--pathspec-file-nul")
            _git(top, *ends, *add, stdin=listed, variables=apart)
        diff = _git(top, *ends, *DIFF, base, variables=apart)
        return diff, _git(top, "write-tree", variables=apart).decode().strip(), tuple(left_out)


def _line_ends(top: Path) -> tuple[str, ...]:
    """Bytes as they lie; only where the user has LF turned to CRLF and back at every checkout is that git's job."""
    try:
        turned = _git(top, "config", "--type=bool", "core.autocrlf").strip() == b"true"
    except GitError:  # not set, or `input`
        turned = False
    return ("-c", f"core.autocrlf={'true' if turned else 'false'}")


def _names(listed: bytes) -> list[str]:
    """The entries of a list that ends each with a zero; bytes that are no UTF-8 survive as `os.fsdecode` keeps them."""
    return [os.fsdecode(entry) for entry in listed.split(b"\0") if entry]


def _new_files(top: Path) -> tuple[list[str], list[str]]:
    """Files that git does not know and is not told to ignore: those to record, and the others with the reason."""
    taken, left_out, together = [], [], 0
    runs: dict[Path, bool] = {}
    for name in sorted(_names(_git(top, "ls-files", "--others", "--exclude-standard", "-z"))):
        if _is_of_a_run(top / name, runs):
            continue
        reason, size = _objection(top, name, together)
        if reason:
            left_out.append(f"{name!a} ({reason})")
        else:
            taken.append(name)
            together += size
    return taken, left_out


def _objection(top: Path, name: str, together: int) -> tuple[str, int]:
    """Why a new file is not recorded, or nothing; and its size in bytes."""
    path = top / name
    try:
        size = path.lstat().st_size
    except OSError:
        return "it cannot be read", 0
    if name.endswith("/"):
        return "a repository of its own", 0
    if not name.lower().endswith(CODE) and any(map(_may_hold_a_key, Path(name.lower()).parts)):
        return "it may hold a key", 0
    if size > LARGEST or together + size > LARGEST_TOGETHER:
        return f"{size / 1e6:.1f} MB, not known to git", 0
    if not path.is_symlink() and not os.access(path, os.R_OK):
        return "it cannot be read", 0
    return "", size


def _may_hold_a_key(part: str) -> bool:
    return bool(re.fullmatch(SECRET, part) or re.search(SECRET_WORDS, part))


def _is_of_a_run(path: Path, known: dict[Path, bool]) -> bool:
    """Whether the file lies in the folder of a run, or in a store that MLflow makes."""
    if path.name.startswith("mlflow.db") or {"mlruns", "mlartifacts"} & set(path.parts):
        return True
    folder = path.parent
    if folder not in known:
        is_run = all((folder / name).exists() for name in RUN_FILES)
        known[folder] = is_run or (folder.parent != folder and _is_of_a_run(folder, known))
    return known[folder]


def _dirty_submodules(top: Path, base: str) -> list[str]:
    """Submodules with changes of their own, which a diff cannot hold."""
    every, shown = (
        set(_names(_git(top, "diff-index", "--name-only", "-z", f"--ignore-submodules={which}", base)))
        for which in ("none", "dirty")
    )
    return [f"{name!a} (a submodule with changes of its own)" for name in sorted(every - shown)]


def _store_apart(top: Path, scratch: Path) -> dict[str, str]:
    """The environment that keeps new objects and the index out of the user's repository."""
    common = os.fsdecode(_git(top, "rev-parse", "--git-path", "objects").removesuffix(b"\n"))
    (scratch / "objects").mkdir()
    return {
        "GIT_INDEX_FILE": str(scratch / "index"),
        "GIT_OBJECT_DIRECTORY": str(scratch / "objects"),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{_escaped(str(top / common))}"',
    }


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace('"', '\\"')


def _git(where: Path, *words: str, stdin: bytes = b"", variables: Mapping[str, str] = {}) -> bytes:
    """What git prints.

    Raises:
        GitError: saying why it printed nothing.
    """
    try:
        done = subprocess.run(
            ["git", *_settings(), *words],
            cwd=where,
            input=stdin,
            capture_output=True,
            timeout=PATIENCE_S,
            env={**environment(), **variables},
        )
    except FileNotFoundError:
        raise GitError("there is no git here") from None
    except subprocess.TimeoutExpired:
        raise GitError(f"git took more than {PATIENCE_S} s") from None
    except OSError as error:
        raise GitError(f"git cannot be started ({error.strerror})") from None
    if done.returncode:
        raise GitError(_in_words(done.stderr.decode(errors="replace")))
    return done.stdout


def _succeeds(where: Path, *words: str) -> bool:
    try:
        _git(where, *words)
    except GitError:
        return False
    return True


def _settings() -> Iterable[str]:
    for name, value in SETTINGS.items():
        yield from ("-c", f"{name}={value}")


def environment() -> dict[str, str]:
    """The environment without what points git elsewhere or lets it ask questions."""
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("GIT_") or re.fullmatch(CONFIGURATION, name)
    }
    return {**kept, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}


def _in_words(errors: str) -> str:
    if "dubious ownership" in errors or "unsafe repository" in errors:
        return "git refuses a checkout of another owner (safe.directory)"
    if "not a git repository" in errors:
        return "the code lies in no git repository"
    if "work tree" in errors:
        return "the repository has no working tree"
    return " ".join(errors.split())[:200] or "git failed"
