"""Time as a metric: measured on the device at hand, predicted while gates learn, and measured again at the cut."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from l0prune.distributed import world
from l0prune.errors import ConfigError
from l0prune.size.latency.meet import meet_target
from l0prune.size.latency.model import POOR, LatencyModel, measure_latency
from l0prune.size.latency.target import sparsity_for
from l0prune.size.metric import Cut, Facts, Metric, Subject, Target, Wish, register_metric
from l0prune.size.polynomial import SizeModel


class Latency(Metric):
    """Milliseconds of the subject's input on the model's device."""

    name, noun = "latency", "latency"
    units: Mapping[str, float] = {"ms": 1.0, "s": 1000.0, "us": 0.001}
    """In milliseconds."""
    measured_at_cut = True

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
        return meet_target(cut, subject.model, subject.observe, subject.deploy, left, subject.note, at_most=at_most)

    def left(self, target: Target, kept: np.ndarray, facts: Mapping[str, Any]) -> float:
        """As measured at the cut."""
        return facts["latency_after_ms"] / facts["latency_before_ms"]

    def _measured(self, subject: Subject) -> LatencyModel:
        if (processes := world().size) > 1:
            hint = "run without torchrun, or prune for the metric macs"
            raise ConfigError("latency is measured in one process", got=f"{processes} processes", hint=hint)
        subject.note("measuring the latency of pruned copies")
        latency = measure_latency(
            subject.model,
            subject.groups,
            subject.observe,
            subject.trace,
            deploy=subject.deploy,
            round_to=None if subject.round_to == "auto" else subject.round_to,
            cache=subject.cache,
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
