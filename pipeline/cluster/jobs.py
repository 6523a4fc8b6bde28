"""The whole command as a Ray job: it runs on the cluster's head, and is followed from here."""

import os
import secrets
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.cluster import address
from pipeline.cluster.address import Place, flags_of
from pipeline.cluster.connecting import first_line, hush, installed_ray
from pipeline.cluster.staging import stage
from pipeline.experiments.spec import read_question
from pipeline.redaction import without_secrets
from pipeline.signals import Interrupted, interruptions
from pipeline.terminal.shell import DONE, NOT_ALL, UnreachableError

LOOK_S, PATIENCE_S = 1.0, 30.0
NO_AGENT = "No available agent"  # Ray's words
PORT_IS_TAKEN = (
    "its head has nobody to run jobs: the agent's port there is taken, or it has not started yet; look into "
    "dashboard_agent.log there, or start Ray with another: ray start --head --dashboard-agent-listen-port=0"
)
ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
HANDED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME")


def submit(place: Place, options: Any) -> int:
    """Submit the experiment and follow it; Ctrl-C leaves it alone. Returns the job's exit code.

    Args:
        place: the address of the cluster's dashboard.
        options: of the command.

    Raises:
        ValueError: in one line, before anything is submitted.
    """
    address.check_safe(place, options.insecure)
    question = read_question(options.file, runs_dir=options.runs_dir)
    client = _client(place)
    name = Path(options.file).name
    with tempfile.TemporaryDirectory(prefix="pipeline-code-") as folder:
        stage(Path(folder), question.own_code(), {name: Path(options.file)})
        about = {"entrypoint": entrypoint(name, options), "submission_id": f"{question.name}-{secrets.token_hex(4)}"}
        job = _handed_in(client, place, runtime_env={"working_dir": folder, "env_vars": handed_on()}, **about)
    print(f"job {job} on {place.address}; its records lie on the head, in {_shown(_runs_dir(options.runs_dir))},")
    print(f"and in {told(options.runs_dir)}")
    return follow(client, place, job)


def _handed_in(client: Any, place: Place, **about: Any) -> str:
    """The job's name, once the head has taken it; one that has just been started takes none for some seconds."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return str(client.submit_job(**about))
        except Exception as error:
            nobody = NO_AGENT in str(error)
            if not nobody or time.monotonic() > until:
                why = PORT_IS_TAKEN if nobody else f"{first_line(error)}; see its dashboard"
                raise ValueError(f"{place.address} does not take the job: {why}") from None
        time.sleep(LOOK_S)


def _client(place: Place) -> Any:
    """Ray's client of the jobs' service.

    Raises:
        ValueError: if nobody answers there, or does not know the token.
    """
    installed_ray()
    from ray.job_submission import JobSubmissionClient

    address.check_answers(place)
    try:
        client = JobSubmissionClient(place.address)
        hush()
        client.list_jobs()
    except Exception as error:
        words = first_line(error)
        if any(word in str(error) for word in ("401", "403", "nauthenticated", "oken")):
            words = "it wants a token, or another: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE as where it runs"
        raise ValueError(f"{place.address} takes no jobs from here ({words})") from None
    return client


def entrypoint(name: str, options: Any) -> str:
    """The command that runs on the head, from the folder that was sent along, which does not outlive the job.

    Without a tracking server the runs are delivered to a database beside their folder.
    """
    runs_dir = _runs_dir(options.runs_dir)
    words = ["experiment", name, "--on", "ray"]
    given = {flag: getattr(options, flag) for flag in ("jobs", "until", "record", "data_dir")}
    for flag, value in {**given, **flags_of(vars(options))}.items():
        if value:
            words += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
    uri = f"MLFLOW_TRACKING_URI=${{MLFLOW_TRACKING_URI:-sqlite:///{_shown(_store(runs_dir), quote=True)}}}"
    return f"{uri} exec python -m pipeline {shlex.join(words)} --runs_dir {_shown(runs_dir, quote=True)}"


def _runs_dir(given: str) -> str:
    """Where the records lie on the head: as given, or below the home folder there."""
    return given if Path(given).is_absolute() else f"$HOME/{Path(given)}"


def _store(runs_dir: str) -> str:
    return f"{os.path.dirname(runs_dir).rstrip('/')}/mlflow.db"  # noqa: PTH120


def told(runs_dir: str, environ: Mapping[str, str] = os.environ) -> str:
    """Where the job will record, in words: an address that is not sent along is not what it takes."""
    if uri := handed_on(environ).get("MLFLOW_TRACKING_URI"):
        return uri
    given = environ.get("MLFLOW_TRACKING_URI", "")
    why = " (a password is not sent along)" if _may_hold_a_secret(given) else ""
    return f"MLflow as MLFLOW_TRACKING_URI says on the head, or else in {_shown(_store(_runs_dir(runs_dir)))}{why}"


def _shown(path: str, quote: bool = False) -> str:
    home = path.startswith("$HOME/")
    if not quote:
        return f"~/{path.removeprefix('$HOME/')}" if home else path
    return f'"$HOME"/{shlex.quote(path.removeprefix("$HOME/"))}' if home else shlex.quote(path)


def handed_on(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What the job gets of this environment: where to record. Secrets and paths of this machine it does not get."""
    found = {name: environ[name] for name in HANDED_ON if name in environ}
    uri = found.get("MLFLOW_TRACKING_URI", "")
    if uri and (not uri.startswith(("http://", "https://")) or _may_hold_a_secret(uri)):
        del found["MLFLOW_TRACKING_URI"]
    return {**found, "PYTHONUNBUFFERED": "1"}


def _may_hold_a_secret(uri: str) -> bool:
    """Whether the address should not leave this machine: where a password has an @ or / can only be guessed."""
    return "@" in uri or without_secrets(uri) != uri


def follow(client: Any, place: Place, job: str) -> int:
    """Show what the job prints until it ends; returns its exit code.

    Raises:
        UnreachableError: if the head does not answer for a while.
    """
    again = f"ray job logs --address {place.address} --follow {job}"
    stop = f"ray job stop --address {place.address} {job}"
    shown, answered = 0, time.monotonic()
    try:
        with interruptions():
            while True:
                try:
                    details = client.get_job_info(job)
                    log: str = client.get_job_logs(job)
                    answered = time.monotonic()
                except Exception as error:
                    if time.monotonic() - answered > PATIENCE_S:
                        raise UnreachableError(
                            f"{place.address} answers no more ({first_line(error)}); {again}"
                        ) from None
                else:
                    sys.stdout.write(log[shown:])
                    sys.stdout.flush()
                    shown = len(log)
                    if details.status in ENDED:
                        return _code_of(details)
                time.sleep(LOOK_S)
    except Interrupted:
        print(f"\nthe job goes on; follow it: {again}\nstop it: {stop}", flush=True)
        return DONE


def _code_of(details: Any) -> int:
    if details.status == "SUCCEEDED":
        return DONE
    code = details.driver_exit_code
    if code is None:
        print(f"pipeline: the job is {details.status.lower()}: {details.message}", file=sys.stderr)
    return code or NOT_ALL
