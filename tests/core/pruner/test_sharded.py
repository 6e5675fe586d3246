"""Wrapped models that torch's `fully_shard` has spread over two processes, which meet by gloo."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

import l0prune
from l0prune.config import CompactionConfig, ControllerConfig
from l0prune.errors import TraceError, TrainingError
from l0prune.proof.exactness import relative_difference

# Most of these runs are too short to reach their target.
pytestmark = pytest.mark.filterwarnings("ignore:the gates are at an expected sparsity:UserWarning")

STEPS = 12
WAYS = ("projected", "lagrangian")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(8, 16), nn.Linear(16, 4)
        self.blocks = nn.ModuleList(Block() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for block in self.blocks:
            x = block(x)
        return self.leave(x)


def batch(number: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(6, 8, generator=generator), torch.randint(0, 4, (6,), generator=generator)


def wrapped(way: str, **more: object) -> l0prune.pruner.L0Pruner:
    torch.manual_seed(0)
    settings = {"total_steps": STEPS} if way == "projected" else {"controller": ControllerConfig(kind="lagrangian")}
    return l0prune.wrap(Network(), batch(0)[0], target_sparsity=0.5, round_to=1, **settings | more)  # type: ignore[arg-type]


def train(pruner: l0prune.pruner.L0Pruner, rank: int, share: int) -> None:
    """Each process sees its share of each batch."""
    optimizer = torch.optim.SGD(pruner.parameter_groups(lr=0.1, momentum=0.9, adaptive=False))
    torch.manual_seed(rank)
    for number in range(STEPS):
        x, y = (part.chunk(share)[rank] for part in batch(number))
        (F.cross_entropy(pruner.model(x), y) + pruner.penalty()).backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step()


def shard(model: nn.Module) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,))
    for block in model.blocks:  # type: ignore[union-attr]
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def replica(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    for way in WAYS:
        pruner = wrapped(way)
        shard(pruner.model)
        train(pruner, rank, 2)
        x = batch(99)[0]
        gated = pruner.model.eval()(x)
        pruned = pruner.finalize()
        gap = relative_difference(gated, pruned(x))
        again = pruner.model(x)
        pruner.model.train()(x).sum().backward()
        held = {
            "plan": pruner.plan.to_json(),
            "state": pruned.state_dict(),
            "gap": gap,
            "gates": pruner.gated.gates.log_alpha,
            "same": torch.equal(gated, again),
            "whole": pruner.dense().state_dict(),
            "parts": [tuple(p.to_local().shape) for p in pruner.model.parameters() if hasattr(p, "to_local")],
        }
        torch.save(held, folder / f"{way}-{rank}.pt")
    plain = Network()
    shard(plain)
    with pytest.raises(TraceError, match="fully_shard after wrap"):
        l0prune.wrap(plain, batch(0)[0], target_sparsity=0.5)
    compacting = wrapped("projected", compaction=CompactionConfig(enabled=True))
    shard(compacting.model)
    with pytest.raises(TrainingError, match="sharded model"):
        compacting.step()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have trained together, a file for each process and way."""
    folder = tmp_path_factory.mktemp("sharded")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), folder], env=environment, stderr=subprocess.PIPE)
        for rank in range(2)
    ]
    told = [process.communicate(timeout=300)[1].decode() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(told)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_processes_hold_parts_and_finalize_to_one_network(way: str, replicas: Path) -> None:
    one, other = (torch.load(replicas / f"{way}-{rank}.pt") for rank in range(2))
    assert one["plan"] == other["plan"]
    assert torch.equal(one["gates"], other["gates"])
    for name, weight in one["state"].items():
        assert type(weight) is Tensor
        assert torch.equal(weight, other["state"][name])
    # Each holds half of each weight, and what is made of them stays when the model goes on.
    assert (12, 16) in one["parts"]
    for held in (one, other):
        assert held["gap"] < 1e-5
        assert held["same"]


def test_finalize_gives_what_one_process_gives_on_the_same_batches(replicas: Path) -> None:
    pruner = wrapped("projected")
    train(pruner, 0, 1)
    pruned, both = pruner.finalize(), torch.load(replicas / "projected-0.pt")
    assert pruner.plan.to_json() == both["plan"]
    for name, weight in pruned.state_dict().items():
        assert relative_difference(weight, both["state"][name]) < 1e-5, name
    for name, weight in pruner.dense().state_dict().items():
        assert relative_difference(weight, both["whole"][name]) < 1e-5, name


if __name__ == "__main__":
    replica(int(sys.argv[1]), Path(sys.argv[2]))
