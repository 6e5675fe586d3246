"""What an elastic run asks for in one's own training loop, and what its cuts need."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from l0prune.calibration import as_batches, has_statistics, renew_statistics, run_on
from l0prune.config import ControllerConfig, ElasticConfig
from l0prune.errors import ConfigError
from l0prune.size import Metric, metric_named


def elastic_of(given: object) -> ElasticConfig | None:
    """The ends of an elastic run; None where it has one size.

    Raises:
        ConfigError: They are no two shares, the smallest first.
    """
    if given is None or (isinstance(given, ElasticConfig) and given.ends is not None):
        return given
    ends = list(given) if isinstance(given, tuple | list) else []
    numbers = all(isinstance(share, int | float) and not isinstance(share, bool) for share in ends)
    if len(ends) != len(("smallest", "largest")) or not numbers:
        expected = "the smallest and the largest share of the size, (0.25, 1.0) for example"
        raise ConfigError("elastic has the wrong type", got=repr(given), expected=expected)
    return ElasticConfig(smallest=float(ends[0]), largest=float(ends[1]))


def check_elastic(metric: str | Metric, controller: ControllerConfig, compaction: object, **targets: object) -> None:
    """Refuse what does not go with an elastic run.

    Args:
        metric: What its sizes are of.
        controller: Its settings.
        compaction: As `wrap` takes it.
        targets: Other targets by name; None where they are not given.

    Raises:
        ConfigError: There is another target, the size is measured, the controller learns no order, or units are to
            leave during training.
    """
    other = next((name for name, value in targets.items() if value is not None), None)
    if other is not None:
        raise ConfigError("two targets", got=f"elastic and {other}", expected="one of them")
    chosen = metric_named(metric)
    if chosen.measured_at_cut:
        raise ConfigError("an elastic run needs a size that is counted", where="metric", got=chosen.name)
    if getattr(controller, "kind", "projected") != "projected":
        raise ConfigError("the controller gives no order of sizes", got=controller.kind, expected="projected")
    if compaction and getattr(compaction, "enabled", True):
        what = "no unit leaves an elastic run: what is closed at one size is open at another"
        raise ConfigError(what, where="compaction", got=compaction, expected="None")


def renewed(
    pruned: nn.Module, batches: Iterable[Any] | None, loss: Callable[[nn.Module, Any], Any] | None
) -> nn.Module:
    """A cut of an elastic run whose batch norms, if it has any, have running statistics of its own.

    Raises:
        ConfigError: It has some, and there are no batches.
    """
    if not has_statistics(pruned):
        return pruned
    if batches is None:
        hint = "finalize(left=0.5, batches=[...]): a few batches are enough"
        raise ConfigError("the batch norms of a cut need batches", got="none", hint=hint)
    renew_statistics(pruned, as_batches(batches), lambda model, batch: run_on(model, batch, loss=loss))
    return pruned
