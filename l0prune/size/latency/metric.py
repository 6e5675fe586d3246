"""Time as a metric: measured on the device at hand, predicted while gates learn, and measured again at the cut."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from torch import nn

from l0prune.distributed import world
from l0prune.errors import ConfigError
from l0prune.measuring import linear_layers_in_int8
from l0prune.size.latency.meet import meet_target
from l0prune.size.latency.model import POOR, LatencyModel, measure_latency
from l0prune.size.latency.target import sparsity_for
from l0prune.size.metric import Cut, Facts, Metric, Subject, Target, register_metric
from l0prune.size.polynomial import SizeModel
from l0prune.size.wish import Wish


class Latency(Metric):
    """Milliseconds of the subject's input on the model's device.

    Args:
        dtype: None for the model's own; "int8" for linear layers that compute in int8 by dynamic quantisation, on the
            CPU. Weights stay what they are: only the copies that are timed are quantised.
    """

    noun = "latency"
    units: Mapping[str, float] = {"ms": 1.0, "s": 1000.0, "us": 0.001}
    """In milliseconds."""
    measured_at_cut = True

    def __init__(self, dtype: Literal["int8"] | None = None) -> None:
        self.dtype = dtype
        self.name = "latency" if dtype is None else f"latency-{dtype}"

    def amount(self, number: float, unit: str) -> Wish:
        """Milliseconds as measured, whatever the fit says."""
        return Wish(ms=number * self.units[unit])

    def check(self, wish: Wish) -> None:
        """Any of the three serves, but no two times."""
        if wish.speedup is not None and wish.ms is not None:
            raise ConfigError("two targets", got="target_speedup and target_ms", expected="one of them")
        for name, value, least in (("target_speedup", wish.speedup, 1.0), ("target_ms", wish.ms, 0.0)):
            if value is not None and not value > least:
                raise ConfigError(f"{name} out of range", got=value, expected=f"above {least:g}")

    def size(self, subject: Subject) -> SizeModel:
        """In femtoseconds, shown in ms."""
        return self._measured(subject).size

    def target(self, subject: Subject, wish: Wish) -> Target:
        """Measure pruned copies, which takes a while, unless the subject's cache knows them."""
        self.check(wish)
        latency = self._measured(subject)
        asked, sparsity = sparsity_for(latency, wish)
        facts = {"latency_model_error": latency.error, "round_to": latency.round_to}
        return Target(
            metric=self,
            size=latency.size,
            sparsity=sparsity,
            asked=asked,
            round_to=latency.round_to,
            facts=facts,
            kept=latency.kept,
            alone=wish.alone,
        )

    def meet(self, cut: Cut, target: Target, subject: Subject) -> Facts:
        """Move the budget until the pruned network is as fast as asked."""
        left, at_most = 1 - target.asked, not target.alone
        deploy = self._deploy(subject)
        return meet_target(cut, subject.model, subject.observe, deploy, left, subject.note, at_most=at_most)

    def left(self, target: Target, kept: np.ndarray, facts: Mapping[str, Any]) -> float:
        """As measured at the cut."""
        return facts["latency_after_ms"] / facts["latency_before_ms"]

    def _deploy(self, subject: Subject) -> Callable[[nn.Module], nn.Module]:
        """What gives a model the form that is timed."""
        deploy = subject.deploy or (lambda network: network)
        if self.dtype is None:
            return deploy

        def quantised(network: nn.Module) -> nn.Module:
            return linear_layers_in_int8(deploy(network))

        quantised.form = " ".join(filter(None, (getattr(deploy, "form", ""), self.dtype)))  # type: ignore[attr-defined]
        return quantised

    def _measured(self, subject: Subject) -> LatencyModel:
        if (processes := world().size) > 1:
            hint = "run without torchrun, or prune for the metric macs"
            raise ConfigError("latency is measured in one process", got=f"{processes} processes", hint=hint)
        device = next(subject.model.parameters()).device
        if self.dtype == "int8" and device.type != "cpu":
            raise ConfigError("int8 is measured on the CPU", where=self.name, got=str(device), expected="cpu")
        subject.note("measuring the latency of pruned copies")
        # A run's own file is its own; elsewhere each form has a file.
        rename = self.dtype is not None and not subject.resumed
        cache = [path.with_stem(f"{path.stem}-{self.dtype}") for path in subject.cache] if rename else subject.cache
        latency = measure_latency(
            subject.model,
            subject.groups,
            subject.observe,
            subject.trace,
            deploy=self._deploy(subject),
            round_to=None if subject.round_to == "auto" else subject.round_to,
            cache=cache,
            resumed=subject.resumed,
            note=subject.note,
        )
        if latency.error > POOR:
            subject.note(
                f"times vary by {latency.error:.0%} from what widths explain, so the prediction is poor: is the "
                "machine busy, or the input too small? The target is met as measured at the cut, and the next run "
                "measures again"
            )
        return latency


register_metric(Latency())
register_metric(Latency("int8"))
