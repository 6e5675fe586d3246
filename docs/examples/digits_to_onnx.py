# %% [markdown]
# # A network of timm for digits, to ONNX
#
# A small ResNet of timm learns the 1,797 digits of scikit-learn. Half of its parameters then leave while it learns on,
# in a loop of one's own, and the result becomes a file for onnxruntime. It takes some seconds on a processor.
#
# `pip install 'l0prune[onnx]' timm scikit-learn`

# %%
import numpy as np
import onnxruntime
import timm
import torch
from sklearn.datasets import load_digits
from torch import nn

import l0prune

torch.manual_seed(0)
digits = load_digits()
images = nn.functional.interpolate(torch.tensor(digits.images[:, None], dtype=torch.float32) / 16, size=(32, 32))
labels = torch.tensor(digits.target)
train, test = slice(0, 1_400), slice(1_400, None)

model = timm.create_model("test_resnet", in_chans=1, num_classes=10)

# %% [markdown]
# ## Train it as usual


# %%
def batches(steps: int):
    """Random batches of 64 digits."""
    for _ in range(steps):
        chosen = torch.randint(0, 1_400, (64,))
        yield images[chosen], labels[chosen]


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    """Share of the test digits that are recognised."""
    return (network.eval()(images[test]).argmax(1) == labels[test]).float().mean().item()


optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
for inputs, targets in batches(80):
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    optimizer.zero_grad()
dense_accuracy = accuracy(model)

# %% [markdown]
# ## Prune while it trains on
#
# `wrap` puts gates on the model in its place. The learning rate stays at its peak until the choice of units is final,
# and falls afterwards.

# %%
steps = 80
pruner = l0prune.wrap(model.train(), images[:2], target_sparsity=0.5, total_steps=steps)
optimizer = torch.optim.AdamW(pruner.parameter_groups(lr=5e-3))
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, 2 - 2 * step / steps))
for inputs, targets in batches(steps):
    loss = nn.functional.cross_entropy(model(inputs), targets) + pruner.penalty()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    schedule.step()
    pruner.step()
smaller = pruner.finalize()
print(pruner.report)
print(f"accuracy: {dense_accuracy:.1%} dense, {accuracy(smaller):.1%} pruned")

# %% [markdown]
# ## To ONNX
#
# `export` opens the file again and compares it with the network before it puts it in place.

# %%
l0prune.export(smaller, images[:2], to="onnx", out="digits.onnx")
session = onnxruntime.InferenceSession("digits.onnx")
name = session.get_inputs()[0].name
logits = session.run(None, {name: images[test].numpy()})[0]
assert np.allclose(logits, smaller(images[test]).detach().numpy(), atol=1e-4)
