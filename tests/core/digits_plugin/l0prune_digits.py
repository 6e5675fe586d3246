"""A plugin that distils and prunes a classifier of scikit-learn's digits."""

import copy
import itertools
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy, kl_div

import l0prune
from l0prune.measuring import pick_device
from l0prune.plugin import Task
from l0prune.training import Losses, Objective


@dataclass(frozen=True, kw_only=True)
class Options:
    width: int = 32


class Distill(Objective):
    def __init__(self, teacher):
        super().__init__(student=copy.deepcopy(teacher))
        self.teacher = teacher.eval().requires_grad_(False)

    def forward(self, images):
        told, said = (net(images).log_softmax(1) for net in (self.teacher, self.student))
        return Losses(total=kl_div(said, told, log_target=True, reduction="batchmean"), amount=len(images))


class DigitsPlugin:
    name, description, options = "digits", "a classifier of scikit-learn's digits", Options

    def __init__(self):
        self.recipes = {
            "quick": {"joint": {"steps": 300, "learning_rate": 1e-3}, "controller": {"learning_rate": 0.05}},
        }

    def build(self, architecture):
        wide = architecture["width"]
        layers = nn.Conv2d(1, wide, 3), nn.ReLU(), nn.Conv2d(wide, 2 * wide, 3), nn.ReLU(), nn.MaxPool2d(2)
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * wide, 10))

    def prepare(self, options, run):
        device = pick_device(run.device)
        images = torch.tensor(load_digits().images, dtype=torch.float32, device=device)[:, None] / 16
        labels = torch.tensor(load_digits().target, device=device)

        def batches(position):  # endless, and the same from any position on
            for number in itertools.count(position):
                yield torch.randint(1200, (64,), generator=torch.Generator().manual_seed(number))

        teacher = self.build(vars(options)).to(device)
        optimizer = torch.optim.Adam(teacher.parameters(), lr=2e-3)
        for chosen in itertools.islice(batches(10**6), 300):
            optimizer.zero_grad()
            cross_entropy(teacher(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        objective, observe = Distill(teacher), lambda net: net(images[:8])
        return Task(
            objective=objective,
            groups=l0prune.discover(objective.student, observe).groups,
            batches=lambda position: (images[chosen] for chosen in batches(position)),
            observe=observe,
            evaluation=[images[1200:]],
            unit="images",
            architecture=vars(options),
        )
