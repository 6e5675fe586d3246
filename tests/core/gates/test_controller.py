"""What both doors drive: nothing waits for the device from step to step, and a state says how much has left."""

import copy
from typing import Any

import pytest
import torch
from small_training import FAST, PUBLISHED, adam, batch, controller_of, make, train
from torch.nn import functional as F

from l0prune import ConfigError, ControllerConfig, TrainingError
from l0prune.config import CompactionConfig
from l0prune.gates import controller as controllers
from l0prune.gates import projected
from l0prune.support import TorchDispatchMode, operator_name

KINDS = {
    "projected": ControllerConfig(kind="projected", warmup_steps=8, look_steps=2, settle_steps=12),
    "lagrangian": PUBLISHED,
    "pi": ControllerConfig(kind="pi", warmup_steps=5),
}
WAITING = {"aten::_local_scalar_dense", "aten::equal", "aten::is_nonzero", "aten::nonzero", "aten::masked_select"}
"""Operators whose result, or its size, is read back from the device."""


class Waits(TorchDispatchMode):
    """Counts the operators that wait for the device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += operator_name(func) in WAITING
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_waits_for_no_device_but_every_tenth(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits() -> list[int]:
        pruner, counts = make(controller=KINDS[kind]), []
        optimizer = adam(pruner)
        for step in range(16):
            (F.cross_entropy(pruner.model.train()(batch(step)[0]), batch(step)[1]) + pruner.penalty()).backward()
            optimizer.step()
            optimizer.zero_grad()
            with Waits() as seen:
                pruner.step()
            counts.append(seen.count)
        return counts

    # A CPU is looked at each time.
    assert all(waits())
    for module in (controllers, projected):
        monkeypatch.setattr(module, "reading_waits", lambda tensor: True)
    assert [step for step, count in enumerate(waits()) if count] == [0, 10]


def test_a_step_that_is_not_finite_is_told_of_at_the_next_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controllers, "reading_waits", lambda tensor: True)
    pruner = make(controller=PUBLISHED)
    optimizer, controller = adam(pruner), controller_of(pruner)
    train(pruner, optimizer, 3)
    good = controller.controlled_now()
    with torch.no_grad():
        for tensor in controller.controlled():
            tensor.fill_(float("nan"))
    pruner.step()
    assert all(torch.equal(a, b) for a, b in zip(controller.controlled(), good, strict=True))
    with pytest.raises(TrainingError, match="non-finite: the loss was NaN or infinite: step 4"):
        controller.check()
    controller.check()


def test_what_a_bad_step_goes_back_to_moves_with_the_model() -> None:
    pruner = make(controller=PUBLISHED)
    pruner.model.to("meta")
    controller = controller_of(pruner)
    controller.put_back()
    assert {tensor.device.type for tensor in [*controller.last_good, controller.bad_steps]} == {"meta"}


COMPACTION = CompactionConfig(every_steps=2, patience=1, least_share=0.0)


def test_a_state_without_compaction_is_loaded_where_there_is_one() -> None:
    trained, resumed = make(), make(compaction=COMPACTION)
    train(trained, adam(trained), 6)
    saved = trained.model.state_dict()
    names = set(saved)
    resumed.model.load_state_dict(saved)
    assert set(saved) == names
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor)
    assert {name.rpartition(".")[2] for name in {*resumed.model.state_dict()} - names} == {"here", "looks", "reached"}


def test_a_state_with_compaction_is_loaded_without_one_as_long_as_nothing_has_left() -> None:
    trained = make(0.6, compaction=COMPACTION)
    whole = copy.deepcopy(trained.model.state_dict())
    train(trained, adam(trained), 20)
    assert len(controller_of(trained).gates.log_alpha) < 24
    make(0.6).model.load_state_dict(whole)
    line = r"^units have left the network whose state is loaded \(got \d+ of 24 units\); give `wrap` the compaction of"
    plain = make(0.6)
    before = copy.deepcopy(plain.model.state_dict())
    with pytest.raises(ConfigError, match=line):
        plain.model.load_state_dict(trained.model.state_dict())
    assert all(torch.equal(plain.model.state_dict()[name], tensor) for name, tensor in before.items())
    # Back to before the cut it does not go: what has left is not there any more.
    with pytest.raises(ConfigError, match=r"the state to load still has .*; wrap the dense model anew"):
        trained.model.load_state_dict(whole)


@pytest.mark.parametrize(("name", "wrong"), [("compaction", "yes"), ("compaction", FAST), ("controller", "projected")])
def test_settings_of_the_wrong_type(name: str, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} has the wrong type"):
        make(**{name: wrong})
