"""Ray, imported, and joined or started on this machine."""

import contextlib
import logging
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.cluster import address
from pipeline.cluster.address import Place
from pipeline.redaction import without_secrets
from pipeline.signals import SIGNALS

# Ray listens on all addresses of the machine by default; where it takes itself for a single machine's, on loopback.
# And its workers are nicer than other programs, by 15: beside any that computes they would hardly get on.
# What its agent measures of all processes every few seconds is for a dashboard, which one of our own has not.
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
    "REPORTER_UPDATE_INTERVAL_MS": "3600000",
}
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
OF_A_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # Ray's own, in the environment of a job's command


def installed_ray() -> Any:
    """The module `ray`.

    Raises:
        ValueError: if it is not installed.
    """
    os.environ |= {name: value for name, value in QUIET.items() if name not in os.environ}
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise ValueError("--on ray needs Ray: make ray") from None
    hush()
    # What its nodes have to say of dead workers, in paragraphs, is not to fall into the progress: we say it in a line.
    ray._private.worker.print_to_stdstream = lambda *data, **how: None
    return ray


def hush() -> None:
    """Keep Ray's own log lines out of what we say; some of its modules turn them on again."""
    logging.getLogger("ray").setLevel(logging.ERROR)


def connect(place: Place, insecure: bool, code: Path, variables: Mapping[str, str], **own: Any) -> tuple[Any, bool]:
    """Join the cluster that is given or found here; else start one that only this machine reaches.

    Args:
        place: the cluster's address, if one is given.
        insecure: join it also if others reach it and it asks for no token.
        code: the folder with the code that workers are to run.
        variables: of their environment.
        own: what one that is started here is given.

    Returns:
        The module `ray`, and whether Ray was started here.

    Raises:
        ValueError: if it may not be joined, or nobody answers.
    """
    ray = installed_ray()
    found = place.address or os.environ.get("RAY_ADDRESS") or _address_of_one_here()
    found = "" if found == "local" else found  # Ray's word for one of its own
    if not found:
        os.environ |= ALONE
        ray._private.ray_constants.ENABLE_RAY_CLUSTER = False  # what it has read of that as it was imported
    in_job = OF_A_JOB in os.environ  # which has brought the code
    environment: dict[str, Any] = {"env_vars": dict(variables), **({} if in_job else {"working_dir": str(code)})}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if found and not in_job:
        address.check_safe(Place("node", found), insecure, _with_token(place))
    more = {"address": found} if found else {"address": "local", "include_dashboard": False, **own}
    try:
        with _signals_kept(), _nothing_on_stderr():
            ray.init(runtime_env=environment, **quiet, **more)
    except BaseException as error:
        ray.shutdown()
        if isinstance(error, ConnectionError):
            token = " (with this token: RAY_AUTH_TOKEN_PATH)" if os.environ.get("RAY_AUTH_MODE") == "token" else ""
            raise ValueError(f"no Ray answers at {found}{token}: {first_line(error)}; give another --on") from None
        raise
    return ray, not found


def _address_of_one_here() -> str:
    """The address of a cluster that this machine is a node of, or nothing."""
    from ray._private import services  # no public function tells without starting one

    with contextlib.suppress(Exception):
        return services.canonicalize_bootstrap_address("auto") or ""
    return ""


def _with_token(place: Place) -> dict[str, str]:
    """The environment, with what Ray itself decides for a cluster found here: a token, if this user has one."""
    if not place.address:
        from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available

        maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
    return dict(os.environ)


@contextlib.contextmanager
def _nothing_on_stderr() -> Iterator[None]:
    """Ray's compiled part says each of its tries to connect there, a line a second; the error says it once."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        for descriptor in (kept, nowhere):
            os.close(descriptor)


class Epitaph:
    """Words for the case that Ray takes this process along: when its node dies it ends the process without any.

    A shell of its own waits for the end of its input, and says them unless it was told that all is well.
    """

    def __init__(self, words: str) -> None:
        script = 'read -r well || printf "%s\\n" "$1" >&2'
        self._shell = subprocess.Popen(["sh", "-c", script, "sh", words], stdin=subprocess.PIPE, start_new_session=True)

    def withdraw(self) -> None:
        """All is well."""
        with contextlib.suppress(OSError):
            self._shell.communicate(b"well\n")


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Ray puts a handler of its own on SIGTERM."""
    handlers = {each: signal.getsignal(each) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)


def first_line(error: BaseException) -> str:
    """The first line that says something, of the paragraphs that Ray's errors are."""
    lines = [line.strip() for line in without_secrets(str(error)).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
