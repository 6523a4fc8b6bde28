"""Runs tests against mutants: everything imported and collected once, then a fork for each mutant.

`tests.mutants` starts it where mutmut's mutated module lies; mutmut's own runner begins a pytest session for each
mutant, which takes ten times as long. The tests that noticed the last mutants go first.
"""

import gc
import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

LAST_KILLERS = 6
SLOWEST_S, TIMES_SLOWER = 20, 10  # a mutant's tests may take so much longer than without it: the machine may be busy
ARGUMENTS = ("-o", "addopts=", "-p", "no:cacheprovider", "-p", "no:randomly", "-m", "not slow", "-q", "--tb=no", "-rN")


class Runner:
    """A pytest plugin that runs the collected tests once for each mutant."""

    def __init__(self, mutants, jobs, imports):
        """Try these mutants, so many at a time; what the tests import on their way is imported once, here."""
        self.mutants, self.jobs, self.imports = mutants, jobs, imports
        self.killers, self.running, self.outcomes = [], {}, {}
        self.limit_s = 600

    def pytest_runtestloop(self, session):
        """Instead of pytest's own loop."""
        if session.testsfailed:
            raise session.Interrupted("the tests cannot be collected")
        self.session, self.items = session, {item.nodeid: item for item in session.items}
        for name in self.imports:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()
        began = time.monotonic()
        self._start("")
        self._finish_one()
        if self.outcomes.pop("") != "survived":
            raise session.Interrupted(f"without a mutant the tests fail: {self.killers}")
        self.limit_s = round(TIMES_SLOWER * (time.monotonic() - began)) + SLOWEST_S
        for mutant in self.mutants:
            if len(self.running) == self.jobs:
                self._finish_one()
            self._start(mutant)
        while self.running:
            self._finish_one()
        return True

    def _start(self, mutant):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                self._run(mutant, writing)
            finally:
                os._exit(2)  # an error outside the tests counts as noticed
        os.close(writing)
        self.running[child] = mutant, reading

    def _run(self, mutant, writing):
        from mutmut.mutation.trampoline import set_mutant_under_test

        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(self.limit_s)
        os.environ["MUTANT_UNDER_TEST"] = mutant  # for the processes that tests start
        set_mutant_under_test(mutant)
        first = [self.items[name] for name in self.killers[:LAST_KILLERS]]
        order = first + [item for item in self.items.values() if item not in first]
        for item, following in zip(order, [*order[1:], None], strict=True):
            self.session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if self.session.testsfailed:
                os.write(writing, item.nodeid.encode())
                os._exit(1)
        os._exit(0)

    def _finish_one(self):
        child, status = os.wait()
        if child not in self.running:
            return
        mutant, reading = self.running.pop(child)
        killer = os.read(reading, 4096).decode()
        os.close(reading)
        code = os.waitstatus_to_exitcode(status)
        self.outcomes[mutant] = {0: "survived", -signal.SIGALRM: "timeout"}.get(code, "killed")
        if killer in self.items:
            self.killers = [killer, *(name for name in self.killers if name != killer)]


def main(job):
    """Do the job that a file describes; the outcomes go into another file."""
    job = json.loads(Path(job).read_text())
    runner = Runner(job["mutants"], job["jobs"], job["imports"])
    code = pytest.main([*ARGUMENTS, *job["tests"]], plugins=[runner])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) or len(runner.outcomes) < len(
        job["mutants"]
    ):
        return int(code) or 1
    Path(job["outcomes"]).write_text(json.dumps(runner.outcomes))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
