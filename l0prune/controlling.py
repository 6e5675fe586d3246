"""Controllers by the name that settings give them."""

from l0prune.config import ControllerConfig
from l0prune.controller import AugmentedLagrangian, Controller, ProportionalIntegral
from l0prune.gates import Gates
from l0prune.projected import ProjectedController


def make_controller(target_sparsity: float, config: ControllerConfig, gates: Gates) -> Controller:
    """The controller that the settings name, on the gates' device, with the gates prepared for it.

    Args:
        target_sparsity: The target once the warm-up is over.
        config: Kind, schedule and rates.
        gates: What it controls.
    """
    if config.kind == "projected":
        units = [group.units for group in gates.groups]
        controller: Controller = ProjectedController(target_sparsity, config, units)
    else:
        kinds = {"lagrangian": AugmentedLagrangian, "pi": ProportionalIntegral}
        controller = kinds[config.kind](target_sparsity, config)
    controller.to(gates.log_alpha.device)
    controller.begin(gates)
    return controller
