"""What workers share: the process that they are forked from imports this, and is asked for nothing else."""

from pipeline.imports import gc_paused

with gc_paused():
    import pipeline.recording.epoch_logger
    import pipeline.recording.results
    import pipeline.training.fit
    import pipeline.training.news
    import pipeline.training.rehearsal  # noqa: F401
