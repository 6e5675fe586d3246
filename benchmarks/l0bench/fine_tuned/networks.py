"""The embedded teacher with a new head, fine-tuned as its users would: transformers' class, AdamW, labelled clips."""

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from l0bench.fine_tuned.clips import lists
from l0bench.fine_tuned.frozen_front import FrozenFront
from l0bench.real_material.speech import LANGUAGES
from l0prune import assembled
from l0prune.measuring import has_fast_bfloat16

CLASSES = {"ctc": "Wav2Vec2ForCTC", "speaker": "Wav2Vec2ForXVector", "frames": "Wav2Vec2ForAudioFrameClassification"}
"""HuBERT's own classes have no x-vectors and no frames; wav2vec 2.0's hold the same encoder."""
STEPS = {"ctc": 200, "speaker": 150, "frames": 100}
_RATE, _HEAD_RATE, _BATCH_SECONDS, _SEED = 5e-4, 2e-3, 16.0, 0
_MOST_MINUTES = 20
"""Of the training clips: so many are heard several times."""
_LETTERS = "abcdefghijklmnopqrstuvwxyz'"
_VOCABULARY = {mark: number for number, mark in enumerate(["<pad>", "|", *_LETTERS])}


def network(task: str, material: Path) -> Path:
    """A folder of transformers, made at first use: minutes of training on one core.

    Args:
        task: One of `clips.TASKS`.
        material: The folder that keeps it.
    """
    folder = material / f"embedded-{task}"
    if not folder.exists():
        with assembled(folder) as made:
            made.mkdir()
            _make(task, lists(task, material)["train"], made)
    return folder


def _make(task: str, train: Path, folder: Path) -> None:
    from l0prune_speech.families import Wish, open_network

    with tempfile.TemporaryDirectory() as temporary:
        untrained = Path(temporary)
        _put_head(task, untrained)
        found: Any = open_network(str(untrained), Wish(task=task))
        _fine_tune(found, _some(labelled_clips(train)))
        found.export(found.model, folder)
        for name in ("vocab.json", "preprocessor_config.json"):
            if (untrained / name).exists() and not (folder / name).exists():
                shutil.copy(untrained / name, folder / name)


def _put_head(task: str, folder: Path) -> None:
    """Write the embedded teacher with a head of random weights."""
    import transformers
    from l0prune_speech.formats import from_encoder, load_teacher, to_huggingface
    from transformers.utils import logging

    # That the head is new needs no table.
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    to_huggingface(from_encoder(load_teacher("embedded").encoder), folder, "")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for name in ("auto_map", "l0prune", "architectures"):
        config.pop(name, None)
    labels = [*LANGUAGES] if task == "speaker" else ["pause", *LANGUAGES]
    config |= {
        "model_type": "wav2vec2",
        "vocab_size": len(_VOCABULARY),
        "pad_token_id": 0,
        "ctc_loss_reduction": "mean",
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
        "tdnn_dim": [128, 128, 128, 128, 256],
        "xvector_output_dim": 128,
        # It is fine-tuned on half an hour.
        "mask_time_prob": 0.0,
        "layerdrop": 0.0,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.manual_seed(_SEED)
    model = getattr(transformers, CLASSES[task]).from_pretrained(folder)
    _keep_variance(model)
    model.save_pretrained(folder)
    if task == "ctc":
        (folder / "vocab.json").write_text(json.dumps(_VOCABULARY), encoding="utf-8")


def _keep_variance(model: nn.Module) -> None:
    """Weights of a new head's linear layers with which signals keep their size (He et al. 2015).

    Transformers draws them with a deviation of 0.02. In layers of 128 units that shrinks a signal to 40 % each: after
    the eight layers of an x-vector network its biases outweigh it, every clip gets the same vector, and nothing is
    learnt.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not name.startswith("wav2vec2."):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


def labelled_clips(train: Path) -> list[tuple[Tensor, str]]:
    """Samples and labels."""
    clips = []
    for line in train.read_text(encoding="utf-8").splitlines()[1:]:
        path, label = line.split("\t", 1)
        clips.append((torch.from_numpy(soundfile.read(train.parent / path, dtype="float32")[0]), label))
    return clips


def _some(clips: Sequence[tuple[Tensor, str]]) -> list[tuple[Tensor, str]]:
    """Clips at random, as many as are trained on."""
    taken, seconds = [], 0.0
    for number in np.random.default_rng(_SEED).permutation(len(clips)).tolist():
        seconds += len(clips[number][0]) / 16_000
        if taken and seconds > 60 * _MOST_MINUTES:
            break
        taken.append(clips[number])
    return taken


def _fine_tune(found: Any, clips: Sequence[tuple[Tensor, str]]) -> None:
    """AdamW, a tenth of the steps to the peak, then linearly to 0; gradients of norm 1 at most.

    The convolutions stay as they are. What is new learns faster than what is not.
    """
    model, steps = found.model, STEPS[found.task]
    answers = [found.encode(label) for _, label in clips]
    own, front = model.wav2vec2, model.wav2vec2.feature_extractor
    own.feature_extractor = kept = FrozenFront(front, [found.inputs([samples])["input_values"] for samples, _ in clips])
    head = [weight for name, weight in model.named_parameters() if not name.startswith("wav2vec2.")]
    groups = [{"params": head, "lr": _HEAD_RATE}, {"params": list(own.parameters()), "lr": _RATE}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / (steps - warmup))
    )
    fast = torch.autocast("cpu", torch.bfloat16, enabled=has_fast_bfloat16(torch.device("cpu")))
    model.train()
    for _, batch in zip(range(steps), _batches([len(samples) / 16_000 for samples, _ in clips]), strict=False):
        kept.batch, told = batch, [answers[i] for i in batch]
        with fast:
            heard = found.hear(model, found.inputs([clips[i][0] for i in batch]), told)
        found.loss(model, heard, told).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    own.feature_extractor = front
    model.eval()


def _batches(seconds: Sequence[float]) -> Any:
    """Numbers of clips of similar length, over and over in random order."""
    generator = np.random.default_rng(_SEED)
    while True:
        noisy = np.array(seconds) * generator.uniform(0.9, 1.1, len(seconds))
        epoch, batch = [], []
        for number in np.argsort(noisy).tolist():
            if batch and (len(batch) + 1) * seconds[number] > _BATCH_SECONDS:
                epoch.append(batch)
                batch = []
            batch.append(number)
        epoch.append(batch)
        for place in generator.permutation(len(epoch)).tolist():
            yield epoch[place]
