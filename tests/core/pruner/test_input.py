"""What can be wrong about wrap(): one clear error each, and the model as it was."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_training import Net, adam, batch, make, train
from torch import Tensor, nn

from l0prune import (
    ConfigError,
    DataError,
    GateConfig,
    GroupError,
    L0Pruner,
    TargetError,
    TraceError,
    TrainingError,
    wrap,
)

# Most of these runs are too short to reach their target.
pytestmark = pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")
ADAPTER = r"l0prune\.adapters\.torch_pruning\.Pruner"
"""Where torch-pruning's names are."""


class Fixed(nn.Module):
    """Nothing between input and output."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.only(x)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"target_sparsity": 1.5}, TargetError, "out of range"),
        ({"target_sparsity": "0.5"}, TargetError, "not a number.*got '0.5'"),
        ({"target_sparsity": 0.999}, TargetError, "more than can be removed.*expected at most 0.9"),
        ({"target_sparsity": 0.999, "metric": "macs"}, TargetError, "multiply-accumulates"),
        (
            {"metric": "flops"},
            ConfigError,
            "unknown metric.*params, layer-params, .*, latency, latency-int8 or memory",
        ),
        ({"target_ms": 5.0}, ConfigError, "give one target.*target_sparsity and target_ms"),
        ({"target_sparsity": None, "target_ms": 5.0}, ConfigError, "target_ms needs the metric latency"),
        ({"target_sparsity": None}, ConfigError, "give one target.*got none"),
        ({"pruning_ratio": 0.5}, ConfigError, f"pruning_ratio.*expected target_sparsity.*{ADAPTER}"),
        ({"target_sparsity": None, "pruning_ratio": 0.5}, ConfigError, f"expected target_sparsity.*{ADAPTER}"),
        ({"ignored_layers": ["stem"]}, ConfigError, f"ignored_layers.*expected ignored\\).*{ADAPTER}"),
        ({"ignore": ["stem"]}, ConfigError, "no such argument: ignore; did you mean 'ignored'"),
        ({"ignored": ["stam"]}, GroupError, "no such module.*stam; did you mean 'stem'"),
        ({"ignored": "stam"}, GroupError, "no such module.*stam; did you mean 'stem'"),
        ({"ignored": 5}, GroupError, "no such module in the model: int"),
        ({"ignored": nn.Linear(2, 2)}, GroupError, "no such module"),
        ({"ignored": [nn.Linear(2, 2)]}, GroupError, "no such module"),
        ({"ignored": ["stem", "inner"]}, GroupError, "nothing in the model can be pruned: Net"),
        ({"time_limit": 0.0}, TraceError, "took too long.*groups="),
        ({"round_to": 2, "gates": GateConfig(round_to=4)}, ConfigError, "given twice"),
        (
            {"controller": {"warmup_steps": 3}},
            ConfigError,
            r"controller has the wrong type.*ControllerConfig\(\.\.\.\)",
        ),
        ({"gates": {"drop_rate": 0.1}}, ConfigError, r"gates has the wrong type.*GateConfig\(\.\.\.\)"),
        ({"output_transform": lambda y: None}, DataError, "no floating-point tensor to compare"),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    model = Net()
    names = list(model.state_dict())
    with pytest.raises(error, match=message):
        L0Pruner(model, batch()[0], **{"target_sparsity": 0.5, **settings})
    assert list(model.state_dict()) == names
    with pytest.raises(error, match=message):
        wrap(model, batch()[0], **{"target_sparsity": 0.5, **settings})


def test_what_to_ignore_may_be_one_module_or_its_name() -> None:
    for one in (lambda model: model.stem, lambda model: "stem", lambda model: [model.stem]):
        model = Net()
        pruner = wrap(model, batch()[0], target_sparsity=0.2, ignored=one(model))
        assert [group.name for group in pruner.inspection.groups] == ["inner"]


@pytest.mark.parametrize("model", [Fixed(), nn.ReLU()])
def test_a_model_without_anything_to_prune(model: nn.Module) -> None:
    with pytest.raises(GroupError, match=f"nothing in the model can be pruned: {type(model).__name__}"):
        wrap(model, torch.randn(2, 6), target_sparsity=0.5)


def layers(*more: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), *more)


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.*:FutureWarning", "ignore:.*torch.jit.script.*:DeprecationWarning"
)
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers(nn.LazyLinear(3)), TraceError, r"no shape yet: 2\.weight; run one batch"),
        (
            lambda: torch.jit.script(layers(nn.Linear(8, 3))),
            TraceError,
            "scripted module .*: RecursiveScriptModule; pass",
        ),
        (lambda: layers(torch.jit.script(nn.Linear(8, 3))), TraceError, "scripted module cannot be followed: 2; pass"),
        (lambda: layers(nn.Linear(8, 3)).to("meta"), DataError, r"on the meta device.*to_empty"),
    ],
    ids=["lazy", "scripted", "partly scripted", "meta"],
)
@pytest.mark.parametrize("groups", [None, ()])
def test_models_that_cannot_be_followed(
    make: Callable[[], nn.Module], error: type[Exception], message: str, groups: tuple[()] | None
) -> None:
    model = make()
    x = torch.randn(2, 6, device=next(model.parameters()).device)
    with pytest.raises(error, match=message):
        wrap(model, x, target_sparsity=0.5, groups=groups)


@pytest.mark.parametrize("inputs", [torch.randn(2, 3, 6, 6), (), {"y": torch.randn(2, 1, 6, 6)}])
def test_inputs_of_the_wrong_shape_or_name(inputs: Any) -> None:
    with pytest.raises(TraceError, match=r"the forward pass failed on the example inputs"):
        wrap(Net(), inputs, target_sparsity=0.5)


def test_inputs_on_another_device() -> None:
    with pytest.raises(DataError, match=r"another device than the model \(got meta, expected cpu"):
        wrap(Net(), batch()[0].to("meta"), target_sparsity=0.5)


def test_finalize_before_any_step() -> None:
    pruner = make()
    with pytest.raises(TrainingError, match="before any step"):
        pruner.finalize()
    with pytest.raises(TrainingError, match=r"call finalize\(\) first"):
        _ = pruner.report


def test_a_cut_before_the_target_is_reached_warns() -> None:
    pruner = make(0.5)
    train(pruner, adam(pruner), 1)
    with pytest.warns(UserWarning, match=r"expected sparsity of 0\.0\d\d, the target is 0\.500.*train longer"):
        pruner.finalize()
    assert pruner.report.expected_sparsity < 0.1
    train(pruner, adam(pruner), 200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner.finalize()
    assert pruner.report.expected_sparsity == pytest.approx(pruner.sparsity.expected)


def test_a_model_is_not_wrapped_twice() -> None:
    pruner = make()
    with pytest.raises(GroupError, match="has gates already"):
        wrap(pruner.model, batch()[0], target_sparsity=0.5)
