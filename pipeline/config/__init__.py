"""What a training is made of: its knobs, their meaning, range and role; code of a user's own, named by import path."""

from pipeline.config.run_config import (
    AUTO,
    COMMON,
    DATASETS,
    IN_MNISTS_FORMAT,
    OWNERS,
    UNREGISTERED,
    RunConfig,
    class_of,
    default_data_dir,
)
from pipeline.config.sample import KNOBS, ROLES, as_recorded, problems_of
from pipeline.config.words import ConfigError

__all__ = [
    "AUTO",
    "COMMON",
    "DATASETS",
    "IN_MNISTS_FORMAT",
    "KNOBS",
    "OWNERS",
    "ROLES",
    "UNREGISTERED",
    "ConfigError",
    "RunConfig",
    "as_recorded",
    "class_of",
    "default_data_dir",
    "problems_of",
]
