# %% [markdown]
# # A speech encoder from end to end
#
# The package holds a small pre-trained HuBERT and some minutes of speech. Here its student loses a fifth of the
# parameters in a handful of steps, which shows every stage but not a good student: that takes
# `l0prune compress --plugin speech`, and three minutes. With `teacher` and `data` of your own the lines are the same.
#
# `pip install 'l0prune[onnx]'`

# %%
import numpy as np
import onnxruntime
import torch

import l0prune

report = l0prune.compress(
    "speech",
    out="runs/tiny",
    settings={
        "target_sparsity": 0.2,
        "steps": 6,
        "precision": "float32",
        "device": "cpu",
        "controller": {"kind": "projected", "warmup_steps": 2, "look_steps": 1},
        "speech": {"batch_seconds": 6.0, "max_seconds": 3.0, "evaluation_seconds": 6.0, "workers": 0},
    },
)
print(f"{report.params_before:,} parameters became {report.params_after:,}")

# %% [markdown]
# ## Open the student
#
# It has the interface of torchaudio's encoders.

# %%
student = l0prune.load("runs/tiny")
audio = torch.sin(torch.arange(16_000) / 20)[None]
with torch.no_grad():
    features, lengths = student.extract_features(audio, torch.tensor([16_000]))

# %% [markdown]
# ## Look at the run, check it, and export it

# %%
l0prune.write_report(["runs/tiny"])
assert l0prune.verify("runs/tiny").broken is None
l0prune.export("runs/tiny", to="onnx", out="student.onnx")
session = onnxruntime.InferenceSession("student.onnx")
states = session.run(["hidden_states"], {"waveforms": audio.numpy(), "lengths": np.array([16_000])})[0]
assert np.allclose(states[-1], features[-1].numpy(), atol=1e-3)
