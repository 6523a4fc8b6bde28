"""The command as a job: what it is given, how it is followed and left; and the code that travels with it."""

import subprocess
from types import SimpleNamespace

import pytest

from pipeline.cluster import connecting, jobs
from pipeline.cluster.address import DEFAULTS, Place
from pipeline.cluster.staging import stage
from pipeline.signals import Interrupted
from pipeline.terminal.shell import UnreachableError
from pipeline.tracking import checkout

HEAD = Place("job", "http://head:8265")
OPTIONS = {
    "jobs": 0,
    "until": None,
    "record": None,
    "data_dir": None,
    **DEFAULTS,
}


def options(**given):
    return SimpleNamespace(**{**OPTIONS, "runs_dir": "runs", **given})


def test_a_relative_runs_dir_lies_in_the_home_there_with_its_store_beside_it():
    assert jobs.entrypoint("q.yaml", options()) == (
        'MLFLOW_TRACKING_URI=${MLFLOW_TRACKING_URI:-sqlite:///"$HOME"/mlflow.db} '
        'exec python -m pipeline experiment q.yaml --on ray --runs_dir "$HOME"/runs'
    )


def test_what_was_typed_goes_along_quoted_for_the_shell_there():
    typed = options(runs_dir="/data/my runs", until="decided", jobs=3, gpus=0.5, insecure=True, checkpoint_every=60.0)
    line = jobs.entrypoint("my q.yaml", typed)
    assert "experiment 'my q.yaml' --on ray --jobs 3 --until decided --gpus 0.5 --checkpoint_every 60" in line
    assert line.endswith("--insecure --runs_dir '/data/my runs'")
    assert "sqlite:////data/mlflow.db" in line


@pytest.mark.parametrize(
    ("runs_dir", "store"),
    [
        ("runs", "sqlite:////home/me/mlflow.db"),
        ("/my data/$x/runs", "sqlite:////my data/$x/mlflow.db"),
        ("/runs", "sqlite:////mlflow.db"),
    ],
)
def test_the_shell_there_makes_the_store_of_it_unless_it_has_one(runs_dir, store):
    line = jobs.entrypoint("q.yaml", options(runs_dir=runs_dir)).partition(" exec ")[0]
    script = f'{line}; printf %s "$MLFLOW_TRACKING_URI"'
    for variables, expected in (({}, store), ({"MLFLOW_TRACKING_URI": "http://there"}, "http://there")):
        done = subprocess.run(
            ["sh", "-c", script], env={"HOME": "/home/me", **variables}, capture_output=True, text=True
        )
        assert (done.stdout, done.stderr) == (expected, "")


@pytest.mark.parametrize(
    ("uri", "goes"),
    [
        ("http://mlflow:5000", True),
        ("http://bob:pw@mlflow:5000", False),
        ("http://bob:2024#Secret@mlflow:5000", False),
        ("http://bob:1/2@mlflow:5000", False),
        ("http://bob:it', 's@mlflow:5000", False),
        ("sqlite:///mlflow.db", False),
    ],
)
def test_a_servers_address_goes_along_unless_it_holds_a_secret(uri, goes):
    environ = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_TRACKING_PASSWORD": "pw", "HOME": "/me"}
    assert jobs.handed_on(environ) == {**({"MLFLOW_TRACKING_URI": uri} if goes else {}), "PYTHONUNBUFFERED": "1"}


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://mlflow:5000", "http://mlflow:5000"),
        ("sqlite:///mlflow.db", "MLflow as MLFLOW_TRACKING_URI says on the head, or else in ~/mlflow.db"),
        (
            "http://bob:pw@mlflow:5000",
            "MLflow as MLFLOW_TRACKING_URI says on the head, or else in ~/mlflow.db (a password is not sent along)",
        ),
    ],
)
def test_where_the_job_records_is_told_and_no_secret_with_it(uri, words):
    assert jobs.told("runs", {"MLFLOW_TRACKING_URI": uri}) == words


class Client:
    """A head that says one more line each time that it is asked, then ends."""

    def __init__(self, *lines, status="SUCCEEDED", code=0, silent=0):
        self.lines, self.status, self.code, self.silent, self.said = lines, status, code, silent, 0

    def get_job_info(self, job):
        if self.silent:
            self.silent -= 1
            raise ConnectionError("no route\nto host")
        self.said += 1
        status = self.status if self.said >= len(self.lines) else "RUNNING"
        return SimpleNamespace(status=status, driver_exit_code=self.code, message="killed")

    def get_job_logs(self, job):
        return "".join(self.lines[: self.said])


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(jobs, "LOOK_S", 0.0)


def test_every_line_is_shown_once_also_when_the_head_is_silent_for_a_while(capsys):
    assert jobs.follow(Client("one\n", "two\n", "three\n", silent=3), HEAD, "q-1") == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_the_jobs_exit_code_is_the_commands(capsys):
    assert jobs.follow(Client("x\n", status="FAILED", code=2), HEAD, "q-1") == 2
    assert jobs.follow(Client("x\n", status="STOPPED", code=None), HEAD, "q-1") == 1
    assert "the job is stopped: killed" in capsys.readouterr().err


def test_a_head_that_is_gone_is_said_with_how_to_follow_again(monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE_S", -1.0)
    with pytest.raises(
        UnreachableError, match=r"answers no more \(no route\); ray job logs --address http://head:8265"
    ):
        jobs.follow(Client(silent=9), HEAD, "q-1")


def test_ctrl_c_leaves_the_job_and_says_how_to_follow_and_to_stop_it(monkeypatch, capsys):
    def interrupt(seconds):
        raise Interrupted(2)

    monkeypatch.setattr(jobs.time, "sleep", interrupt)
    assert jobs.follow(Client("one\n", "two\n"), HEAD, "q-1") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "the job goes on; follow it: ray job logs --address http://head:8265 --follow q-1",
        "stop it: ray job stop --address http://head:8265 q-1",
    ]


def test_a_head_that_was_just_started_is_waited_for_and_another_refusal_is_said():
    answers = [RuntimeError("500: No available agent to submit job"), "q-1"]

    def submit_job(**about):
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    client = SimpleNamespace(submit_job=submit_job)
    assert jobs._handed_in(client, HEAD) == "q-1"
    answers.append(RuntimeError("quota\nlong story"))
    with pytest.raises(ValueError, match=r"does not take the job: quota; see its dashboard"):
        jobs._handed_in(client, HEAD)


def test_a_head_whose_port_for_jobs_is_taken_is_told_apart_from_one_that_was_just_started(monkeypatch):
    def submit_job(**about):
        raise RuntimeError("500: No available agent to submit job, please try again later.")

    monkeypatch.setattr(jobs, "PATIENCE_S", -1.0)
    words = r"http://head:8265 does not take the job: its head .* port there is taken.*--dashboard-agent-listen-port=0$"
    with pytest.raises(ValueError, match=words):
        jobs._handed_in(SimpleNamespace(submit_job=submit_job), HEAD)


def test_no_secret_is_cut_in_half_before_it_is_taken_out_of_rays_words():
    error = RuntimeError(f"\n{'x' * 290} http://bob:S3cret@head\nlong")
    assert connecting.first_line(error) == f"{'x' * 290} http://he"


def test_the_package_and_own_modules_travel_and_nothing_that_lies_beside_them(tmp_path, monkeypatch):
    (tmp_path / "here/runs").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for name, text in (
        ("my_travelling_net.py", "import my_travelling_part\n"),
        ("my_travelling_part.py", "PART = 1\n"),
        ("secret.env", "KEY=1"),
        ("question.yaml", "question: x"),
    ):
        (tmp_path / "here" / name).write_text(text)
    (tmp_path / "there").mkdir()
    stage(tmp_path / "there", ["my_travelling_net:Net"], {"question.yaml": tmp_path / "here/question.yaml"})
    assert {path.name for path in (tmp_path / "there").iterdir()} == {
        *("pipeline", "checkout.json", "question.yaml", "my_travelling_net.py", "my_travelling_part.py"),
    }
    assert not list((tmp_path / "there").rglob("__pycache__"))
    carried = checkout._unpacked(tmp_path / "there/checkout.json")
    assert carried == checkout.checkout()


def test_a_package_travels_with_all_that_it_imports_to_the_place_that_python_finds_it_by(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    garden = tmp_path / "src/my_travelling_garden"
    (garden / "deep").mkdir(parents=True)
    for name, text in (
        ("__init__.py", ""),
        ("layers.py", "K = 1\n"),
        ("other.py", ""),
        ("deep/__init__.py", ""),
        ("deep/nets.py", "from my_travelling_garden.layers import K\n"),
    ):
        (garden / name).write_text(text)
    (tmp_path / "there").mkdir()
    stage(tmp_path / "there", ["my_travelling_garden.deep.nets:Net"])
    there = tmp_path / "there/my_travelling_garden"
    assert sorted(path.relative_to(there).as_posix() for path in there.rglob("*.py")) == [
        *("__init__.py", "deep/__init__.py", "deep/nets.py", "layers.py"),
    ]
