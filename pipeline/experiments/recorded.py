"""What a run's own folder knows of it, as a comparison takes it."""

from pipeline import divergence
from pipeline.analysis.comparison import Run
from pipeline.recording.resuming import recorded_config
from pipeline.tracking.folders import RunFolder, data_digest, values_of


def run_of(folder: RunFolder) -> Run:
    """What a run's own folder knows of it, curves included."""
    events = folder.events()
    diverged = divergence.recorded(events)
    start, end, state = folder.started(), folder.ended(), folder.state()
    assert start is not None
    values = values_of(events)
    return Run(
        run_id=state.get("run_id", ""),
        name=start["tags"]["mlflow.runName"],
        status=end["status"] if end else "RUNNING",
        started_ms=start["time"],
        params={name: str(value) for name, value in recorded_config(folder).as_dict().items()},
        tags=start["tags"] | ({divergence.TAG: diverged} if diverged else {}),
        metrics={name: steps[max(steps)] for name, steps in values.items()},
        data=data_digest(events) or "",
        curves=values,
    )
