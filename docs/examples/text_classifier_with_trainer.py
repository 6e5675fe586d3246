# %% [markdown]
# # A classifier of transformers, pruned by its Trainer
#
# A small BERT learns which of two words is said more often. The Trainer of transformers prunes it by a callback, and
# the result opens with `from_pretrained` as any other model. With a pre-trained model and your own data set the lines
# are the same.
#
# `pip install 'l0prune[huggingface]' accelerate`

# %%
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

import l0prune
from l0prune.adapters.transformers import PruningCallback

torch.manual_seed(0)
config = BertConfig(
    vocab_size=30, hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, num_labels=2
)
model = BertForSequenceClassification(config)
texts = torch.randint(0, 30, (600, 12))
labels = ((texts == 1).sum(1) > (texts == 2).sum(1)).long()
data = [{"input_ids": text, "labels": label} for text, label in zip(texts, labels, strict=True)]

# %% [markdown]
# ## Train and prune
#
# `uniform=True` keeps one width in all layers, so that the settings of the stock class can say it. Heads stay, because
# BERT's settings cannot say fewer heads of the same width.

# %%
steps = 80
inputs = {"input_ids": texts[:2]}
heads = [layer.attention for layer in model.bert.encoder.layer]
pruner = l0prune.wrap(model, inputs, target_sparsity=0.3, total_steps=steps, uniform=True, ignored=heads)
settings = TrainingArguments(
    "trainer",
    max_steps=steps,
    per_device_train_batch_size=32,
    learning_rate=2e-3,
    lr_scheduler_type="constant",
    report_to=[],
    logging_steps=20,
    save_strategy="no",
    use_cpu=True,
    disable_tqdm=True,
)
trainer = Trainer(model, settings, train_dataset=data, callbacks=[PruningCallback(pruner)])
trainer.train()
smaller = pruner.finalize()
print(pruner.report)

# %% [markdown]
# ## Open it without l0prune

# %%
l0prune.export(smaller, inputs, to="huggingface", out="classifier")
again = AutoModelForSequenceClassification.from_pretrained("classifier")
with torch.no_grad():
    assert torch.allclose(again(**inputs).logits, smaller(**inputs).logits, atol=1e-5)
