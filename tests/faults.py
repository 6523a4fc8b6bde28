"""Real processes that really fail: a training that can be killed, an MLflow server that can die, freeze and return."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import mlflow

from pipeline.tracking.folders import all_folders
from tests.conftest import DELIVERED_WITHIN_S, ROOT, environment, free_port, ready_store, run_pipeline

KNOBS = ("--dataset", "digits", "--hidden_units", "16", "--accelerator", "cpu", "--runs_dir", "runs")
LONG = (*KNOBS, "--epochs", "3000", "--batch_size", "16", "--model_name", "")
SHORT = (*KNOBS, "--epochs", "3")
THREADS = {"OMP_NUM_THREADS": "1"}
STARTED = []  # of this test


class Server:
    """An `mlflow server` on loopback with its own SQLite store and proxied artifacts."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def start(self):
        """Start it and wait until it answers."""
        if not (self.folder / "store.db").exists():
            ready_store(self.folder, "store.db")
        command = ["mlflow", "server", "--backend-store-uri", f"sqlite:///{self.folder}/store.db"]
        command += ["--artifacts-destination", str(self.folder / "artifacts"), "--workers", "1"]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--host", "127.0.0.1", "--port", str(self.port)],
                env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),  # half of its start-up, for nothing here
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.folder,
            )
        for _ in range(DELIVERED_WITHIN_S * 10):
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def signal(self, number):
        """Send a signal to all of its processes."""
        os.killpg(self.process.pid, number)

    def kill(self):
        """Let it die at once, if it lives."""
        if self.process is not None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


def start_pipeline(*arguments, cwd, **variables):
    """Start `python -m pipeline`; its output goes to a file, so that nobody waits for a reader."""
    with (Path(cwd) / "output").open("ab") as output:
        STARTED.append(
            subprocess.Popen(
                [sys.executable, "-m", "pipeline", *map(str, arguments)],
                cwd=cwd,
                env=environment(OMP_NUM_THREADS="1", **variables),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        )
    return STARTED[-1]


def never_finished(folder):
    """Variables of a training that stays where it would be finished: it cannot be over before it is killed."""
    (Path(folder) / "sitecustomize.py").write_text(
        "import sys, time\n"
        "if 'train' in sys.argv:\n"
        "    from pipeline.tracking.run import Run\n"
        "    end = Run.end\n"
        "    Run.end = lambda self, how, *why: time.sleep(600) if how == 'FINISHED' else end(self, how, *why)\n"
    )
    return {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}


HELD = """import time
from pathlib import Path


def steady(epoch, epochs):
    while epoch == 2 and Path({hold!r}).exists():
        time.sleep(0.02)
    return 1.0
"""


def write_held(folder, hold):
    """Make the schedule `held:steady` there, which keeps every run in its second epoch while the file `hold` is."""
    (Path(folder) / "held.py").write_text(HELD.format(hold=str(hold)))


@contextlib.contextmanager
def holding(hold):
    """No run of that schedule ends inside."""
    hold.touch()
    try:
        yield
    finally:
        hold.unlink()


def end_what_is_left():
    """Kill what a test has started and, because it failed, not ended: 3,000 epochs starve all tests after it."""
    while STARTED:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(STARTED.pop().pid, signal.SIGKILL)


def processes(*words, cwd=None):
    """The ids of the processes with arguments that begin with the words, in a row; of those in a folder, if given."""
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _is(entry, words, cwd)]


def _is(entry, words, cwd):
    try:
        arguments = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
        elsewhere = cwd is not None and (entry / "cwd").resolve() != Path(cwd).resolve()
    except OSError:  # it has just ended
        return False
    rows = zip(*(arguments[k:] for k in range(len(words))), strict=False)
    return not elsewhere and any(all(map(str.startswith, row, words)) for row in rows)


def signal_all(pids, number=signal.SIGKILL):
    """Send a signal to each that still lives."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def kill_all_of(folder):
    """kill -9 the uploaders of the runs below the folder, as a power loss does."""
    signal_all(processes("pipeline.delivery.upload_loop", str(folder)))


def wait_until(condition, seconds=DELIVERED_WITHIN_S):
    """Wait for something to become true, and return it; fails if it does not."""
    for _ in range(seconds * 50):
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not true within {seconds} s")


def only_folder(cwd):
    """The one run folder below."""
    (folder,) = all_folders(Path(cwd) / "runs")
    return folder


def store(cwd):
    """The store that a command takes there by itself."""
    return f"sqlite:///{cwd}/mlflow.db"


def run_of(cwd):
    """The one run below, as MLflow has it."""
    return mlflow.MlflowClient(tracking_uri=store(cwd)).get_run(only_folder(cwd).state()["run_id"])


def is_delivered(folder):
    """Whether the run has ended and MLflow has all of it."""
    return folder.ended() and folder.state().get("delivered") == len(folder.events())


def see_delivered(cwd, **variables):
    """Deliver by hand what the end of a stopped training has left: it does not wait for MLflow for long."""
    if not is_delivered(only_folder(cwd)):
        done = run_pipeline("sync", cwd=cwd, **variables)
        assert done.returncode == 0, done.stderr


def epochs_recorded(cwd):
    """How many epochs the one run has recorded so far."""
    folders = all_folders(Path(cwd) / "runs")
    return sum("train_loss" in event.get("values", {}) for folder in folders for event in folder.events())


def metrics_in_mlflow(uri, run_id):
    """Metric name -> [(step, value), ...], as MLflow has them; of seconds only the steps."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    histories = {name: client.get_metric_history(run_id, name) for name in client.get_run(run_id).data.metrics}
    return {
        name: sorted((metric.step, None if "seconds" in name else metric.value) for metric in history)
        for name, history in histories.items()
    }


def full_record(uri, cwd):
    """Everything that must be the same however a run came to its end."""
    folder = only_folder(cwd)
    run_id = folder.state()["run_id"]
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    run = client.get_run(run_id)
    return {
        "status": run.info.status,
        "metrics": metrics_in_mlflow(uri, run_id),
        "params": {name: text for name, text in run.data.params.items() if name not in ("runs_dir", "data_dir")},
        "artifacts": sorted({entry.path for entry in client.list_artifacts(run_id)} - {"uncommitted.diff"}),
        "models": len(run.outputs.model_outputs) if run.outputs else 0,
        "versions": len(client.search_model_versions(f"run_id = '{run_id}'")),
        "datasets": sorted(entry.dataset.digest for entry in run.inputs.dataset_inputs),
        "predictions": (folder.artifacts / "predictions.npz").read_bytes(),
        "network": (folder.path / "model/network.onnx").read_bytes(),
    }


def other_artifacts(uri, cwd):
    """The files in MLflow that are not, byte for byte, those of the run's folder."""
    folder = only_folder(cwd)
    run_id = folder.state()["run_id"]
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    with tempfile.TemporaryDirectory() as scratch:
        there = Path(mlflow.MlflowClient(tracking_uri=uri).download_artifacts(run_id, "", scratch))
        return [
            f"artifact {path.relative_to(there)}"
            for path in there.rglob("*")
            if path.is_file() and path.read_bytes() != (folder.artifacts / path.relative_to(there)).read_bytes()
        ]


def differences(one, other):
    """The names of what is not the same in two full records."""
    return [name for name in one if one[name] != other[name]]
