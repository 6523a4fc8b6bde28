"""One run's record, from its start to its end.

Nothing here waits for a server or imports MLflow: everything goes into the run's folder, and the uploader is told.
"""

import contextlib
import os
import shutil
import traceback
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from pipeline.redaction import without_secrets
from pipeline.signals import Interrupted, last_words, uninterrupted
from pipeline.tracking.checkout import Checkout, checkout
from pipeline.tracking.journal import Journal
from pipeline.tracking.lines import as_text, as_texts
from pipeline.tracking.provenance import git_tags, installed
from pipeline.tracking.uploader import Uploader


class Run:
    """A run's record, the author of all its events. `with run:` owns how it ends.

    Left without an error the run is FINISHED, by a signal KILLED, by anything else FAILED, with the reason as a tag and
    the traceback as an artifact. What never began, and what has its end already, is left as it is.

    Attributes:
        began: whether it was started or resumed here.
    """

    def __init__(self, journal: Journal, uploader: Uploader) -> None:
        self.journal, self.uploader = journal, uploader
        self.folder = journal.folder
        self.began = False
        self._last_words = contextlib.ExitStack()

    @property
    def is_open(self) -> bool:
        """Whether it has begun and not ended."""
        return self.journal.count > 0 and not self.journal.is_closed

    def start(
        self,
        experiment_name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        *,
        parent: str = "",
        datasets: Sequence[Mapping[str, Any]] = (),
        code: Checkout | None = None,
        adopt: bool = True,
    ) -> None:
        """Open the record.

        Args:
            experiment_name: where it belongs, unless `mlflow run` has said so in the environment.
            params: what was chosen.
            tags: what it is; what git says of the code is added.
            parent: name of the folder of the run that this one belongs to, or nothing.
            datasets: MLflow's dataset inputs.
            code: the tree of the code that runs; None: of this package.
            adopt: whether it is the run that `mlflow run` has created for this process, if there is one.
        """
        environ = os.environ
        self.began = True
        self._append(
            "start",
            run_key=uuid.uuid4().hex,
            mlflow_run_id=environ.get("MLFLOW_RUN_ID") if adopt else None,
            experiment_id=environ.get("MLFLOW_EXPERIMENT_ID"),
            experiment_name=environ.get("MLFLOW_EXPERIMENT_NAME") or experiment_name,
            params=dict(params),
            parent=parent,
            tags=as_texts({**(code.tags() if code else git_tags()), **tags}),
        )
        if datasets:
            self._append("dataset", inputs=list(datasets))

    def resume(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Open the record again; `params` are those that changed."""
        self.began = True
        self._append("resume", params=dict(params), tags=as_texts(tags))

    def provenance(self, code: Checkout | None = None) -> None:
        """Record the packages, and as a diff what the commit (of this package, or of the given code) does not hold."""
        self.text_artifact("packages.txt", "".join(f"{line}\n" for line in installed()))
        if diff := (code or checkout()).diff:
            path = self.folder.artifacts / "uncommitted.diff"
            path.write_bytes(diff)
            self.artifact(path)

    def params(self, params: Mapping[str, Any]) -> None:
        """Record params that turn up on the way, as texts; one that has a value already keeps it in MLflow."""
        self._append("params", params=as_texts(params))

    def metrics(
        self, values: Mapping[str, Any], step: int, time_ms: int | None = None, not_finite: Mapping[str, float] = {}
    ) -> None:
        """Record metrics of a step, those that did not stand when the journal was opened; see `Journal.metrics`.

        What is no number is a tag.
        """
        numbers, texts = sorted_out(values)
        self.journal.metrics(numbers, int(step), time_ms, not_finite)
        if texts:
            self.tags(texts)
        self.uploader.notify()

    def artifact(self, path: Path, source: str = "") -> None:
        """Record a finished file or folder below the folder's `artifacts`, and where it was taken from, if it was."""
        self.journal.artifact(path, source)
        self.uploader.notify()

    def copied_artifact(self, source: Path, name: str = "") -> None:
        """Copy a file or folder below `artifacts`, under its own name or the one given, and record it.

        Raises:
            ValueError: if the name leads out of there.
        """
        target = self.folder.artifacts / as_text(name or source.name)
        if not target.resolve().is_relative_to(self.folder.artifacts.resolve()):
            raise ValueError(f"name {name!r} leads out of the run's artifacts; give one like figures/curve.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target, dirs_exist_ok=True) if source.is_dir() else shutil.copy2(source, target)
        self.artifact(target)

    def remove_artifact(self, path: Path) -> None:
        """Take an artifact back, here and in MLflow."""
        self._append("removal", path=str(path.relative_to(self.folder.artifacts)))
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def text_artifact(self, name: str, content: str) -> None:
        """Write and record a text file."""
        path = self.folder.artifacts / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, "utf-8", "replace")
        self.artifact(path)

    def tags(self, tags: Mapping[str, Any]) -> None:
        """Record tags that turn up on the way, as texts."""
        self._append("tags", tags=as_texts(tags))

    def describe(self, description: str) -> None:
        """Say what the run is and gave, where MLflow shows it beside the run."""
        self.tags({"mlflow.note.content": description})

    def model(
        self, network: Path, example: Path, model_name: str, tags: dict[str, str], description: str = "", spec: str = ""
    ) -> None:
        """Record the network (an ONNX file in the folder), to be registered under the name unless that is empty.

        Args:
            network, example: files in the folder.
            model_name: the registered model.
            tags, description: of the version.
            spec: what the network takes, as whoever registers it reads it.
        """
        paths = {
            "network": str(network.relative_to(self.folder.path)),
            "example": str(example.relative_to(self.folder.path)),
        }
        self._append("model", model_name=model_name, tags=tags, description=description, spec=spec, **paths)

    def end(self, status: str, reason: str = "") -> None:
        """Close the record, if it is open: FINISHED, FAILED or KILLED."""
        if self.is_open:
            tags = {"failure_reason": without_secrets(as_text(reason))} if reason else {}
            self._append("end", status=status, tags=tags)

    def end_by(self, error: BaseException | None) -> None:
        """Close the record, if it is open, as what ended the work says; None: nothing did but its end."""
        if error is None:
            self.end("FINISHED")
        elif isinstance(error, Interrupted | KeyboardInterrupt):
            self.end("KILLED", str(error) or "Ctrl-C")
        elif self.is_open:
            with contextlib.suppress(Exception):  # a full disk may be the very reason
                self.text_artifact("traceback.txt", without_secrets("".join(traceback.format_exception(error))))
            self.end("FAILED", f"{type(error).__name__}: {as_text(error)}")

    def __enter__(self) -> "Run":
        """Be responsible for the end, also should a second signal leave no time for more."""
        self._last_words.enter_context(last_words(lambda reason: self.end("KILLED", reason)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._last_words:
            try:
                with uninterrupted():
                    self.end_by(error)
            except Interrupted as interruption:  # a signal in this very moment
                self.end("KILLED", str(interruption))
                if error is None:
                    raise

    def _append(self, kind: str, **content: Any) -> None:
        self.journal.append_or_hold(kind, **content)
        self.uploader.notify()


def sorted_out(metrics: Mapping[Any, Any]) -> tuple[dict[str, float], dict[str, str]]:
    """The values that are numbers, and the others as texts."""
    if {*map(type, metrics.values())} <= {float} and {*map(type, metrics)} <= {str}:  # as almost always
        return dict(metrics), {}
    values, texts = {}, {}
    for name, value in metrics.items():
        try:
            values[as_text(name)] = float(value)
        except (TypeError, ValueError, RuntimeError, OverflowError):  # a text, a tensor of several elements, 10**400
            texts[as_text(name)] = as_text(value)
    return values, texts
