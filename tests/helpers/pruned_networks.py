"""Runs of small networks of transformers that were pruned at random, without training."""

from pathlib import Path

import torch
from l0prune_speech.families import SpeechNetwork, network_groups, observation_of, open_network
from tiny_networks import save_network

import l0prune
from l0prune.removal import apply_plan, make_plan
from l0prune.support import copied, model_shapes

UNITS = ("conv", "head", "ffn")


def pruned_network(teacher: str | Path, folder: Path, seed: int = 0) -> SpeechNetwork:
    """The run of a teacher, its weights scaled up, with a random number of units left in each group.

    Args:
        teacher: One of `tiny_networks.NETWORKS`, or a checkpoint's folder.
        folder: An empty one.
        seed: Of what is removed.
    """
    made = teacher if isinstance(teacher, Path) else save_network(teacher, folder / "teacher")
    network = open_network(str(made))
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in network.model.parameters():
            if parameter.requires_grad and parameter.ndim > 1:
                parameter.mul_(3)
            elif parameter.requires_grad:
                # Biases are 0 at first, and would hide that one is in a wrong place.
                parameter.add_(0.1 * torch.randn_like(parameter))
    groups, _ = network_groups(
        network.model,
        observation_of(network, 0.6, clips=2),
        units=UNITS,
        ignored=network.fixed,
        own=network.own_groups(network.model),
    )
    kept = {}
    for group in groups:
        count = int(torch.randint(1, group.units, ()))
        kept[group.name] = tuple(sorted(torch.randperm(group.units)[:count].tolist()))
    plan = make_plan(groups, kept, model_shapes(network.model))
    student = apply_plan(copied(network.model), plan).eval()
    run = folder / "run"
    architecture = {"network": network.family, **network.architecture}
    l0prune.save(student, plan, run, plugin="speech", architecture=architecture)
    for file, content in network.files.items():
        (run / file).parent.mkdir(exist_ok=True)
        (run / file).write_bytes(content)
    return open_network(str(run))
