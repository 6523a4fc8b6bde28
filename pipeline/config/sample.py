"""The sample's knobs and their roles; what is wrong with any values, and how they are recorded."""

import contextlib
from collections.abc import Mapping

from pipeline.config.own_code import OwnCodeError
from pipeline.config.roles import role_of
from pipeline.config.run_config import RunConfig, class_with_knobs_of
from pipeline.config.words import ConfigError, kind_of
from pipeline.values import exactly

KNOBS = class_with_knobs_of("mnist", "mlp").model_fields
ROLES = {name: role_of(field) for name, field in KNOBS.items()}


def problems_of(values: Mapping[str, object]) -> list[str]:
    """What is wrong with the knobs, a line for each."""
    try:
        RunConfig.from_mapping(values)
    except ConfigError as error:
        return error.problems
    except OwnCodeError as error:
        return [str(error)]
    return []


def as_recorded(params: Mapping[str, str]) -> dict[str, str]:
    """Params as our own records have them: of a knob `1e-3` as `0.001`; what is no knob's value stays as it is."""
    recorded = dict(params)
    for name in KNOBS.keys() & params.keys():
        with contextlib.suppress(ValueError):
            recorded[name] = str(exactly(params[name], kind_of(KNOBS[name])))
    return recorded
