"""A run read back as a comparison takes it: from MLflow, or from its own folder."""

from typing import Any

from pipeline import divergence
from pipeline.comparing.groups import Run
from pipeline.config import as_recorded
from pipeline.recording.resuming import recorded_knobs
from pipeline.tracking.folders import data_digest, values_of
from pipeline.tracking.journal import RunFolder


def of_mlflow(run: Any) -> Run:
    """An MLflow run, without curves."""
    inputs = run.inputs.dataset_inputs if run.inputs else []
    metrics, tags = dict(run.data.metrics), dict(run.data.tags)
    if not all(divergence.is_finite(metrics.get(name, 0.0)) for name in divergence.LOSSES):
        tags.setdefault(divergence.TAG, "?")  # a run of somebody else's, or of an older day
    metrics.setdefault("seconds_per_epoch", metrics.get("epoch_seconds", float("nan")))
    # Params stay in MLflow as the run began.
    resumed = {name: tags[tag] for name in run.data.params if (tag := f"resumed.{name}") in tags}
    return Run(
        run_id=run.info.run_id,
        name=run.info.run_name or run.info.run_id,
        status=run.info.status,
        started_ms=run.info.start_time,
        params=as_recorded({**run.data.params, **resumed}),
        tags=tags,
        metrics={name: value for name, value in metrics.items() if value == value},
        data=inputs[0].dataset.digest if inputs else "",
        experiment_id=run.info.experiment_id,
    )


def of_folder(folder: RunFolder) -> Run:
    """What a run's folder knows of it, curves included; the run has begun."""
    events, start, end = folder.events(), folder.started(), folder.ended()
    assert start is not None
    diverged, values = divergence.recorded(events), values_of(events)
    return Run(
        run_id=folder.state().get("run_id", ""),
        name=start["tags"]["mlflow.runName"],
        status=end["status"] if end else "RUNNING",
        started_ms=start["time"],
        params=as_recorded({name: str(value) for name, value in recorded_knobs(events).items()}),
        tags=start["tags"] | ({divergence.TAG: diverged} if diverged else {}),
        metrics={name: value for name, steps in values.items() if (value := steps[max(steps)]) == value},
        data=data_digest(events) or "",
        curves=values,
    )
