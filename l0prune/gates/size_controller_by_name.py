"""Size controllers by the name that settings give them."""

import numpy as np

from l0prune.config import ControllerConfig, ElasticConfig
from l0prune.errors import ConfigError
from l0prune.gates.elastic import ElasticController
from l0prune.gates.gates import Gates
from l0prune.gates.projected import ProjectedController
from l0prune.gates.several_targets import several
from l0prune.gates.size_controllers import AugmentedLagrangian, ProportionalIntegral, SizeController


def size_controller(
    target_sparsity: float,
    config: ControllerConfig,
    gates: Gates,
    *,
    elastic: ElasticConfig | None = None,
    start: np.ndarray | None = None,
    prior: np.ndarray | None = None,
) -> SizeController:
    """The controller that the settings name, on the gates' device, with the gates prepared for it.

    Args:
        target_sparsity: The target once the warm-up is over.
        config: Kind, schedule and rates.
        gates: What it controls.
        elastic: The sizes of an elastic run; None for one size.
        start: (N,) importances that it starts from, where it goes by any.
        prior: (N,) importances that it goes by where the loss has no gradient.

    Raises:
        ConfigError: There is a start, and the controller goes by none. Or there are several targets, or a controller
            that learns no order, and the run is elastic.
    """
    ends = elastic.ends if elastic is not None else None
    units = [group.units for group in gates.groups]
    if ends is not None and gates.more:
        raise ConfigError("an elastic run has one target", got="several", hint="cut it to several targets afterwards")
    if ends is not None and config.kind != "projected":
        raise ConfigError("the controller gives no order of sizes", got=config.kind, expected="projected")
    if start is not None and config.kind != "projected":
        raise ConfigError("the controller takes no start", got=config.kind, expected="projected")
    if gates.more:
        controller: SizeController = several(target_sparsity, config, gates, start=start, prior=prior)
    elif elastic is not None and ends is not None:
        controller = ElasticController(target_sparsity, elastic, config, units, start=start, prior=prior)
    elif config.kind == "projected":
        controller = ProjectedController(target_sparsity, config, units, start=start, prior=prior)
    else:
        kinds = {"lagrangian": AugmentedLagrangian, "pi": ProportionalIntegral}
        controller = kinds[config.kind](target_sparsity, config)
    controller.to(gates.log_alpha.device)
    controller.begin(gates)
    return controller
