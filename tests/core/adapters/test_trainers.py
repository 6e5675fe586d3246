"""Callbacks of trainers, accelerate and Muon: they prune, resume as if uninterrupted, and refuse by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import FAST, PUBLISHED, Net, batch, count, make
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import l0prune
from l0prune import ConfigError

STEPS = 12
pytestmark = pytest.mark.filterwarnings(
    "ignore:the gates are at an expected sparsity:UserWarning",
    "ignore::DeprecationWarning",
    "ignore::FutureWarning",
    "ignore:You're resuming from a checkpoint that ended before:UserWarning",
    "ignore:.*does not have many workers:UserWarning",
    "ignore:The dirpath has changed:UserWarning",
)


class Digits(Dataset):
    """As many samples as the steps need."""

    def __init__(self, samples: int = 16 * STEPS) -> None:
        self.x, self.y = batch(1, samples)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": self.x[index], "labels": self.y[index]}


class WithLoss(nn.Module):
    """A network that gives its loss, as those of transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        logits = self.net(x)
        return {"logits": logits} | ({} if labels is None else {"loss": F.cross_entropy(logits, labels)})


def wrapped(**settings: Any) -> l0prune.L0Pruner:
    torch.manual_seed(0)
    settings = {"controller": FAST, **settings}
    return l0prune.wrap(WithLoss(), {"x": batch()[0]}, target_sparsity=0.5, **settings)


def trainer_of(pruner: Any, folder: Path, *, steps: int = STEPS, callback: Any = None, **more: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from l0prune.adapters.transformers import PruningCallback

    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
        "report_to": [],
        "disable_tqdm": True,
        "logging_steps": 3,
        "save_steps": 6,
        "use_cpu": True,
        "lr_scheduler_type": "constant",
    }
    return transformers.Trainer(
        pruner.model,
        transformers.TrainingArguments(**settings),
        train_dataset=Digits(),
        callbacks=[callback or PruningCallback(pruner)],
        **more,
    )


def test_the_trainer_of_transformers_prunes_and_resumes_as_if_uninterrupted(tmp_path: Path) -> None:
    pruner = wrapped()
    trainer = trainer_of(pruner, tmp_path / "whole")
    trainer.train()
    assert pruner.sparsity.expected == pytest.approx(0.5, abs=0.01)
    assert any("sparsity" in entry for entry in trainer.state.log_history)
    small = pruner.finalize()
    assert pruner.report.steps == STEPS
    assert count(small) <= 0.5 * count(WithLoss())

    again = wrapped()
    trainer_of(again, tmp_path / "whole").train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    assert again.plan.kept == pruner.plan.kept
    first, second = (p.finalize().state_dict() for p in (pruner, again))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def test_a_penalty_is_in_the_gradients_once_a_step_and_gates_have_a_rate_of_their_own(tmp_path: Path) -> None:
    pruner = wrapped(controller=PUBLISHED)
    with pytest.raises(ConfigError, match=r"trains gates at another rate.*expected 0.1.*pruner.parameter_groups"):
        trainer_of(pruner, tmp_path).train()
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    before = pruner.sparsity.expected
    trainer_of(pruner, tmp_path, steps=30, optimizers=(optimizer, None)).train()
    # By the task's loss alone gates would open.
    assert pruner.sparsity.expected > 3 * before


def test_one_callback_belongs_to_one_trainer_and_its_model(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from l0prune.adapters.transformers import PruningCallback

    pruner = wrapped()
    callback = PruningCallback(pruner)
    trainer_of(pruner, tmp_path, steps=1, callback=callback).train()
    with pytest.raises(ConfigError, match="a callback is used with two trainers"):
        trainer_of(pruner, tmp_path, steps=1, callback=callback).train()
    with pytest.raises(ConfigError, match="the trainer has another model than the pruner: WithLoss"):
        trainer_of(wrapped(), tmp_path, steps=1, callback=PruningCallback(pruner)).train()
    with pytest.raises(ConfigError, match=r"not a pruner .got Net, expected what l0prune.wrap returned"):
        PruningCallback(Net())  # type: ignore[arg-type]


def lightning_fit(
    steps: int, folder: Path, *seen: Any, controller: Any = FAST, accumulated: int = 1, resume: str | None = None
) -> l0prune.L0Pruner:
    lightning = pytest.importorskip("lightning.pytorch")
    from lightning.pytorch.callbacks import ModelCheckpoint

    from l0prune.adapters.lightning import PruningCallback

    pruner = make(controller=controller)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = pruner.model

        def training_step(self, given: Any, _: int) -> Any:
            return F.cross_entropy(self.net(given["x"]), given["labels"])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))

    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=accumulated,
        callbacks=[
            PruningCallback(pruner),
            ModelCheckpoint(folder, save_on_train_epoch_end=True, save_top_k=-1),
            *seen,
        ],
    )
    data = DataLoader(Digits(16 * STEPS // 2), batch_size=16 // accumulated)
    trainer.fit(Module(), data, ckpt_path=resume)
    return pruner


def test_lightning_prunes_and_goes_on_from_what_its_checkpoint_holds(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch")
    begun: list[dict[str, torch.Tensor]] = []

    class Seen(lightning.Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            begun.append({name: tensor.clone() for name, tensor in pl_module.state_dict().items()})

    half = lightning_fit(STEPS // 2, tmp_path)
    saved = tmp_path / f"epoch=0-step={STEPS // 2}.ckpt"
    rest = lightning_fit(STEPS, tmp_path / "again", Seen(), resume=str(saved))
    state = {f"net.{name}": tensor for name, tensor in half.model.state_dict().items()}
    assert begun[0].keys() == state.keys()
    assert all(torch.equal(tensor, begun[0][name]) for name, tensor in state.items())
    assert rest.sparsity.expected == pytest.approx(0.5, abs=0.01)
    rest.finalize()
    assert rest.report.steps == STEPS


def test_lightning_counts_steps_of_the_optimizer_and_adds_a_penalty(tmp_path: Path) -> None:
    pruner = lightning_fit(30, tmp_path, controller=PUBLISHED, accumulated=2)
    assert pruner.sparsity.expected > 0.05
    pruner.finalize()
    assert pruner.report.steps == 30


def test_accelerate_needs_no_adapter() -> None:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    pruner = make()
    optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=1e-3))
    model, optimizer, batches = accelerator.prepare(pruner.model, optimizer, DataLoader(Digits(), batch_size=8))
    for given in batches:
        with accelerator.accumulate(model):
            accelerator.backward(F.cross_entropy(model(given["x"]), given["labels"]) + pruner.penalty())
            optimizer.step()
            if accelerator.sync_gradients:
                pruner.step()
            optimizer.zero_grad()
    assert pruner.sparsity.expected == pytest.approx(0.5, abs=0.01)
    pruner.finalize()
    assert pruner.report.steps == STEPS


@pytest.mark.parametrize("controller", [FAST, PUBLISHED])
def test_muon_takes_the_matrices_and_another_optimizer_the_rest(controller: Any) -> None:
    pruner = l0prune.wrap(
        nn.Sequential(nn.Embedding(9, 16), nn.Flatten(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 4)),
        torch.randint(0, 9, (4, 3)),
        target_sparsity=0.3,
        controller=controller,
    )
    parts = {only: pruner.parameter_groups(only=only, lr=1e-2) for only in ("matrices", "others")}
    shapes = {only: [tuple(p.shape) for p in groups[0]["params"]] for only, groups in parts.items()}
    assert shapes == {"matrices": [(32, 48), (4, 32)], "others": [(9, 16), (32,), (4,)]} or sorted(
        shapes["others"], key=len
    ) == [(32,), (4,), (9, 16)]
    everything = [p for group in pruner.parameter_groups() for p in group["params"]]
    split = [p for groups in parts.values() for group in groups for p in group["params"]]
    assert {id(p) for p in split} == {id(p) for p in everything}
    assert len(split) == len(everything)
    optimizers = [torch.optim.Muon(parts["matrices"]), torch.optim.AdamW(parts["others"])]
    for _ in range(STEPS):
        x = torch.randint(0, 9, (16, 3))
        (F.cross_entropy(pruner.model(x), x[:, 0] % 4) + pruner.penalty()).backward()
        for optimizer in optimizers:
            optimizer.step()
        pruner.step()
        for optimizer in optimizers:
            optimizer.zero_grad()
    pruner.finalize()
    with pytest.raises(ConfigError, match="no such part of the parameters: vectors"):
        pruner.parameter_groups(only="vectors")  # type: ignore[arg-type]
