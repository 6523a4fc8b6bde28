"""The export, tried beside the first epoch in a process of its own: torch's exporter takes seconds."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint

from pipeline.config import RunConfig, own_code
from pipeline.config.own_code import OwnCodeError
from pipeline.data_spec import DataSpec

if TYPE_CHECKING:
    from pipeline.data.dataset import Dataset

FAILED = 3  # Python itself ends with 1 or 2
EXAMPLES = 8
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # the exporter's messages are coloured


class ExportTrial(Checkpoint):
    """Starts the trial with the training and stops it at the end of the epoch in which the trial has failed.

    A `Checkpoint`, so that the epoch's own record and checkpoint come first.
    """

    def __init__(self, config: RunConfig, source: "Dataset") -> None:
        self.network = config.network
        self._task: dict[str, Any] = {
            "config": np.array(json.dumps(config.as_dict())),
            "spec": np.array(source.spec.as_json()),
            "examples": source.test.inputs[:EXAMPLES],  # made-up ones may be none that the network takes
        }
        self._process: subprocess.Popen[bytes] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start it; a machine that cannot loses the trial, not the training."""
        if not trainer.is_global_zero:
            return
        command = [sys.executable, "-m", __name__]
        try:
            with tempfile.TemporaryFile() as task:  # an argument holds 128 kB, and a pipe 64 before it waits
                np.savez(task, **self._task)
                task.seek(0)
                out, errors = subprocess.PIPE, subprocess.DEVNULL
                self._process = subprocess.Popen(command, stdin=task, stdout=out, stderr=errors)
        except OSError as error:
            print(f"warning: the network's export is not tried beside the first epoch ({error})", file=sys.stderr)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look whether it has failed."""
        if self._process is None or self._process.poll() != FAILED:
            return
        assert self._process.stdout is not None
        reason = self._process.stdout.read().decode(errors="replace").strip()
        raise refusal(self.network, reason)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the trial, if it goes on still: the export itself is about to tell."""
        self._end()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._end()

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def main(task: IO[bytes]) -> int:
    """Export the network with its first weights and compare; returns 0, or prints a line and returns FAILED."""
    from pipeline.training.building import make_network
    from pipeline.training.onnx_export import export_onnx

    given = np.load(task, allow_pickle=False)
    config = RunConfig.from_mapping(json.loads(given["config"].item()))
    spec = DataSpec.from_json(given["spec"].item())
    network = make_network(config, spec)
    with tempfile.TemporaryDirectory() as folder:
        try:
            export_onnx(network, spec, Path(folder) / "network.onnx", given["examples"])
        except Exception as error:  # whatever the exporter meets, it is the network that it cannot take
            print(in_words(error, config.network))
            return FAILED
    return 0


def refusal(network: str, reason: str) -> OwnCodeError:
    """What ends the training of a network that cannot be exported."""
    return OwnCodeError(
        f"network {network} cannot be exported: {reason}; --model_name '' trains it all the same, without a model"
    )


def in_words(error: BaseException, network: str) -> str:
    """What the exporter met, in a line: the first cause, with the line of the user's code that led to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next(iter(ESCAPES.sub("", str(error)).strip().splitlines()), "")
    return f"{own_code.place_of(error, network)}: {type(error).__name__}: {line[:300]}"


if __name__ == "__main__":
    raise SystemExit(main(sys.stdin.buffer))
