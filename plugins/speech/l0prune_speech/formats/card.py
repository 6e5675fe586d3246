"""The model card of a Hugging Face folder: what the network is, and the figures of its report."""

from collections.abc import Mapping
from typing import Any

from l0prune_speech.formats.checkpoint import Checkpoint, family

_FIGURES = {
    "params_before": ("parameters of the teacher", "{:,}"),
    "params_after": ("parameters", "{:,}"),
    "sparsity": ("removed", "{:.2%}"),
    "macs_before": ("multiply-accumulates per second of audio, teacher", "{:,}"),
    "macs_after": ("multiply-accumulates per second of audio", "{:,}"),
    "distill_loss_after_removal": ("distillation loss right after the cut", "{:.4f}"),
    "distill_loss_final": ("distillation loss at the end", "{:.4f}"),
    "max_relative_difference": ("outputs changed by the cut, relative", "{:.1e}"),
}


def model_card(name: str, checkpoint: Checkpoint, report: Mapping[str, Any]) -> str:
    """Markdown with the front matter that the hub reads.

    Args:
        name: Where the network comes from.
        checkpoint: The network.
        report: A run's report.json, or nothing.
    """
    teacher = report.get("teacher", name)
    title = f"{family(checkpoint.config)} pruned from {teacher}" if report else f"{family(checkpoint.config)}: {name}"
    rows = [
        f"| {said} | {form.format(report[key])} |"
        for key, (said, form) in _FIGURES.items()
        if isinstance(report.get(key), int | float)
    ]
    table = ["| figure | value |", "|---|---|", *rows, ""] if rows else []
    parameters = sum(tensor.numel() for tensor in checkpoint.tensors.values())
    lines = [
        "---",
        "library_name: transformers",
        "tags: [speech, feature-extraction, pruning, l0prune]",
        "---",
        "",
        f"# {title}",
        "",
        f"A speech encoder of {parameters:,} parameters. It takes 16 kHz audio and gives a vector every 20 ms."
        if not rows
        else "A speech encoder for 16 kHz audio, made by joint distillation and pruning (DPHuBERT, arXiv 2305.17651).",
        "",
        *table,
        "```python",
        "from transformers import AutoFeatureExtractor, AutoModel",
        "",
        'extractor = AutoFeatureExtractor.from_pretrained("FOLDER")',
        'model = AutoModel.from_pretrained("FOLDER", trust_remote_code=True)',
        'inputs = extractor(audio, sampling_rate=16000, padding=True, return_tensors="pt")',
        "states = model(**inputs, output_hidden_states=True).hidden_states",
        "```",
        "",
    ]
    return "\n".join(lines)
