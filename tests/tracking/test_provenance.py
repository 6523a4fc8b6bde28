import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.fast_cpu import process
from pipeline.terminal import account
from pipeline.tracking import checkout, provenance
from tests.conftest import ROOT, environment
from tests.tracking.idle_uploader import IdleUploader

SETTINGS = {
    "color.ui": "always",
    "color.diff": "always",
    "core.quotePath": "true",
    "core.pager": "false",
    "diff.external": "false",
    "diff.noprefix": "true",
    "diff.mnemonicPrefix": "true",
    "diff.orderFile": "nowhere",
    "diff.context": "0",
    "diff.interHunkContext": "9",
    "diff.renames": "copies",
    "diff.relative": "true",
    "diff.submodule": "log",
    "diff.ignoreSubmodules": "all",
    "diff.suppressBlankEmpty": "true",
    "diff.shout.textconv": "tr a-z A-Z <",
    "diff.shout.command": "false",
    "core.fsmonitor": "false-monitor",
    "core.hooksPath": "hooks",
    "status.showUntrackedFiles": "no",
    "status.relativePaths": "true",
    "core.safecrlf": "true",
}


def git(folder, *words, **variables):
    variables = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", **variables}
    identity = ("-c", "user.name=A", "-c", "user.email=a@b", "-c", "protocol.file.allow=always")
    done = subprocess.run(
        ["git", *identity, *words], cwd=folder, capture_output=True, env={**checkout.environment(), **variables}
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode(errors="surrogateescape").strip()


@pytest.fixture(autouse=True)
def no_configuration(monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def repository(tmp_path):
    """A project with one commit."""
    folder = tmp_path / "project"
    (folder / "pipeline").mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    for name, content in {
        "pipeline/a.py": b"".join(b"line %d\n" % number for number in range(30)),
        "pipeline/gone.py": b"gone\n",
        "pipeline/moved.py": b"moved\n" * 20,
        "pipeline/tool.sh": b"#!/bin/sh\n",
        "latin1.txt": "gr\xfc\xdfe\n".encode("latin-1"),
        "picture.png": bytes(range(256)) * 9,
        "no_newline": b"end",
        ".gitignore": b"*.ignored\n",
        ".gitattributes": b"*.py diff=shout\n",
    }.items():
        (folder / name).write_bytes(content)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def change(folder):
    """Every kind of change that a tree can have."""
    path = folder / "pipeline/a.py"
    path.write_bytes(path.read_bytes().replace(b"line 3\n", b"line three\n\n").replace(b"line 20\n", b"\tx \r\n"))
    (folder / "pipeline/gone.py").unlink()
    (folder / "pipeline/moved.py").rename(folder / "pipeline/renamed.py")
    (folder / "pipeline/tool.sh").chmod(0o755)
    (folder / "latin1.txt").write_bytes("gr\xfc\xdfe und k\xfcsse\n".encode("latin-1"))
    (folder / "picture.png").write_bytes(bytes(range(256))[::-1] * 9)
    (folder / "no_newline").write_bytes(b"end of it")
    (folder / "pipeline/new_module.py").write_bytes(b"new = 1\n")
    (folder / "new folder").mkdir()
    for number, name in enumerate(
        ('a "quoted" name', "two\nlines", "sch\xf6n.py", " spaces ", "-dash", ":(top)x", "t\tab")
    ):
        (folder / "new folder" / name).write_bytes(b"%d\r\n" % number)
    Path(os.fsdecode(os.fsencode(folder) + b"/latin\xfc.py")).write_bytes(b"name = 'Latin-1'\n")
    (folder / "empty.py").write_bytes(b"")
    (folder / "a_link").symlink_to("pipeline/a.py")
    (folder / "staged.py").write_bytes(b"staged\n")
    git(folder, "add", "staged.py")
    (folder / "staged.py").write_bytes(b"and changed\n")
    (folder / "not.ignored").write_bytes(b"x")


def tree_of(folder):
    """Every file below the folder: its mode, and its content or where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink() or path.is_file():
            content = str(path.readlink()) if path.is_symlink() else path.read_bytes()
            found[name] = (bool(path.lstat().st_mode & 0o100), content)
    return {name: what for name, what in found.items() if not name.startswith(".git/") and name != ".git"}


def restored(found, source, folder, **configured):
    """The tree that a clone of the commit and `git apply` give."""
    words = [word for name, value in configured.items() for word in ("-c", f"{name.replace('_', '.')}={value}")]
    git(source, *words, "clone", "-q", "--no-local", ".", str(folder))
    git(folder, "checkout", "-q", found.commit)
    if found.diff:
        (folder.parent / "uncommitted.diff").write_bytes(found.diff)
        git(folder, *words, "apply", "--binary", "--whitespace=nowarn", str(folder.parent / "uncommitted.diff"))
    return tree_of(folder)


@pytest.mark.parametrize("configured", [{}, SETTINGS, {"core.autocrlf": "input"}, {"core.autocrlf": "false"}])
def test_commit_and_diff_give_back_the_tree_whatever_is_configured(repository, tmp_path, configured):
    change(repository)
    for name, value in configured.items():
        git(repository, "config", name, value)
    index = (repository / ".git/index").read_bytes()
    objects = sorted((repository / ".git/objects").rglob("*"))
    found = checkout.read(repository / "pipeline")
    expected = tree_of(repository)
    del expected["not.ignored"]
    assert found.left_out == ()
    assert restored(found, repository, tmp_path / "clone") == expected
    assert (repository / ".git/index").read_bytes() == index
    assert sorted((repository / ".git/objects").rglob("*")) == objects
    git(tmp_path / "clone", "add", "-A")
    assert git(tmp_path / "clone", "write-tree") == found.tree == found.tags()["git.tree"]
    assert found.tags()["git.dirty"] == "true"


def test_where_git_turns_line_ends_it_does_so_both_ways(repository, tmp_path):
    git(repository, "config", "core.autocrlf", "true")
    shutil.rmtree(repository / "pipeline")
    git(repository, "checkout", "-q", ".")
    path = repository / "pipeline/a.py"
    assert path.read_bytes().startswith(b"line 0\r\n")
    assert checkout.read(repository).tags()["git.dirty"] == "false"
    path.write_bytes(path.read_bytes().replace(b"line 3\r\n", b"line three\r\n"))
    found = checkout.read(repository)
    assert found.diff.count(b"\n+") == 2  # the file's name and the line
    assert (
        restored(found, repository, tmp_path / "clone", core_autocrlf="true")["pipeline/a.py"][1] == path.read_bytes()
    )


@pytest.mark.parametrize(
    "kind",
    [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_OBJECT_DIRECTORY",
        "GIT_EXTERNAL_DIFF",
        "GIT_DIFF_OPTS",
        "GIT_NAMESPACE",
        "GIT_COMMON_DIR",
    ],
)
def test_the_environment_does_not_point_git_elsewhere(repository, tmp_path, monkeypatch, kind):
    change(repository)
    here = checkout.read(repository)
    monkeypatch.setenv(kind, str(tmp_path / "elsewhere"))
    assert checkout.read(repository) == here


def test_a_clean_tree_has_no_diff_and_a_touched_file_is_no_change(repository):
    (repository / "pipeline/a.py").touch()
    found = checkout.read(repository)
    commit = git(repository, "rev-parse", "HEAD")
    assert found == checkout.Checkout(commit, b"", git(repository, "rev-parse", "HEAD^{tree}"))
    assert found.tags() == {
        "git.commit": commit,
        "git.dirty": "false",
        "git.tree": found.tree,
        "mlflow.source.git.commit": commit,
    }


def test_changes_that_git_was_told_to_overlook_are_in_the_diff(repository, tmp_path):
    git(repository, "update-index", "--assume-unchanged", "pipeline/a.py")
    git(repository, "update-index", "--skip-worktree", "latin1.txt", "no_newline")
    (repository / "pipeline/a.py").write_bytes(b"hidden\n")
    (repository / "latin1.txt").write_bytes(b"hidden\n")
    (repository / "no_newline").unlink()  # as a sparse checkout leaves it: not there, and meant to be as committed
    restored_tree = restored(checkout.read(repository), repository, tmp_path / "clone")
    assert restored_tree["pipeline/a.py"][1] == restored_tree["latin1.txt"][1] == b"hidden\n"
    assert restored_tree["no_newline"][1] == b"end"


def test_a_detached_head_a_worktree_and_a_project_below_the_repositorys_top_are_read(repository, tmp_path):
    git(repository, "worktree", "add", "-q", "--detach", str(tmp_path / 'wo"rk:\\tree'))
    other = tmp_path / 'wo"rk:\\tree'
    (other / "pipeline/new.py").write_bytes(b"new\n")
    found = checkout.read(other / "pipeline")
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert restored(found, repository, tmp_path / "clone") == tree_of(other)


def test_before_the_first_commit_the_diff_is_the_whole_tree(tmp_path):
    git(tmp_path, "init", "-q", "project")
    (tmp_path / "project/a.py").write_bytes(b"a\n")
    found = checkout.read(tmp_path / "project")
    assert found.tags() == {
        "git.commit": "unknown: there is no commit yet",
        "git.dirty": "true",
        "git.tree": found.tree,
    }
    git(tmp_path, "init", "-q", "clone")
    (tmp_path / "it.diff").write_bytes(found.diff)
    git(tmp_path / "clone", "apply", "../it.diff")
    assert tree_of(tmp_path / "clone") == {"a.py": (False, b"a\n")}


def test_what_the_diff_does_not_hold_is_said(repository, monkeypatch):
    monkeypatch.setattr(checkout, "LARGEST_TOGETHER", 1_500_000)
    for name in (".env", "server.pem", "my_token.json", "id_rsa", "tokenizer.py"):
        (repository / name).write_bytes(b"key\n")
    (repository / "big.bin").write_bytes(bytes(2_000_000))
    for name in ("one.csv", "two.csv"):
        (repository / name).write_bytes(bytes(900_000))
    git(repository, "init", "-q", "nested")
    (repository / "nested/x.py").write_bytes(b"x")
    run = repository / "results/20260101-000000-abc"
    (run / "artifacts").mkdir(parents=True)
    for name in ("journal.jsonl", "lock", "artifacts/x.txt"):
        (run / name).write_bytes(b"of a run")
    found = checkout.read(repository)
    assert found.left_out == (
        "'.env' (it may hold a key)",
        "'big.bin' (2.0 MB, not known to git)",
        "'id_rsa' (it may hold a key)",
        "'my_token.json' (it may hold a key)",
        "'nested/' (a repository of its own)",
        "'server.pem' (it may hold a key)",
        "'two.csv' (0.9 MB, not known to git)",
    )
    assert found.tags()["git.left_out"] == "; ".join(found.left_out)
    assert b"tokenizer.py" in found.diff
    assert b"of a run" not in found.diff


@pytest.mark.parametrize(
    "name",
    [
        *(
            ".env",
            ".env.local",
            "prod.env",
            "prod.env.bak",
            ".envrc",
            ".pgpass",
            ".netrc",
            "_netrc",
            ".my.cnf",
            ".s3cfg",
        ),
        *("id_rsa", "id_ed25519.pub", "deploy_rsa", "server.pem", "tls.key", "putty.ppk", "store.p12", "pass.kdbx"),
        *(
            "api_key.txt",
            "apikey",
            "openai_key",
            "openai-keys.json",
            "key.txt",
            "keys.yaml",
            "access_key.csv",
            "Key2.txt",
        ),
        *("service_account.json", "my-service-account-3.json", "credentials", "creds.json", ".git-credentials"),
        *("kubeconfig", "prod.kubeconfig.yaml", "kaggle.json", "prod.tfvars", "terraform.tfstate", ".databrickscfg"),
        *(
            "my_secrets.toml",
            "password.txt",
            "passphrase.txt",
            "hf_token",
            ".htpasswd",
            ".dockercfg",
            "private_key.der",
        ),
        *(
            "secrets/prod.yaml",
            "deep/keys/prod.txt",
            ".aws/config",
            ".kube/cache/x",
            "Credentials/a/b.ini",
            "tokens/config.yaml",
        ),
        *("terraform.tfstate.backup", "prod.tfvars.json", "cert.pem.bak", "server.key~", "two\nlines.pem"),
        *(".env-prod", ".env_local", ".env~", "x-firebase-adminsdk-1.json"),
    ],
)
def test_a_new_file_that_may_hold_a_key_is_not_recorded(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"key\n")
    assert checkout._objection(tmp_path, name, 0) == ("it may hold a key", 0)


@pytest.mark.parametrize(
    "name",
    [
        *("monkey.py", "monkey.csv", "keyboard.py", "keyboard.json", "keypoints.json", "sort_key.py", "api_keys.ipynb"),
        *("tokenizer.py", "environment.yaml", "env.py", "key_metrics.csv", "hockey.txt", "rsa.py", "credit.csv"),
        *("turkey_data.csv", "donkeys.csv", "accessories.csv", "services.json", "kaggle.py", "notes.txt"),
        *("keys/model.py", "secrets/__init__.py", "tokens/bpe.py", "kubeconfig_loader.py", ".docker/build.PY"),
        *("monkeys/a.csv", "key_metrics/a.csv", "aws/config", "my.environment/x.yaml", "ladder.p85.csv"),
    ],
)
def test_a_new_file_whose_name_only_sounds_so_is_recorded(tmp_path, name):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"data\n")
    assert checkout._objection(tmp_path, name, 0) == ("", 5)


def test_a_submodule_with_changes_of_its_own_is_said_and_one_at_another_commit_is_recorded(repository, tmp_path):
    git(tmp_path, "clone", "-q", str(repository), "library")
    git(repository, "submodule", "--quiet", "add", str(tmp_path / "library"), "lib")
    git(repository, "commit", "-q", "-m", "second")
    assert checkout.read(repository).tags()["git.dirty"] == "false"
    (repository / "lib/latin1.txt").write_bytes(b"changed\n")
    assert checkout.read(repository).left_out == ("'lib' (a submodule with changes of its own)",)
    git(repository / "lib", "commit", "-q", "-a", "-m", "third")
    found = checkout.read(repository)
    assert found.left_out == ()
    assert b"+Subproject commit " + git(repository / "lib", "rev-parse", "HEAD").encode() in found.diff


def test_a_filter_that_fails_leaves_the_commit_and_says_that_the_changes_are_not_recorded(repository):
    (repository / ".gitattributes").write_bytes(b"*.big filter=store\n")
    git(repository, "config", "filter.store.clean", "false")
    git(repository, "config", "filter.store.required", "true")
    (repository / "new.big").write_bytes(b"x")
    found = checkout.read(repository)
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert found.left_out[0].startswith("all changes (")
    assert found.tags()["git.dirty"] == "true"


def test_a_full_or_forbidden_temporary_folder_costs_the_diff_not_the_run(repository, monkeypatch):
    change(repository)
    monkeypatch.setattr(checkout.tempfile, "tempdir", str(repository / "nowhere"))
    found = checkout.read(repository)
    assert found.commit == git(repository, "rev-parse", "HEAD")
    assert found.left_out[0].startswith("all changes ([Errno 2] No such file")


def test_where_git_cannot_tell_it_is_said_why(repository, tmp_path, monkeypatch):
    def commit(folder):
        return checkout.read(folder).tags()["git.commit"]

    assert commit(tmp_path) == "unknown: the code lies in no git repository"
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    assert commit(tmp_path / "bare.git") == "unknown: the repository has no working tree"
    installed = repository / "env.ignored/site-packages"
    installed.mkdir(parents=True)
    assert commit(installed) == "unknown: the code lies in a folder that the repository around it ignores"
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin/git"
    slow.write_text("#!/bin/sh\nexec sleep 20\n")
    slow.chmod(0o755)
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{path}")
    monkeypatch.setattr(checkout, "PATIENCE_S", 0.2)
    assert commit(repository) == "unknown: git took more than 0.2 s"
    slow.write_text("#!/bin/sh\necho \"fatal: detected dubious ownership in repository at '/x'\" >&2\nexit 128\n")
    monkeypatch.setattr(checkout, "PATIENCE_S", 20)
    assert commit(repository) == "unknown: git refuses a checkout of another owner (safe.directory)"
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert commit(repository) == "unknown: there is no git here"


def test_a_checkout_of_another_owner_is_read(repository):
    if os.getuid():
        pytest.skip("only root can give files away")
    change(repository)
    own = checkout.read(repository)
    for path in (repository, *repository.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    assert checkout.read(repository) == own


def test_the_diff_is_an_artifact_of_the_run_byte_for_byte(tmp_path, monkeypatch):
    from pipeline.tracking import run
    from pipeline.tracking.journal import Journal, RunFolder

    diff = b"+gr\xfc\xdfe\r\n"
    monkeypatch.setattr(run, "checkout", lambda: checkout.Checkout("c", diff))
    (tmp_path / "run").mkdir()
    recorded = run.Run(Journal(RunFolder(tmp_path / "run")), IdleUploader())
    recorded.provenance()
    assert (tmp_path / "run/artifacts/uncommitted.diff").read_bytes() == diff
    recorded.journal.close()


# What only some systems have, taken away.


def test_the_processor_has_a_name_without_proc(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "CPU_INFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(provenance.platform, "processor", lambda: "")
    monkeypatch.setattr(provenance.platform, "machine", lambda: "arm64")
    assert provenance.cpu_name() == "arm64"
    (tmp_path / "cpuinfo").write_bytes(b"model name\t: Gr\xfcn 9000\n")
    assert provenance.cpu_name() == "Gr\ufffdn 9000"


@pytest.mark.parametrize("libc", [None, object()])
def test_memory_is_left_to_the_system_where_there_is_no_glibc(monkeypatch, libc):
    monkeypatch.setattr(sys, "platform", "darwin" if libc is None else "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: libc or pytest.fail("not on this system"))
    if libc is None:
        monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("there is no glibc to load"))
    process.keep_memory()


@pytest.mark.parametrize("taken", ["sys.platform = 'win32'", "sys.modules['fcntl'] = None"])
def test_an_unsupported_system_is_told_in_one_line_before_any_import_fails(tmp_path, taken):
    run = "sys.argv = ['pipeline', 'train']\nrunpy.run_module('pipeline', run_name='__main__')"
    code = f"import sys, runpy\n{taken}\n{run}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "pipeline: this runs on Linux, macOS and Windows' WSL (wsl --install), not on Windows itself\n"
    )


# A user id that the system has no name for, without HOME and USER.


@pytest.fixture
def open_folder():
    """A folder that every user may write; the tests' own lies where only its owner may go."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def as_nobody(folder, *words, **variables):
    """Run Python as a uid without a passwd entry; root's right to read stays, so that Python itself is found."""
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("only root can become a user without a name")
    caps = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
    become = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", *caps]
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
    done = subprocess.run(
        [*become, sys.executable, *words], cwd=folder, env=bare | variables, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def test_a_user_without_a_name_or_a_home_has_both_for_every_library_that_asks(open_folder):
    code = "from pipeline.terminal import account; account.settle(); import getpass, matplotlib, pathlib; "
    code += "print(getpass.getuser()); print(pathlib.Path.home()); print(matplotlib.get_configdir()); "
    code += "from pipeline.tracking import checkout; print(checkout.checkout().commit)"
    own = open_folder / "pipeline-home-54321"
    (name, home, fonts, commit), errors = as_nobody(open_folder, "-c", code)
    assert (name, home, errors) == ("uid 54321", str(own), "")
    assert Path(fonts).is_relative_to(own)
    assert own.stat().st_mode & 0o777 == 0o700
    assert commit == checkout.checkout().commit
    (_, home, fonts, _), errors = as_nobody(open_folder, "-c", code, HOME="/")
    assert (home, fonts, errors) == ("/", str(own), "")
    own.chmod(0o777)
    assert as_nobody(open_folder, "-c", code)[0][1] != str(own)  # anybody can put files there


@pytest.mark.slow
def test_a_user_without_a_name_or_a_home_trains_and_is_delivered(open_folder):
    store = f"sqlite:///{open_folder}/mlflow.db"
    knobs = ("--dataset", "digits", "--epochs", "1", "--hidden_units", "8")
    told, errors = as_nobody(open_folder, "-m", "pipeline", "train", *knobs, MLFLOW_TRACKING_URI=store)
    assert "Traceback" not in errors
    assert "Matplotlib" not in errors
    assert any("digits-mlp version 1" in line for line in told), told


def test_a_user_with_a_name_and_a_home_keeps_both(tmp_path, monkeypatch):
    for name in ("LOGNAME", "USER", "MPLCONFIGDIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(account, "user_name", lambda: "ann")
    account.settle()
    assert "USER" not in os.environ
    assert "MPLCONFIGDIR" not in os.environ
