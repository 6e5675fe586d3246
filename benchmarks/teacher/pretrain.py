"""Pre-train the embedded teacher: a small HuBERT, two rounds of masked prediction (Hsu et al. 2021).

    python benchmarks/teacher/pretrain.py --corpus /tmp/l0prune-corpus

Round 1 predicts k-means clusters of MFCCs; round 2, started afresh, predicts k-means clusters of layer 4 of round 1.
Model and loss are torchaudio's own. The last tenth of the voices is held out; the masked-prediction accuracy on it is
recorded, beside chance, in `benchmarks/results/teacher.json`. The encoder goes to the plugin's assets as float16.
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio
from safetensors.torch import save_file
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from l0bench.teacher import masked_prediction

ROOT = Path(__file__).parents[2]
RATE, FRAME = 16_000, 320
UNMASKED_WEIGHT = 0.5
FEATURE_PENALTY = 0.01  # fairseq's 10 presses the convolutions to zero at this batch size: nothing is learnt
# Its positional convolution sees 1.3 s, in proportion as HuBERT's does.
ENCODER = {**masked_prediction.ENCODER, "encoder_pos_conv_kernel": 64, "encoder_layer_drop": 0.05}
MASKING = {
    "mask_prob": 0.65,
    "mask_selection": "static",
    "mask_other": 0.0,
    "mask_length": 10,
    "no_mask_overlap": False,
    "mask_min_space": 1,
    "mask_channel_prob": 0.0,
    "mask_channel_selection": "static",
    "mask_channel_other": 0.0,
    "mask_channel_length": 10,
    "no_mask_channel_overlap": False,
    "mask_channel_min_space": 1,
}


def mfcc_features(waveform: Tensor) -> Tensor:
    """39 MFCCs with deltas, aligned with the encoder's 50 frames a second. waveform: (samples,) -> (frames, 39)."""
    mfcc = torchaudio.compliance.kaldi.mfcc(waveform[None] * 32768, sample_frequency=RATE, dither=0.0).T
    delta = torchaudio.functional.compute_deltas(mfcc)
    features = torch.cat([mfcc, delta, torchaudio.functional.compute_deltas(delta)]).T
    return features[::2]


@torch.no_grad()
def hidden_features(encoder: nn.Module, waveform: Tensor, layer: int) -> Tensor:
    """Output of transformer layer `layer` (1-based). waveform: (samples,) -> (frames, D)."""
    return encoder.extract_features(waveform[None], num_layers=layer)[0][-1][0].float()


def cluster(features: list[Tensor], classes: int, seed: int) -> list[Tensor]:
    """k-means labels, one tensor of int64 per clip, fitted on a quarter of the frames."""
    stacked = torch.cat(features).numpy()
    generator = np.random.default_rng(seed)
    sample = stacked[generator.choice(len(stacked), len(stacked) // 4, replace=False)]
    mean, deviation = sample.mean(0), sample.std(0) + 1e-6
    kmeans = MiniBatchKMeans(classes, batch_size=10_000, n_init=5, random_state=seed).fit((sample - mean) / deviation)
    return [torch.from_numpy(kmeans.predict((f.numpy() - mean) / deviation)).long() for f in features]


def make_batch(
    clips: list[Tensor], labels: list[Tensor], order: np.ndarray, frames: int, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random crops of `frames` frames: waveforms (B, samples), labels (B, frames)."""
    waves, targets = [], []
    for index in order:
        start = int(generator.integers(0, max(1, len(labels[index]) - frames)))
        waves.append(clips[index][start * FRAME : start * FRAME + (frames - 1) * FRAME + 400])
        targets.append(labels[index][start : start + frames])
    return torch.stack(waves), torch.stack(targets)


def masked_accuracy(model: nn.Module, clips: list[Tensor], labels: list[Tensor], frames: int) -> float:
    """Share of masked frames whose cluster is predicted, on held-out voices, with fixed crops and masks."""
    model.eval()
    generator = np.random.default_rng(0)
    right = total = 0
    with torch.random.fork_rng(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        np.random.seed(0)
        for chunk in np.array_split(np.arange(len(clips)), max(1, len(clips) // 8)):
            logits, _, _ = model(*make_batch(clips, labels, chunk, frames, generator))
            right, total = right + int((logits.argmax(-1) == 0).sum()), total + len(logits)
    model.train()
    return right / total


def cross_entropy(logits: Tensor) -> Tensor:
    """Mean loss of torchaudio's logits (N, 1 + classes), whose column 0 is the true cluster."""
    return nn.functional.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long))


def pretrain_round(name, clips, labels, held_out, classes, steps, arguments) -> tuple[nn.Module, list[dict]]:
    """One round from random weights. Returns the encoder and the recorded curve."""
    torch.manual_seed(arguments.seed)
    generator = np.random.default_rng(arguments.seed)
    model = torchaudio.models.hubert_pretrain_model(
        **ENCODER,
        **MASKING,
        skip_masked=False,
        skip_nomask=False,
        num_classes=classes,
        final_dim=64,
        feature_grad_mult=None,
    )
    # torchaudio's uniform start has all cluster embeddings point the same way; independent ones learn from step 1.
    nn.init.normal_(model.logit_generator.label_embeddings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    warmup = steps // 10
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min((s + 1) / warmup, max(0.02, (steps - s) / (steps - warmup)))
    )
    train = np.array([i for i in range(len(clips)) if not held_out[i] and len(labels[i]) > arguments.frames])
    test = [i for i in range(len(clips)) if held_out[i] and len(labels[i]) > arguments.frames]
    test_clips, test_labels = [clips[i] for i in test], [labels[i] for i in test]
    counts = torch.bincount(torch.cat([labels[i] for i in test]), minlength=classes)
    chance = {"uniform": 1 / classes, "most_frequent": float(counts.max() / counts.sum())}
    curve, losses, began, order = [], [], time.perf_counter(), np.empty(0, dtype=int)
    for step in range(1, steps + 1):
        if len(order) < arguments.batch:
            order = generator.permutation(train)
        batch, order = order[: arguments.batch], order[arguments.batch :]
        waves, targets = make_batch(clips, labels, batch, arguments.frames, generator)
        with torch.autocast("cpu", torch.bfloat16):
            masked, unmasked, penalty = model(waves, targets)
        loss = cross_entropy(masked)
        (loss + UNMASKED_WEIGHT * cross_entropy(unmasked) + FEATURE_PENALTY * penalty.float()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        losses.append(loss.item())
        if step % arguments.every == 0 or step == steps:
            seconds = time.perf_counter() - began
            row = {"step": step, "loss": round(float(np.mean(losses)), 4), "seconds": round(seconds, 1)}
            row["masked_accuracy"] = round(masked_accuracy(model, test_clips, test_labels, arguments.frames), 4)
            curve.append(row)
            losses.clear()
            speed = step * arguments.batch * arguments.frames * FRAME / RATE / seconds
            print(name, row, f"{speed:.1f}x real time", chance, flush=True)
    return model.wav2vec2.eval(), [{"round": name, "classes": classes, "chance": chance, "curve": curve}]


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by `make_speech.py corpus`")
    parser.add_argument("--out", type=Path, default=ROOT / "plugins/speech/l0prune_speech/assets/teacher.safetensors")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results/teacher.json")
    parser.add_argument("--steps", type=int, nargs=2, default=[3500, 6500], help="optimizer steps in rounds 1 and 2")
    parser.add_argument("--batch", type=int, default=6, help="crops a step")
    parser.add_argument("--frames", type=int, default=149, help="frames a crop, 50 a second")
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--every", type=int, default=200, help="steps between evaluations")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    manifest = json.loads((arguments.corpus / "manifest.json").read_text())
    voices = list(dict.fromkeys(json.dumps(entry["voice"]) for entry in manifest))
    unseen = set(voices[-len(voices) // 10 :])
    held_out = [json.dumps(entry["voice"]) in unseen for entry in manifest]
    clips = [torch.from_numpy(soundfile.read(arguments.corpus / e["file"], dtype="float32")[0]) for e in manifest]
    frames = [(len(clip) - 400) // FRAME + 1 for clip in clips]

    mfcc = [mfcc_features(clip)[:n] for clip, n in zip(clips, frames, strict=True)]
    labels = cluster(mfcc, 100, arguments.seed)
    encoder, record = pretrain_round("mfcc", clips, labels, held_out, 100, arguments.steps[0], arguments)
    features = [hidden_features(encoder, clip, 4)[:n] for clip, n in zip(clips, frames, strict=True)]
    labels = cluster(features, 200, arguments.seed)
    encoder, second = pretrain_round("layer 4", clips, labels, held_out, 200, arguments.steps[1], arguments)

    config = {**ENCODER, "aux_num_out": None}
    metadata = {"format": "l0prune-speech-teacher", "config": json.dumps(config), "normalize_waveform": "false"}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({k: v.half().contiguous() for k, v in encoder.state_dict().items()}, arguments.out, metadata)
    result = {
        "parameters": sum(p.numel() for p in encoder.parameters()),
        "corpus_minutes": round(sum(len(c) for c in clips) / RATE / 60, 1),
        "corpus_voices": len(voices),
        "held_out_voices": len(unseen),
        "settings": {k: str(v) if isinstance(v, Path) else v for k, v in vars(arguments).items() if k != "results"},
        "versions": {
            "torch": torch.__version__,
            "torchaudio": torchaudio.__version__,
            "python": platform.python_version(),
        },
        "rounds": record + second,
    }
    result["settings"].pop("corpus"), result["settings"].pop("out")
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    arguments.results.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
