"""What `training_free.py` prunes and against what: networks trained on scikit-learn's digits, torch-pruning's cuts."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence

import timm
import torch
import torch_pruning
from sklearn.datasets import load_digits
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from l0prune.measuring import parameters

DENSE_STEPS, BATCH, RATE = 800, 64, 1e-3


def cnn() -> nn.Module:
    """57 thousand parameters: three convolutions, a residual one among them."""
    return Residual()


class Residual(nn.Module):
    """A small residual convolutional network."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = self._layer(1, width)
        self.widen = self._layer(width, 2 * width)
        self.first, self.second = self._layer(2 * width, 2 * width), self._layer(2 * width, 2 * width)
        self.classify = nn.Linear(2 * width, 10)

    @staticmethod
    def _layer(inside: int, outside: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 8, 8) -> (B, 10)."""
        x = F.max_pool2d(self.widen(self.enter(x)), 2)
        x = x + self.second(self.first(x))
        return self.classify(x.mean((2, 3)))


def vit() -> nn.Module:
    """timm's vision transformer, four blocks of 64 features."""
    return timm.models.VisionTransformer(
        img_size=8, patch_size=2, in_chans=1, num_classes=10, embed_dim=64, depth=4, num_heads=4, mlp_ratio=2
    )


class Block(nn.Module):
    """Attention and a feed-forward part, each followed by a norm, as in the first transformers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attend = Attention(width, num_heads=4, qkv_bias=True)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, T, D) -> the same."""
        x = self.first(x + self.attend(x))
        return self.second(x + self.down(F.gelu(self.up(x))))


class Transformer(nn.Module):
    """Three blocks over the eight rows of an image."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.enter, self.places = nn.Linear(8, width), nn.Parameter(0.02 * torch.randn(8, width))
        self.blocks = nn.Sequential(*(Block(width) for _ in range(3)))
        self.classify = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, 1, 8, 8) -> (B, 10)."""
        return self.classify(self.blocks(self.enter(x[:, 0]) + self.places).mean(1))


NETWORKS: dict[str, Callable[[], nn.Module]] = {"cnn": cnn, "vit": vit, "transformer": Transformer}


class Data:
    """1,200 digits to train on and 597 to test on, in [0, 1]."""

    def __init__(self, seed: int) -> None:
        digits = load_digits()
        order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(1234))
        images = torch.tensor(digits.images, dtype=torch.float32)[order, None] / 16
        labels = torch.tensor(digits.target)[order]
        self.train, self.test = (images[:1200], labels[:1200]), (images[1200:], labels[1200:])
        self._generator = torch.Generator().manual_seed(seed)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Random batches without end."""
        images, labels = self.train
        while True:
            chosen = torch.randint(0, len(images), (BATCH,), generator=self._generator)
            yield images[chosen], labels[chosen]

    @torch.no_grad()
    def accuracy(self, model: nn.Module) -> float:
        """Share of the test set."""
        images, labels = self.test
        return float((model.eval()(images).argmax(1) == labels).float().mean())


def train(model: nn.Module, data: Data, steps: int) -> None:
    """AdamW with the learning rate falling linearly to 0."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    model.train()
    for _, (images, labels) in zip(range(steps), data.batches(), strict=False):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        schedule.step()


def cuts_by_torch_pruning(
    dense: nn.Module,
    example: Tensor,
    batches: Iterable[tuple[Tensor, Tensor]],
    targets: Sequence[float],
    importance: str,
    squares: dict[str, Tensor] | None = None,
) -> list[nn.Module]:
    """Its global pruner in small steps: what it has made when the parameters meet the budget of each target.

    Args:
        dense: Left as it is.
        example: An input.
        batches: Images and labels that "taylor" and "hessian" sum their gradients over.
        targets: Shares of the parameters to remove, ascending.
        importance: "magnitude", "taylor" or "hessian".
        squares: `squared_gradients` for "hessian", if they are there already.
    """
    model = copy.deepcopy(dense)
    budgets = [int(parameters(model) * (1 - target)) for target in targets]
    score = {
        "magnitude": torch_pruning.importance.GroupMagnitudeImportance,
        "taylor": torch_pruning.importance.GroupTaylorImportance,
        "hessian": torch_pruning.importance.GroupHessianImportance,
    }[importance]()
    heads = {m.qkv: m.num_heads for m in model.modules() if isinstance(m, Attention)}
    last = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        score,
        global_pruning=True,
        pruning_ratio=0.99,
        max_pruning_ratio=0.97,
        iterative_steps=400,
        ignored_layers=last,
        num_heads=heads,
        prune_num_heads=bool(heads),
        channel_groups={},
        customized_pruners=None,
        root_module_types=[nn.Conv2d, nn.Linear],
    )
    if importance == "taylor":
        model.zero_grad()
        for images, labels in batches:
            F.cross_entropy(model(images), labels).backward()
    elif importance == "hessian":
        # Its own sum forgets all examples but the last: it looks for a name where it keeps parameters.
        squares = squares or squared_gradients(model, batches)
        parameters_of = dict(model.named_parameters())
        score._accu_grad = {parameters_of[name]: square.clone() for name, square in squares.items()}
        score._counter = dict.fromkeys(score._accu_grad, 1)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    found = []
    for budget in budgets:
        while parameters(model) > budget and pruner.current_step < 400:
            pruner.step()
            for module in model.modules():
                if isinstance(module, Attention):
                    module.num_heads = pruner.num_heads[module.qkv]
                    module.head_dim = module.qkv.out_features // (3 * module.num_heads)
                    module.attn_dim = module.qkv.out_features // 3
        found.append(copy.deepcopy(model))
        found[-1].zero_grad()
    return found


def squared_gradients(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """The square of the loss's gradient, by parameter, as a mean over single examples."""
    squares, examples = {name: torch.zeros_like(p) for name, p in model.named_parameters()}, 0
    for images, labels in batches:
        for one in F.cross_entropy(model(images), labels, reduction="none"):
            gradients = torch.autograd.grad(one, list(model.parameters()), retain_graph=True)
            examples += 1
            for square, gradient in zip(squares.values(), gradients, strict=True):
                square += gradient.square()
    return {name: square / examples for name, square in squares.items()}


def trained(network: str, seed: int) -> nn.Module:
    """The dense network that all methods start from."""
    torch.manual_seed(seed)
    model = NETWORKS[network]()
    train(model, Data(seed), DENSE_STEPS)
    return model
