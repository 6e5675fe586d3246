"""The metrics that are counted one by one: parameters, multiply-accumulates, residual blocks."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from l0prune.errors import ConfigError, GroupError, TraceError
from l0prune.size.macs import mac_size
from l0prune.size.metric import Metric, Subject, Target, register_metric
from l0prune.size.parameters import parameter_size
from l0prune.size.polynomial import SizeModel

COUNTS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9}
"""Units of what is counted one by one."""


class _Parameters(Metric):
    name, noun, units = "params", "parameters", COUNTS

    def size(self, subject: Subject) -> SizeModel:
        return subject.parameters or parameter_size(subject.model, subject.groups)


class _LayerParameters(Metric):
    """For networks whose parameters are mostly out of reach, a table of tokens for example."""

    name, noun, units = "layer-params", "parameters of layers that hold units", COUNTS

    def size(self, subject: Subject) -> SizeModel:
        return parameter_size(subject.model, subject.groups, within_reach=True)


class _Blocks(Metric):
    """For depth alone: residual blocks, or branches of them, each of which counts 1."""

    name, noun = "blocks", "residual blocks"

    def size(self, subject: Subject) -> SizeModel:
        counted = {((g, 1),): 1 for g, group in enumerate(subject.groups) if group.owns_tensors}
        if not counted:
            hint = 'ask for depth, `depth="blocks"`, or choose another metric'
            raise ConfigError("there are no blocks to count", where=self.name, hint=hint)
        return SizeModel(subject.groups, counted, counts=self.noun)


class _MultiplyAccumulates(Metric):
    name, noun, units = "macs", "multiply-accumulates", COUNTS

    def size(self, subject: Subject) -> SizeModel:
        try:
            return subject.macs or mac_size(subject.model, subject.groups, subject.trace)
        except (TraceError, GroupError) as error:
            raise ConfigError("metric cannot be counted", got=repr(self.name), hint=str(error)) from error

    def left(self, target: Target, kept: np.ndarray, facts: Mapping[str, Any]) -> float:
        if "macs_after" in facts:
            # A report quotes them for another length, as whole numbers: its figures must agree with each other.
            return facts["macs_after"] / facts["macs_before"]
        return super().left(target, kept, facts)


register_metric(_Parameters())
register_metric(_LayerParameters())
register_metric(_MultiplyAccumulates())
register_metric(_Blocks())
