"""A student as its run trained it, its exported files, and how far their hidden states are from the teacher's."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from l0prune_speech.distillation import Distillation
from l0prune_speech.encoder import SpeechEncoder
from torch import Tensor

from l0prune.config import RunConfig
from l0prune.plugin import get_plugin, resolve
from l0prune.removal import RemovalPlan, apply_plan
from l0prune.storage import load_checkpoint
from l0prune.support import build, read_toml


@dataclass(frozen=True)
class Student:
    """A pruned student where its further stage begins, or has ended."""

    objective: Distillation
    """Its projections are those that were trained with it."""
    config: RunConfig
    batches: Callable[[int], Any]
    held_out: Sequence[Tensor]
    """Waveforms (B, samples)."""
    state: dict[str, Any]
    """The checkpoint at the beginning of the further stage."""
    dense: SpeechEncoder


def open_student(run: Path) -> Student:
    """The student of a run at the beginning of its further stage.

    Args:
        run: A run folder that keeps its checkpoint of that moment.
    """
    plugin = get_plugin("speech")
    config = resolve(plugin, {k: v for k, v in read_toml(run / "config.toml").items() if k != "plugin"})
    state = load_checkpoint(min((run / "checkpoints").glob("step-*.pt")))
    task = plugin.prepare(build(plugin.options, config.options), config)
    # The student begins as a copy of its teacher.
    dense = copy.deepcopy(task.objective.student).eval()
    task.objective.student = apply_plan(task.objective.student, RemovalPlan.from_json(state["plan"]))
    return Student(task.objective, config, task.batches, list(task.evaluation), state, dense)


def sessions(path: Path, threads: int, *, profiled: Path | None = None, fused_norms: bool = True) -> Any:
    """A file in onnxruntime.

    Args:
        path: The file.
        threads: Of the CPU.
        profiled: Where a profile begins its name.
        fused_norms: Whether onnxruntime may take an addition and the layer norm behind it as one operator.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if profiled is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profiled)
    return onnxruntime.InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=None if fused_norms else ["SkipLayerNormFusion"],
    )


def hidden_states(session: Any, waveforms: Tensor, lengths: Tensor) -> Tensor:
    """What a file gives: (1 + L, B, T, D)."""
    feeds = {"waveforms": waveforms.numpy(), "lengths": lengths.numpy().astype(np.int64)}
    return torch.from_numpy(session.run(["hidden_states"], feeds)[0])
