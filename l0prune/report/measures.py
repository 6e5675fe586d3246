"""The numbers of a run, in the order and the words in which a table shows them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import dropwhile
from os.path import normpath
from pathlib import Path
from typing import Any

from l0prune.plugin import STAGES
from l0prune.report.read import Run
from l0prune.size import noun_of
from l0prune.support import counted, duration, plain, quantity, score


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A named number in words."""

    name: str
    text: str


_MOMENTS = {"before_removal": "before the cut", "after_removal": "after the cut", "final": "at the end"}


def measures(run: Run) -> tuple[Measure, ...]:
    """What is known of a run; what is not is left out.

    Args:
        run: Finished or not.
    """
    pairs = [*(_finished(run.report, run.settings) if run.report else _unfinished(run)), *_probes(run)]
    return tuple(Measure(name=name, text=text) for name, text in pairs if text)


def _finished(report: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    before, after = report["params_before"], report["params_after"]
    yield "teacher", report["teacher"]
    cut = report.get("cut")
    yield "cut out of", "" if cut is None else f"{cut['of']} in {cut['seconds']:.1f} s"
    yield from _target(report.get("metric", "params"), report["target_sparsity"])
    yield "removed", f"{report['sparsity']:.2%}"
    yield from _targets(report.get("targets", []))
    yield "parameters before", f"{before:,}"
    yield "parameters after", f"{after:,} ({before / max(1, after):.2f} times fewer)"
    before, after = report["macs_before"], report["macs_after"]
    if before is not None and after is not None:
        yield "MACs before", f"{quantity(before)} per {report['macs_per']}"
        yield "MACs after", f"{quantity(after)} ({before / max(1, after):.2f} times fewer)"
    if report.get("speedup"):
        pair = f"{report['latency_before_ms']:.1f} to {report['latency_after_ms']:.1f} ms"
        yield "latency at the cut", f"{pair} ({report['speedup']:.2f} times faster)"
    if report.get("latency_model_error") is not None:
        yield "error of the latency model", f"{report['latency_model_error']:.1%}"
    for moment, words in _MOMENTS.items():
        loss = report.get(f"distill_loss_{moment}")
        yield f"held-out loss {words}", "" if loss is None else f"{loss:.4f}"
    for part, loss in report.get("losses_final", {}).items():
        yield f"{part}, held out, at the end", f"{loss:.4f}"
    difference = report.get("max_relative_difference")
    yield "outputs changed by the cut", "" if difference is None else f"{difference:.1e} (largest, relative)"
    yield "steps of the training loop", f"{report['steps']:,}" if report.get("steps") else ""
    for stage, seconds in report.get("stage_seconds", {}).items():
        each = report.get("step_seconds", {}).get(stage, 0)
        steps = settings.get(stage, {}).get("steps", 0) if stage in STAGES else 0
        yield STAGES.get(stage, stage), f"{duration(seconds)} for {steps:,} steps, {each:.2f} s each"
    yield "cut on the way, in the joint stage", _times(len(report.get("compactions", [])))
    yield "skipped steps", str(report.get("skipped_steps") or "")
    yield "peak memory", _memory(report.get("peak_memory_bytes"))
    yield "device and precision", f"{report.get('device', '')}, {report.get('precision', '')}".strip(", ")
    yield "seed", str(report["seed"])


def _unfinished(run: Run) -> Iterator[tuple[str, str]]:
    settings = run.settings
    targets = settings.get("target")
    if isinstance(targets, Mapping) and targets:
        yield "to be left at most", ", ".join(f"{name} {value}" for name, value in targets.items())
    else:
        yield from _target(str(settings.get("metric", "params")), settings.get("target_sparsity"))
    for row in run.metrics[-1:]:
        yield "training loss at the last step on record", "" if row["loss"] is None else f"{row['loss']:.4f}"
        if row.get("sparsity") is not None and row.get("target") is not None:
            yield "expected sparsity there", f"{row['sparsity']:.3f}, asked for {row['target']:.3f}"
    yield "seed", str(settings.get("seed", ""))


def own_scores(run: Run) -> tuple[Mapping[str, Any], ...]:
    """The run's own rows among those of an evaluation.

    Args:
        run: Finished or not.
    """
    own = own_names(run, (row["model"] for row in run.probes))
    return tuple(row for row in run.probes if row["model"] in own)


def _probes(run: Run) -> Iterator[tuple[str, str]]:
    """The run's own results among those of other models."""
    for row in own_scores(run):
        yield f"{row['task']}, {row['metric']}", score(row["mean"], row.get("deviation"))


def own_names(run: Run, names: Iterable[str]) -> set[str]:
    """What a file in a run's folder calls the run: the longest name that the folder's path ends in.

    Nothing tells in which folder the file was made, which its names may be relative to.

    Args:
        run: Finished or not.
        names: Of all models that the file tells of.
    """
    report = run.report or {}
    # A teacher may be called as the folder is, and is no run.
    models = {*names} - {report.get("teacher")}
    # A run that was moved still is called what it was when it was made.
    for place in (run.path.resolve(), run.path.absolute(), Path(report.get("run_directory", ""))):
        found = {model: len(parts) for model in models if _ends(place.parts, parts := _downwards(model))}
        if found:
            return {model for model, length in found.items() if length == max(found.values())}
    return set()


def _downwards(path: str) -> tuple[str, ...]:
    """The parts of a path from where it goes down."""
    return tuple(dropwhile(lambda part: part == "..", Path(normpath(path)).parts))


def _ends(parts: tuple[str, ...], ending: tuple[str, ...]) -> bool:
    return len(ending) <= len(parts) and parts[len(parts) - len(ending) :] == ending


def _target(metric: str, sparsity: object) -> Iterator[tuple[str, str]]:
    if isinstance(sparsity, float):
        yield "to remove", f"{sparsity:.1%} of the {noun_of(metric)}"


def _targets(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """Each of several targets: what is left, what may be, which binds."""
    for row in rows:
        size, most, dense = (row[key] / (row["unit"] or 1) for key in ("size", "budget", "dense"))
        binds = ", binds" if row["binds"] else ""
        words = f"{plain(size)} of at most {plain(most)} ({size / (dense or 1):.1%} of {plain(dense)}){binds}"
        yield f"{row['counts']} left", words


def _times(number: int) -> str:
    return counted(number, "time") if number else ""


def _memory(number: int | None) -> str:
    return f"{number / 1e9:.2f} GB" if number else ""
