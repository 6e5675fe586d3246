"""Networks with one difficulty each, their inputs, and a check that every cut that is found in them is exact."""

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from random_plans import random_cut
from torch import Tensor, nn

from l0prune import GatedModel
from l0prune.discovery.found import Discovery
from l0prune.discovery.search import discover
from l0prune.measuring.count import macs
from l0prune.proof.exactness import relative_difference
from l0prune.proof.trials import find_faults
from l0prune.size.macs import mac_size
from l0prune.support.modules import model_shapes

Forward = Callable[..., Any]


class Net(nn.Module):
    """Layers by name, and a forward pass written as a function of them."""

    def __init__(self, forward: Forward, **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = forward

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self, *args, **kwargs)


@torch.no_grad()
def filled(model: nn.Module) -> nn.Module:
    """In float64 and with no parameter or statistic at a value where an error could hide."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in [*model.double().named_parameters(), *model.named_buffers()]:
        if tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype) * 0.5)
            if name.endswith("running_var"):
                tensor.abs_().add_(0.1)
    return model.eval()


def check(model: nn.Module, observe: Callable[[nn.Module], Any], groups: str, alone: Sequence[str] = ()) -> Discovery:
    """Discover, compare with what is expected, and try every cut on the way to random plans.

    Args:
        model: A filled model.
        observe: Its forward pass on example inputs.
        groups: What has to be found: "4 conv, 6 head".
        alone: Words in the reasons for which hidden units are left alone, each in one, and one in each.
    """
    found = discover(model, observe)
    assert names_of(found) == Counter(groups.split(", ") if groups else ())
    reasons = {each.reason for each in found.left_alone if not each.interface}
    assert all(sum(words in reason for reason in reasons) == 1 for words in alone), reasons
    assert len(reasons) == len(alone), reasons
    if groups:
        cuts_are_exact(model, observe, found)
    return found


def names_of(found: Discovery) -> Counter[str]:
    return Counter(f"{group.units} {group.kind}" for group in found.groups)


@torch.no_grad()
def cuts_are_exact(model: nn.Module, observe: Callable[[nn.Module], Any], found: Discovery, seeds: int = 2) -> None:
    """Gated = pruned, and counted = planned, for random plans over all groups at once."""
    before = copy.deepcopy(model)
    cost = mac_size(model, found.groups, found.trace)
    # torch's counter knows no recurrent layers; what it misses must not depend on the plan.
    recurrent = any(isinstance(module, nn.RNNBase | nn.RNNCellBase) for module in model.modules())
    dense = observe(model)
    assert recurrent or cost.total == macs(lambda: observe(model))
    gated = GatedModel(model, found.groups, target_sparsity=1e-9).eval()
    assert find_faults(gated, observe, tolerance=1e-5)[1] == {}
    for seed in range(seeds):
        expected, pruned, plan, kept = random_cut(gated, observe, np.random.default_rng(seed))
        assert plan.pruned_shapes() == model_shapes(pruned)
        assert relative_difference(expected, observe(pruned)) < 1e-9
        assert relative_difference(dense, expected) > 1e-6
        assert recurrent or cost.exact(kept) == macs(lambda pruned=pruned: observe(pruned))
    same_model(gated.detach(), before)


def same_model(model: nn.Module, before: nn.Module) -> None:
    """The same classes, modes and values under the same names."""
    kinds = [(path, type(module).__name__, module.training) for path, module in model.named_modules()]
    assert kinds == [(path, type(module).__name__, module.training) for path, module in before.named_modules()]
    state, old = model.state_dict(), before.state_dict()
    assert state.keys() == old.keys()
    assert all(torch.equal(tensor, old[name]) for name, tensor in state.items())


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


ROWS, IMAGES, WAVES, STEPS = draw(4, 3), draw(2, 3, 6, 6), draw(2, 3, 9), draw(2, 5, 3)
TOKENS = torch.randint(0, 11, (2, 5), generator=torch.Generator().manual_seed(2))
PADDED = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


@dataclass
class Case:
    """A network to build, its inputs, and what has to be found in it."""

    forward: Forward
    layers: Callable[[], dict[str, Any]]
    inputs: tuple[Any, ...]
    groups: str
    alone: tuple[str, ...] = ()


def on_rows(forward: Forward, groups: str, *alone: str, **layers: Callable[[], Any]) -> Case:
    return _case(forward, (ROWS,), groups, alone, layers)


def on_images(forward: Forward, groups: str, *alone: str, **layers: Callable[[], Any]) -> Case:
    return _case(forward, (IMAGES,), groups, alone, layers)


def on_steps(forward: Forward, groups: str, *alone: str, **layers: Callable[[], Any]) -> Case:
    return _case(forward, (STEPS,), groups, alone, layers)


def _case(forward: Forward, inputs: tuple, groups: str, alone: tuple, layers: dict[str, Callable[[], Any]]) -> Case:
    return Case(forward, lambda: {name: make() for name, make in layers.items()}, inputs, groups, alone)


def linear(inside: int, outside: int) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(inside, outside)


def conv(inside: int, outside: int, kernel: int = 1, **more: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(inside, outside, kernel, **more)


def up(inside: int, outside: int, **more: Any) -> Callable[[], nn.Module]:
    return lambda: nn.ConvTranspose2d(inside, outside, 2, stride=2, **more)


def parameter(*shape: int) -> Callable[[], nn.Parameter]:
    return lambda: nn.Parameter(torch.empty(shape))


def chain(m: Any, x: Tensor) -> Tensor:
    """a, a norm or another layer b, a nonlinearity, c."""
    return m.c(torch.tanh(m.b(m.a(x))))


def check_case(case: Case) -> None:
    model = filled(Net(case.forward, **case.layers()))
    check(model, lambda network: network(*case.inputs), case.groups, case.alone)
